/* What the files of this folder share and nobody else sees. */
#ifndef TEMPER_OPS_INTERNAL_H
#define TEMPER_OPS_INTERNAL_H

#include "executor/ops/device.h"
#include "executor/ops/layer.h"
#include <omp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct matmul_cache; /* gemm_onednn.c */
struct panels;       /* gemm_fp16.c */

enum { DEVICE_LIBRARIES_BYTES = 160 };

struct device {
    int threads;
    char libraries[DEVICE_LIBRARIES_BYTES];
    struct matmul_cache *onednn; /* NULL where it computes no product */
    struct panels *fp16;         /* NULL before the first product in fp16 */
    /* cos and sin of RoPE, grown on demand: rope.c */
    float *rope; /* [rope_positions, head_dim / 2, 2] */
    size_t rope_positions, rope_head_dim;
    double rope_theta;
};

/* BLAS's thread count is the process's: set it to this device's, which was perhaps not the last to
 * be opened. */
void device_claim(const struct device *device);

struct span {
    size_t begin, end;
};

/* ---- a part's sizes and tensors, in the types that loops want ---- */

struct layer_dims {
    size_t sequences, length;
    size_t tokens; /* of the group */
    size_t stream; /* of these in the residual stream of this rank */
    size_t hidden, head_dim;
    /* of the part: */
    size_t heads, kv_heads;
    size_t context; /* heads * head_dim */
    size_t qkv;     /* (heads + 2 kv_heads) * head_dim */
    size_t ffn, pre;
    size_t vocab; /* rows of its token table: vocab_first and on, of which vocab_valid exist */
    size_t vocab_first, vocab_valid;
    size_t chunk; /* tokens whose logits the head makes at once */
    enum precision precision;
    bool is_16; /* the precision is bf16 or fp16 */
};

struct layer_view {
    struct layer_dims dims;
    const float *parameters[ROLE_COUNT]; /* NULL: no such tensor, or a matrix not given in fp32 */
    const uint16_t *parameters_16[ROLE_COUNT]; /* matrices; NULL in fp32 as well */
    /* NULL in forward; matrices in layer_call.gradient_precision, vectors in fp32 */
    void *gradients[ROLE_COUNT];
};

struct layer_view layer_view_of(const struct layer_call *call);
/* The tensor as the layer's GEMMs read it: fp32 or 16 bit. */
const void *layer_weight(const struct layer_view *view, enum tensor_role role);

/* Let communication that is under way go on. */
static inline void layer_poll(const struct layer_call *call)
{
    if (call->poll != NULL)
        call->poll(call->poll_user);
}

enum status embedding_forward(struct device *device, const struct layer_call *call,
                              struct error *err);
enum status embedding_backward(struct device *device, const struct layer_call *call,
                               struct error *err);
enum status attention_forward(struct device *device, const struct layer_call *call,
                              struct error *err);
enum status attention_backward(struct device *device, const struct layer_call *call,
                               struct error *err);
enum status mlp_forward(struct device *device, const struct layer_call *call, struct error *err);
enum status mlp_backward(struct device *device, const struct layer_call *call, struct error *err);
enum status head_forward(struct device *device, const struct layer_call *call, double *loss_sum,
                         struct error *err);
enum status head_backward(struct device *device, const struct layer_call *call, double *loss_sum,
                          struct error *err);
enum status head_logits(struct device *device, const struct layer_call *call, struct span tokens,
                        struct error *err);

/* ---- sharing work between threads ---- */

/* The calling thread's part of `count` items, cut at multiples of `grain`; inside a parallel
 * region. The same cut for the same number of threads, whatever the timing. */
static inline struct span span_of_thread(size_t count, size_t grain)
{
    size_t threads = (size_t)omp_get_num_threads(), thread = (size_t)omp_get_thread_num();
    size_t grains = (count + grain - 1) / grain;
    size_t begin = grains * thread / threads * grain, end = grains * (thread + 1) / threads * grain;
    return (struct span){begin < count ? begin : count, end < count ? end : count};
}

/* ---- element-wise work on [tokens, width] arrays, in all threads ---- */

/* out[t, :] = addend[t, :] + row; row NULL: zero. */
void rows_add(struct device *device, const float *addend, const float *row, float *out,
              size_t tokens, size_t width);
/* out[t, :] += addend[t, :] + row; row NULL: zero. */
void rows_add_onto(struct device *device, const float *addend, const float *row, float *out,
                   size_t tokens, size_t width);
/* sum over t of data[t, j] into out[j], added to what is there when `accumulate`. */
void columns_sum(struct device *device, const void *data, enum precision precision, float *out,
                 size_t tokens, size_t width, bool accumulate);

#endif
