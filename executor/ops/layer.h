/* Forward and backward of every layer kind on a device, as the executor runs and the profiler times
 * them. What buffers a call needs is in ir/layer.h's table. */
#ifndef TEMPER_OPS_LAYER_H
#define TEMPER_OPS_LAYER_H

#include "base/error.h"
#include "executor/ops/device.h"
#include "ir/layer.h"
#include <stdbool.h>
#include <stdint.h>

/* Everything one call works on; T = sequences * seq_length tokens. All pointers are device memory
 * and stay the caller's. */
struct layer_call {
    const struct model *model;
    enum layer_kind kind;
    struct layer_precision_mode mode;
    struct micro_batch_shape shape;

    /* The layer's parameters and gradients, fp32, in the order of layer_tensors (one behind the
     * other). For a tied head `tied` points at the token embedding, else it is NULL. */
    const float *parameters;
    float *gradients;
    const float *tied_parameters; /* [vocab, hidden] or NULL */
    float *tied_gradients;        /* [vocab, hidden] or NULL */
    /* The same parameters in bf16, when mode.precision is bf16; see ops_cast_bf16. */
    const uint16_t *parameters_bf16;
    const uint16_t *tied_parameters_bf16;
    /* True from the second micro-batch of a step on: gradients are added to what is there. False:
     * they overwrite it, so that nobody has to zero them. */
    bool accumulate;

    const int32_t *tokens;  /* [T], each in [0, vocab); embedding */
    const int32_t *targets; /* [T], each < vocab, negative: ignored; head, NULL for logits only */
    /* Of one target's share of the loss: 1 / (tokens of the global batch). The head's backward
     * multiplies by it, so that gradients of all micro-batches and ranks simply add up. */
    float loss_scale;

    const float *input; /* [T, hidden]: the residual stream before the layer; not of embedding */
    float *output;      /* [T, hidden]: after it; not of head. May not be `input`. */
    /* [T, hidden]: gradient of the loss by `output` on entry of backward, by `input` on return, in
     * place. The head only writes it, the embedding only reads it. */
    float *gradient;

    void *slots[SLOT_COUNT]; /* buffers of layer_buffers: NULL where the mode has none */
};

/* Both are deterministic: the same call gives the same bits for the same number of threads. A
 * precision that the device lacks is STATUS_UNSUPPORTED.
 *
 * Compute `output` (embedding, attention, mlp) or the logits and the loss (head). `loss_sum` (head
 * only, else NULL) receives the sum over targets of the negative log-likelihood, in nats; it may be
 * NULL for the head too when only logits are wanted. */
enum status layer_forward(struct device *device, const struct layer_call *call, double *loss_sum,
                          struct error *err);
/* Compute gradients; recomputes first what mode.recompute did not keep. The head's wants the
 * buffers of a forward call with targets; a tied head's comes before the embedding's, which adds to
 * the same gradients. Every recompute mode gives the same bits. */
enum status layer_backward(struct device *device, const struct layer_call *call, struct error *err);

#endif
