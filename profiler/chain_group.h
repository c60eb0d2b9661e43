/* The ranks that share a chain's layers, and the time that they spend on each other. */
#ifndef TEMPER_PROFILER_CHAIN_GROUP_H
#define TEMPER_PROFILER_CHAIN_GROUP_H

#include "executor/comm/comm.h"
#include "executor/ops/layer.h"

/* Zero-initialise ({0}); release with chain_group_close. */
struct chain_group {
    struct comm *comm; /* NULL: layers are whole */
    int ways;
    int64_t exchange_ns; /* spent so far in `calls`, waiting for the other ranks included */
    struct layer_group calls;
};

/* This rank joins the `ways` neighbours that it shares layers with; nothing happens where it is one
 * of so many already. `calls.user` points to `group`, which may not move. Collective over
 * `world`, whose ranks `ways` divides. */
enum status chain_group_join(struct chain_group *group, struct comm *world, int ways,
                             struct error *err);
void chain_group_close(struct chain_group *group);

#endif
