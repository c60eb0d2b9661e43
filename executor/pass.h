/* One micro-batch through the chain of layers, forward and backward. */
#ifndef TEMPER_EXECUTOR_PASS_H
#define TEMPER_EXECUTOR_PASS_H

#include "base/error.h"
#include "executor/layout.h"
#include "ir/event.h"
#include "ir/plan.h"

struct pass {
    const struct plan *plan;
    struct layout *layout;
    struct micro_batch_shape shape; /* at most the plan's in sequences */
    struct event_sink sink;
    int32_t rank;
    int64_t step;
    int32_t micro_batch;
    float loss_scale; /* see executor/ops/layer.h */
    bool accumulate;
    uint64_t live_bytes; /* activations alive now */
    /* After a layer's backward; for starting its gradient reduction. May be NULL. */
    enum status (*layer_done)(void *user, size_t layer, struct error *err);
    void *layer_done_user;
};

/* Run the layers on layout->tokens and layout->targets. `loss_sum` as in layer_forward. */
enum status pass_forward(struct pass *pass, double *loss_sum, struct error *err);
enum status pass_backward(struct pass *pass, struct error *err);

/* Record one event on the sink, if there is one. */
void pass_record(const struct pass *pass, enum event_stream stream, int32_t layer, enum phase phase,
                 int64_t start_ns, uint64_t bytes);

#endif
