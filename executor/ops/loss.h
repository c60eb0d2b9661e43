/* Softmax cross-entropy over the vocabulary, of which a group of ranks may have parts (Shoeybi et
 * al. 2019). */
#ifndef TEMPER_OPS_LOSS_H
#define TEMPER_OPS_LOSS_H

#include "executor/ops/internal.h"

/* What is known of each token's row of logits: [tokens] each, one behind the other in SLOT_LOSS. */
struct loss_rows {
    float *log_sums;                  /* log of the sum of e^logit */
    float *maxima, *sums, *at_target; /* exchanged by a group; at_target: the target's logit */
};

struct loss_rows loss_rows_at(float *memory, size_t tokens);

struct loss {
    size_t tokens;
    /* Columns: those of the part, padding included; how many are real; the first one's token. */
    size_t vocab, valid, first;
    const struct layer_group *group; /* NULL: `valid` is the whole vocabulary */
    float *logits;                   /* [tokens, vocab] */
    const int32_t *targets;          /* [tokens]; < 0: ignored */
    struct loss_rows rows;           /* written */
};

/* Adds to `sum` the negative log-likelihood of the targets, in nats; the same at every rank. Token
 * after token, so that a cut into calls changes no bit. */
enum status loss_forward(struct device *device, const struct loss *loss, double *sum,
                         struct error *err);

/* (softmax - one-hot of the target) * scale; rows without a target and columns of padding are 0. */
struct loss_gradient {
    float scale;
    enum precision precision;
    void *out; /* [tokens, vocab]; in fp32 it may be the logits themselves */
};
/* The same and the gradient by the logits. */
enum status loss_backward(struct device *device, const struct loss *loss,
                          const struct loss_gradient *gradient, double *sum, struct error *err);

#endif
