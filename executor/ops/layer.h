/* Forward and backward of every layer kind on a device, as the executor runs and the profiler times
 * them. What buffers a call needs is in ir/layer.h's table. */
#ifndef TEMPER_OPS_LAYER_H
#define TEMPER_OPS_LAYER_H

#include "base/error.h"
#include "executor/ops/device.h"
#include "ir/layer.h"
#include <stdbool.h>
#include <stdint.h>

/* What the ranks that share a layer do together, supplied by the executor. Every function is
 * collective over the part.ways ranks, in the order of part.index. */
struct layer_group {
    void *user;
    /* In place, fp32 [count]: the sum, or the maximum; the same bits at every rank. */
    enum status (*all_reduce_sum)(void *user, float *data, size_t count, struct error *err);
    enum status (*all_reduce_max)(void *user, float *data, size_t count, struct error *err);
    /* `out` receives `bytes` of every rank, one behind the other. */
    enum status (*all_gather)(void *user, const void *in, void *out, size_t bytes,
                              struct error *err);
    /* `out` [count] receives this rank's piece of the sum of all `in` [ways * count]. */
    enum status (*reduce_scatter)(void *user, const float *in, float *out, size_t count,
                                  struct error *err);
};

/* Everything one call works on; T = sequences * seq_length tokens of the group, S =
 * part_stream_tokens of them in the residual stream. All pointers are device memory and stay the
 * caller's. */
struct layer_call {
    const struct model *model;
    struct layer_part part;
    struct layer_precision_mode mode;
    struct micro_batch_shape shape;
    const struct layer_group *group; /* with part.ways > 1; else NULL */
    /* Called between kernels, so that communication under way goes on; NULL: nothing is. */
    void (*poll)(void *user);
    void *poll_user;

    /* The part's tensors in the order of layer_part_tensors: matrices in fp32, or in the layer's 16
     * bit (the other is not read and may be NULL), vectors in fp32. */
    const float *matrices;
    const uint16_t *matrices_16;
    const float *vectors;
    /* Gradients of all matrices, those of `table` too, are in gradient_precision: fp32, or in bf16
     * where mode.precision is, or of the embedding; sums over tokens are of fp32 in either case,
     * and what bf16 has of them, or of them and what was there, is rounded once (of the head: once
     * a chunk of tokens). Not read in forward. */
    void *matrix_gradients;
    enum precision gradient_precision;
    float *vector_gradients; /* fp32 */
    /* A tied head that owns no table reads the embedding's, rows [part_vocab_rows, hidden]: in fp32
     * or in its 16 bit, and its backward writes the table's gradient. Else NULL. */
    const float *table;
    const uint16_t *table_16;
    void *table_gradients;
    /* Gradients are added to what is there; false: they overwrite it, so that nobody has to zero
     * them. Those of the table follow that of the matrices. */
    bool accumulate_matrices, accumulate_vectors;
    /* Embedding: the tied head's backward has already written matrix_gradients' table in this
     * micro-batch, so it is added to in any case. */
    bool table_is_written;

    const int32_t *tokens;  /* [T], each in [0, vocab); embedding */
    const int32_t *targets; /* [T], each < vocab, negative: ignored; head */
    /* Of one target's share of the loss: 1 / (tokens of the global batch), times the loss scale of
     * fp16. The head's backward multiplies by it, so that gradients of all micro-batches and ranks
     * simply add up. */
    float loss_scale;

    const float *input; /* [S, hidden]: the residual stream before the layer; not of embedding */
    float *output;      /* [S, hidden]: after it; not of head. May not be `input`. */
    /* [S, hidden]: gradient of the loss by `output` on entry of backward, by `input` on return, in
     * place. The head only writes it, the embedding only reads it. */
    float *gradient;

    void *slots[SLOT_COUNT]; /* buffers of layer_part_buffers: NULL where the mode has none */
};

/* All are deterministic: the same call gives the same bits for the same number of threads. A
 * precision that the device lacks is STATUS_UNSUPPORTED.
 *
 * The loss is the sum over the group's targets of the negative log-likelihood, in nats, the same at
 * every rank of the group. The head makes the logits of a chunk of tokens (head_chunk_tokens), and
 * of them loss and gradients, before it goes on to the next: in training all of that is the
 * backward call's, so that no logits have to be kept or made twice. Only its `input` is.
 *
 * Compute `output` (embedding, attention, mlp) or the loss (head). `loss_sum` (head only, else
 * NULL) receives the loss; NULL for the head: the backward call will tell, and this one has nothing
 * to do and reads no parameters. */
enum status layer_forward(struct device *device, const struct layer_call *call, double *loss_sum,
                          struct error *err);
/* Compute gradients; recomputes first what mode.recompute did not keep. The head also computes the
 * loss into `loss_sum` (head only, else NULL; may be NULL); it wants no forward call before. Under
 * sequence parallelism the norm's gradients (the first part_counts.partial of the vectors) are this
 * rank's share of a sum over the group, all others are whole. Every recompute mode gives the same
 * bits. */
enum status layer_backward(struct device *device, const struct layer_call *call, double *loss_sum,
                           struct error *err);
/* The head alone: the logits of the group's tokens [first, first + count), count at most
 * head_chunk_tokens, into SLOT_LOGITS: fp32 [count, part_vocab_rows] of the rank's part of the
 * vocabulary. */
enum status layer_logits(struct device *device, const struct layer_call *call, int64_t first,
                         int64_t count, struct error *err);

#endif
