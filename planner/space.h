/* The plans that a request allows, by what the search itself does not vary: ranks and threads, how
 * the ranks are split into stages, replicas and shares of a layer, micro-batch and schedule.
 *
 * One stage has 1f1b. More have 1f1b and, with as many layers, interleaved of 2 and 4 chunks a
 * stage; GPipe, which takes as long as 1f1b and holds more, only where it is pinned. Stages are cut
 * anywhere between two layers, but for interleaved ones: these have equally many of the blocks'
 * layers in each chunk (Narayanan et al. 2021), embedding and head beside the first and last.
 * Layers compute in fp32 or in one 16-bit precision; in both of them only where pins say so. */
#ifndef TEMPER_PLANNER_SPACE_H
#define TEMPER_PLANNER_SPACE_H

#include "planner/prices.h"

struct shape {
    size_t prices; /* index into space.prices */
    enum schedule schedule;
    int virtual_stages;
    enum precision half; /* the 16-bit precision that layers may have; others where it is pinned */
};

struct space {
    const struct planner_request *request;
    struct layer_groups groups; /* owned */
    struct prices *prices;      /* [prices_count], owned */
    size_t prices_count, prices_capacity;
    struct shape *shapes; /* [count], owned */
    size_t count, capacity;
    bool any_placement;   /* some measured placement is within the request */
    bool any_mesh;        /* and its ranks can be split as the pins want */
    bool any_batch;       /* and its replicas divide the global batch as the pins want */
    bool any_schedule;    /* and it has a schedule */
    struct error missing; /* why the first mesh has no strategies; STATUS_OK: all have */
};

/* STATUS_MEMORY only: an empty space is no error, its last fields say why it is empty. */
enum status space_open(struct space *out, const struct planner_request *request, struct error *err);
void space_close(struct space *space);

/* Exactly one plan: every choice is pinned. */
bool space_is_single(const struct space *space);

/* The virtual stage of a layer under an interleaved schedule of this many virtual stages. */
int interleaved_stage(const struct model *model, size_t layer, int virtual_stages);

#endif
