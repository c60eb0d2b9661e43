/* A whole model, or one rank's part of it, on a device with everything a training step needs: for
 * tests and benchmarks of the layers. Every buffer ends in a guard, and before each forward pass
 * what the layers must write by themselves can be poisoned with NaN. */
#ifndef TEMPER_TESTS_OPS_CHAIN_H
#define TEMPER_TESTS_OPS_CHAIN_H

#include "executor/ops/layer.h"
#include "executor/ops/update.h"

struct chain_options {
    struct micro_batch_shape shape;  /* threads: of the device too */
    enum precision gradients;        /* of matrices: bf16 where `precision` is; else fp32 */
    enum precision precision;        /* of the layers that admit it, */
    enum recompute recompute;        /* as this, */
    enum attention_kernel attention; /* and this together with it; the others do without */
    /* One rank's part of every layer; ways 0: whole layers. */
    int ways, index;
    bool sequence_parallel;
    bool owns_table; /* the head, where it is tied */
    const struct layer_group *group;
};

struct chain_region {
    void *data;
    size_t bytes; /* without the guard */
};

struct chain_layer {
    struct layer layer;
    struct layer_part part;
    struct layer_precision_mode mode;
    struct part_counts counts;
    size_t at;           /* of its matrices in the flat arrays; its vectors stand behind them */
    size_t gradients_at; /* bytes into chain.gradients */
    struct chain_region slots[SLOT_COUNT];
    struct chain_region output; /* [S, hidden]; not of the head */
};

struct chain {
    struct device *device;
    struct model model;
    struct chain_options options;
    size_t layer_count, tokens;
    struct chain_layer *layers;
    struct chain_region scratch[SLOT_COUNT]; /* shared by all layers */
    uint64_t count;                          /* elements of the flat arrays */
    float *parameters;
    float *gradients; /* flat if all are fp32; else of each layer its matrices in bf16, then its
                         vectors in fp32: see chain_gradients */
    size_t gradient_bytes;
    uint16_t *parameters_16;      /* in the options' precision */
    struct chain_region gradient; /* [S, hidden] */
    int32_t *token_ids, *targets; /* [T] */
    float loss_scale;
};

struct chain_tensor {
    struct tensor_part part;
    size_t at; /* of its elements in the flat arrays */
};

/* Tiny models. Sizes are odd on purpose: no multiple of a vector, a strip or a tile. gpt2's head is
 * tied; llama's heads are together wider than the residual stream, and two share a key head. */
extern const struct model chain_gpt2, chain_llama;

enum status chain_open(struct chain *chain, const struct model *model,
                       const struct chain_options *options, struct error *err);
void chain_close(struct chain *chain);

/* Normal weights as layer_tensors says, but with norm weights and biases random too; the same for
 * every split. */
enum status chain_randomise(struct chain *chain, uint64_t seed, struct error *err);
/* After the parameters changed. */
void chain_cast(struct chain *chain);
struct layer_call chain_call(struct chain *chain, size_t index);
/* All in fp32, flat as the parameters. */
void chain_gradients(const struct chain *chain, float *out);
/* A layer's tensors in memory order; returns how many. */
size_t chain_tensors(const struct chain *chain, size_t index,
                     struct chain_tensor out[LAYER_TENSORS_MAX]);

/* What lies between the tensors in the flat arrays stays 0. */
void chain_poison(struct chain *chain);
/* `loss_sum` as in layer_forward and layer_backward, of the head. */
enum status chain_forward(struct chain *chain, double *loss_sum, struct error *err);
enum status chain_backward(struct chain *chain, bool accumulate, double *loss_sum,
                           struct error *err);
/* After a forward pass: the logits of all tokens [T, the part's vocabulary], chunk after chunk. */
enum status chain_logits(struct chain *chain, float *out, struct error *err);
/* Has every guard the value it was given? */
bool chain_guards_hold(const struct chain *chain);

#endif
