/* One micro-batch through one chunk of this rank's layers, forward or backward. */
#ifndef TEMPER_EXECUTOR_PASS_H
#define TEMPER_EXECUTOR_PASS_H

#include "base/error.h"
#include "executor/groups.h"
#include "executor/journal.h"
#include "executor/layout.h"
#include "executor/parameters.h"
#include "executor/reduction.h"
#include "executor/reshard.h"
#include "ir/plan.h"

/* Everything is borrowed. */
struct pass {
    const struct plan *plan;
    struct memory_layout *layout;
    const struct groups *groups;
    struct journal *journal;
    struct parameters *parameters;
    struct reduction *reduction; /* NULL: forward only */
    struct reshard reshard;
    float loss_scale; /* see executor/ops/layer.h */
};

/* The local layers [*first, *end) of a chunk. */
void pass_chunk_layers(const struct pass *pass, int chunk, size_t *first, size_t *end);

struct pass_forward_call {
    int chunk;
    int64_t micro_batch;
    /* The residual stream from the stage before, of this spread; the embedding's chunk has none. */
    const float *incoming;
    int incoming_spread;
    float *outgoing; /* receives the last layer's output; the head's chunk has none */
    /* Where nothing is trained, the head's loss is added here; NULL: the logits of one token are
     * wanted, which it leaves in SLOT_LOGITS. In training it has nothing to do before its backward.
     */
    double *loss_sum;
    int64_t logits_token;
};
enum status pass_forward(struct pass *pass, const struct pass_forward_call *call,
                         struct error *err);

struct pass_backward_call {
    int chunk;
    int64_t micro_batch;
    bool is_last;     /* of the step's micro-batches: gradients are final after it */
    double *loss_sum; /* the head's is added here */
    /* A stream: the gradient of the last layer's output, of its spread, on entry (the head's chunk
     * needs none); of the first layer's input on return. */
    float *gradient;
};
enum status pass_backward(struct pass *pass, const struct pass_backward_call *call,
                          struct error *err);

#endif
