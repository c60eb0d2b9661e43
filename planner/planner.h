/* The search for the plan that minimises w1*T + w2*M + w3*E under the memory cap, with a proof.
 *
 * planner/space.h says which plans are searched; all of them pass plan_validate. objective.value is
 * of predict_plan; objective.bound is below every plan of the space. With one stage the search's
 * own figures are those of predict_plan, so the two meet and the plan is optimal. With more stages
 * predict_plan simulates the schedule, and the search minimises a sum that is proven to be no more
 * than the simulated time (planner/part.c has the proof, tests/planner/test_part.c tries it on
 * random plans): the bound holds, but value and bound meet only by luck, and the plan is given with
 * the gap that is left. Pipelines are also searched with a budget of labels and of time for each
 * part of the space; what that leaves open counts by its bound. */
#ifndef TEMPER_PLANNER_PLANNER_H
#define TEMPER_PLANNER_PLANNER_H

#include "base/reporter.h"
#include "costmodel/profile.h"
#include "ir/plan.h"
#include "planner/pins.h"
#include "planner/shape_pattern.h"
#include <stdatomic.h>

struct planner_request {
    const struct model *model;
    const struct profile *profile;
    int ranks;                 /* at most this many; fewer are used when that is better */
    int64_t global_batch;      /* sequences a step */
    uint64_t memory_cap_bytes; /* of one rank; 0: none */
    double risk;               /* that memory exceeds the cap; 0: MEMORY_RISK */
    double energy_cap_j; /* of a step, all ranks, held to PROBLEM_SPEND_SHARE; 0: none. Then time or
                            energy must have a weight. */
    double weight_time, weight_memory, weight_energy;
    bool raw_weights;
    struct pins pins;
    const char *pins_text; /* as given, for the record; NULL: none */
    /* [excluded_count], families of plans that are left out of the space; borrowed. */
    const struct shape_pattern *excluded;
    size_t excluded_count;
    double gap_target;      /* stop when the gap is at most this; 0: prove the optimum */
    double time_limit_s;    /* 0: none */
    const atomic_int *stop; /* becomes non-zero when the user wants the best so far; may be NULL */
    struct reporter reporter;
};

/* Why nothing fits, when STATUS_INFEASIBLE. */
struct infeasibility {
    char constraint[160]; /* the tightest one, in words */
    uint64_t
        missing_bytes; /* beyond the cap in the leanest plan; 0 when memory is not what is short */
    uint64_t leanest_bytes; /* memory of the leanest plan */
    char relaxation[240];   /* the cheapest change that makes it feasible, in words */
};

/* Of the whole search: the objective's and those of its units (each quantity's best alone). */
struct search_statistics {
    uint64_t candidates;   /* combinations of the global choices */
    uint64_t bounded_away; /* closed by their bound alone */
    uint64_t solved;       /* given to the ILP at least once */
    uint64_t columns;      /* in all masters */
    uint64_t labels;       /* of the column generation */
    double seconds;
};

struct planner_result {
    struct plan plan; /* owned; release with plan_clear */
    struct infeasibility infeasibility;
    struct search_statistics statistics;
};

/* w1*T + w2*M + w3*E of a prediction in the objective's units: what the search minimises. */
double planner_objective(const struct plan_objective *objective,
                         const struct prediction *prediction);

/* STATUS_INFEASIBLE fills result->infeasibility. STATUS_INVALID: the profile lacks what the request
 * needs (named, with the command that measures it), or w3 > 0 and no energy is known. */
enum status planner_search(const struct planner_request *request, struct planner_result *result,
                           struct error *err);

#endif
