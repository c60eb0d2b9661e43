/* The plans that a request allows, as a list of problems: everything that the search itself does
 * not vary (ranks, threads, micro-batch, whether there is a bf16 copy) is enumerated here.
 *
 * A bf16 copy of all parameters is charged as soon as one layer computes in bf16. So the plans are
 * partitioned: fp32 only; at least one attention layer in bf16; else at least one mlp layer; else
 * the head. "At least one" is the first layer of that kind, forced into a class of its own: layers
 * of a kind are interchangeable. */
#ifndef TEMPER_PLANNER_SPACE_H
#define TEMPER_PLANNER_SPACE_H

#include "costmodel/cost.h"
#include "planner/planner.h"
#include "planner/problem.h"

enum {
    KIND_MODES_MAX = PRECISION_COUNT * RECOMPUTE_COUNT,
    SPACE_CLASSES = LAYER_KIND_COUNT + 1, /* a class a kind, and the forced layer's */
    FORCED_CLASS = LAYER_KIND_COUNT,
    NOT_FORCED = LAYER_KIND_COUNT
};

/* One layer under one mode over a whole step. */
struct mode_cost {
    struct layer_precision_mode mode;
    double micro_batch_s, reduce_s, optimizer_s; /* one rank: a micro-batch; a step; a step */
    double step_j;                               /* all ranks, all micro-batches; NAN: absent */
    uint64_t saved_bytes, scratch_bytes;
};

struct candidate {
    struct placement placement;
    int64_t micro_batch, micro_batches;
    bool bf16_copy;
    int forced_kind; /* its first layer must be bf16; NOT_FORCED */
    size_t mode_count[LAYER_KIND_COUNT];
    struct mode_cost modes[LAYER_KIND_COUNT][KIND_MODES_MAX];
    double other_s, other_j; /* other_j NAN: absent */
    struct quantity process_bytes;
    uint64_t layout_bytes; /* what no strategy changes: parameters, gradients, moments, copies */
};

struct space {
    const struct planner_request *request;
    struct candidate *candidates; /* [count], owned */
    size_t count, capacity;
    size_t layer_count;
    size_t *layer_class[LAYER_KIND_COUNT + 1]; /* [layer_count] by forced_kind, owned */
    bool any_shape;       /* some ranks and micro-batch divide the global batch */
    bool any_placement;   /* some measured placement is within the request */
    struct error missing; /* the first measurement that a candidate lacked; STATUS_OK: none */
};

/* STATUS_MEMORY only: an empty space is no error, its last three fields say why it is empty. */
enum status space_open(struct space *out, const struct planner_request *request, struct error *err);
void space_close(struct space *space);

/* What one unit of each quantity counts in the objective. */
struct objective_rates {
    double per_second, per_byte, per_joule;
};

/* A candidate as a problem; holds what the problem borrows, so it must stay where it is. */
struct candidate_problem {
    struct problem problem;
    struct layer_class classes[SPACE_CLASSES];
    struct strategy strategies[SPACE_CLASSES][KIND_MODES_MAX];
    struct layer_precision_mode modes[SPACE_CLASSES][KIND_MODES_MAX];
};

/* False: no strategy is left for some layer (energy counts and is absent), the candidate is empty.
 */
bool space_problem(const struct space *space, const struct candidate *candidate,
                   const struct objective_rates *rates, struct candidate_problem *out);
/* The plan of least memory, of one rank. */
struct leanest {
    double bytes; /* at the quantile that the cap is held at; INFINITY: there is no plan */
    bool fits;    /* is within the cap */
};
enum status space_leanest(const struct space *space, const struct candidate *candidate,
                          struct leanest *out, struct error *err);

#endif
