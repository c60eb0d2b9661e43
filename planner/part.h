/* A part of the plans of one shape as a problem of planner/problem.h.
 *
 * Some bytes of a plan depend on all of its layers at once: rings on the highest ZeRO stage,
 * streams on whether all layers hold the same tokens, the process on whether any computes in 16
 * bit; and a tied head must be split as the embedding is, and keeps the table's gradients as it
 * does. A part fixes none, some or all of these.
 * What it does not fix it charges with the least that any of its plans has, so its problem is a
 * relaxation: no plan of the part costs less than the problem says. When the plan that solves it
 * has more than it was charged, the part is split by what was charged too little.
 *
 * Time with more than one stage is a relaxation of the schedule's exact time, too (below a proven
 * bound, see part.c), so that the best plan found may be above the bound of its part. */
#ifndef TEMPER_PLANNER_PART_H
#define TEMPER_PLANNER_PART_H

#include "planner/problem.h"
#include "planner/space.h"

enum { PART_CHILDREN_MAX = 16 * SPREADS_MAX };

enum part_streams {
    PART_STREAMS_FREE,
    PART_STREAMS_ALIKE, /* all layers of one spread */
    PART_STREAMS_MIXED, /* any */
};

struct part {
    bool split_is_fixed; /* of embedding and tied head: */
    int table_tensor_parallel, table_zero;
    bool table_sequence; /* of the embedding */
    enum precision table_gradients;
    bool rings_are_fixed;
    int rings, zero_most; /* rings charged; no layer above this stage */
    enum part_streams streams;
    size_t spread; /* of PART_STREAMS_ALIKE */
    bool precision_is_fixed;
    bool has_16; /* else all is fp32 */
};

/* All plans of a shape. */
struct part part_whole(void);

/* What one unit of each quantity counts in the objective. */
struct objective_rates {
    double per_second, per_byte, per_joule;
};

struct part_problem {
    struct problem problem;
    struct quantity process_bytes; /* charged beside the problem's */
    bool bytes_matter;             /* else all bytes in the problem are 0 */
    const struct space *space;
    const struct shape *shape;
    size_t *layers;                 /* [layer_count]: the model's layer at each place, owned */
    int *virtual_stages;            /* [layer_count]: at each place where stages are cut in advance;
                                       NULL: they are free; owned */
    size_t *layer_class;            /* [layer_count], owned */
    struct layer_class *classes;    /* [class_count], owned */
    struct strategy *strategies;    /* what the classes point into, owned */
    const struct priced **origins;  /* the same order, owned */
    struct stage_rule *rules;       /* [stages], owned */
    struct transition *transitions; /* owned; NULL */
};

/* *is_empty: no plan of the part is left (some layer has no strategy, or energy counts and is
 * absent); nothing to close then. */
enum status part_open(struct part_problem *out, const struct space *space,
                      const struct shape *shape, const struct part *part,
                      const struct objective_rates *rates, bool *is_empty, struct error *err);
void part_close(struct part_problem *problem);

/* The plan of an assignment: all but prediction, objective and what it was made from. Release with
 * plan_clear. It is valid but for a tied head that is split otherwise than the embedding. */
enum status part_plan(const struct part_problem *problem, const struct assignment *assignment,
                      struct plan *out, struct error *err);

/* Split a part by what it charged `plan`, one of its plans, too little; returns how many parts
 * stand for it, 0: it charges nothing too little. */
size_t part_split(const struct space *space, const struct shape *shape, const struct part *part,
                  const struct plan *plan, struct part children[PART_CHILDREN_MAX]);
/* Is the plan's tied head split as its embedding? */
bool part_is_consistent(const struct plan *plan);

#endif
