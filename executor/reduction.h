/* Sums gradients over the ranks while the backward pass goes on: each layer's all-reduce starts as
 * soon as the layer's gradients are final, progresses between layers and ends before the update. */
#ifndef TEMPER_EXECUTOR_REDUCTION_H
#define TEMPER_EXECUTOR_REDUCTION_H

#include "base/error.h"
#include "executor/comm/comm.h"
#include "executor/pass.h"

struct reduction {
    struct comm *comm;
    struct pass *pass;
    struct comm_request **requests; /* [layer_count], owned; NULL: none under way */
};

enum status reduction_open(struct reduction *out, struct comm *comm, struct pass *pass,
                           struct error *err);
void reduction_close(struct reduction *reduction);
/* A struct pass's layer_done: `user` is the reduction. Other reductions are pushed further, too. */
enum status reduction_start(void *user, size_t layer, struct error *err);
/* Wait for all, in the order of their starts. */
enum status reduction_finish(struct reduction *reduction, struct error *err);

#endif
