/* Softmax cross-entropy over the vocabulary. */
#ifndef TEMPER_OPS_LOSS_H
#define TEMPER_OPS_LOSS_H

#include "executor/ops/internal.h"

struct loss {
    size_t tokens, vocab;
    float *logits;          /* [tokens, vocab] */
    const int32_t *targets; /* [tokens]; < 0: ignored */
    float *log_sums; /* [tokens]: log of the sum of e^logit; forward writes, backward reads */
};

/* Sum over targets of the negative log-likelihood, in nats. */
double loss_forward(struct device *device, const struct loss *loss);
/* (softmax - one-hot of the target) * scale, into bf16 `out` or, when that is NULL, over the logits
 * themselves; rows without a target become 0. */
void loss_backward(struct device *device, const struct loss *loss, float scale, uint16_t *out);

#endif
