/* Softmax cross-entropy over the vocabulary, of which a group of ranks may have parts (Shoeybi et
 * al. 2019). */
#ifndef TEMPER_OPS_LOSS_H
#define TEMPER_OPS_LOSS_H

#include "executor/ops/internal.h"

struct loss {
    size_t tokens;
    /* Columns: those of the part, padding included; how many are real; the first one's token. */
    size_t vocab, valid, first;
    const struct layer_group *group; /* NULL: `valid` is the whole vocabulary */
    float *logits;                   /* [tokens, vocab] */
    const int32_t *targets;          /* [tokens]; < 0: ignored */
    float *log_sums;  /* [tokens]: log of the sum of e^logit; forward writes, backward reads */
    float *exchanged; /* [3, tokens] with a group: maxima, sums, targets' logits */
};

/* Sum over targets of the negative log-likelihood, in nats; the same at every rank. */
enum status loss_forward(struct device *device, const struct loss *loss, double *sum,
                         struct error *err);
/* (softmax - one-hot of the target) * scale into `out` [tokens, vocab], which in fp32 may be the
 * logits themselves; rows without a target and columns of padding become 0. */
void loss_backward(struct device *device, const struct loss *loss, float scale, void *out,
                   enum precision precision);

#endif
