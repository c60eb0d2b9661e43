/* The groups of ranks that a plan's layers communicate in, as ir/mesh.h says who is in them. */
#ifndef TEMPER_EXECUTOR_GROUPS_H
#define TEMPER_EXECUTOR_GROUPS_H

#include "base/error.h"
#include "executor/comm/comm.h"
#include "executor/journal.h"
#include "executor/ops/layer.h"
#include "ir/plan.h"

/* For the layers of one tensor-parallel degree. */
struct degree_groups {
    int degree;
    struct comm *tensor;            /* the ranks that share such a layer */
    struct comm *data;              /* those that replicate it, over which ZeRO shards */
    struct layer_group collectives; /* of `tensor`, with its waiting written to the journal */
    struct journal *journal;        /* borrowed */
};

enum { GROUP_DEGREES_MAX = 16 };

struct groups {
    struct comm *world; /* borrowed */
    struct degree_groups degrees[GROUP_DEGREES_MAX];
    size_t count;
    struct comm *table; /* the first and the last stage's ranks of this place, where both hold a
                           copy of a tied token table; NULL: no such pair */
};

/* Collective over `world`, which has plan->ranks ranks and outlives the groups, as the journal
 * does. `out` stays where it is while the groups are open. */
enum status groups_open(struct groups *out, const struct plan *plan, struct comm *world,
                        struct journal *journal, struct error *err);
void groups_close(struct groups *groups); /* a zeroed one is allowed */
/* Of a degree that some layer of the plan has. */
const struct degree_groups *groups_of(const struct groups *groups, int degree);

#endif
