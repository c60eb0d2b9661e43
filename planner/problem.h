/* The search without models or hardware: a chain of layers, each of a class that admits a few
 * strategies, cut into pipeline stages.
 *
 * A solution gives every layer a strategy and a stage. Stages are intervals of the chain in order,
 * none empty. With sums over the layers and transitions of a stage p, it costs
 *
 *     fixed_cost + sum cost + sum first_cost of the first stage + sum send_cost of the last layer
 * of each but the last stage
 *     + weight_tau * max_p sum (tau - warm_up_p * head) + weight_gamma * max_p sum gamma
 *     + weight_memory * max_p M_p,
 *     M_p = fixed_bytes_p + sum (static + in_flight_p * inflight) + max scratch
 *
 * and is feasible when every M_p <= cap_bytes_p, each of the traits that the problem needs is that
 * of some layer's strategy, and what it spends of a second resource (energy, money) is within the
 * budget:
 *
 *     sum spend + sum first_spend of the first stage + sum send_spend of the last layers
 *     + spend_tau * max_p sum (tau - warm_up_p * head) + spend_gamma * max_p sum gamma <= spend_cap
 *
 * What is spent once a layer (its own time, energy) is in `cost`; tau is what the slowest stage
 * repeats for each further micro-batch, less the forward passes (`head`) that its warm-up does
 * while the stages behind it work; gamma what all stages do at once and wait for (so that idling
 * devices spend spend_tau and spend_gamma). Weights and rates of spending are >= 0; figures are
 * finite, those of transitions, first and send >= 0, and all costs in units of the caller's
 * objective; bytes are exact integers.
 *
 * Stages may stand on unlike devices: each rule names a *place*, and a strategy costs what its row
 * for that place says. A strategy that a place does not admit has a cost of INFINITY there. */
#ifndef TEMPER_PLANNER_PROBLEM_H
#define TEMPER_PLANNER_PROBLEM_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct strategy {
    double cost;      /* INFINITY: not admitted at this place */
    double tau, head; /* 0 <= head <= tau */
    double gamma;
    double first_cost; /* on the first stage only */
    double send_cost;  /* of handing the layer's output to the next stage */
    double spend;      /* of the second resource */
    double first_spend, send_spend;
    uint64_t static_bytes;
    uint64_t inflight_bytes; /* per micro-batch in flight */
    uint64_t scratch_bytes;  /* shared by the layers of a stage */
    size_t group;            /* what transitions depend on */
    unsigned traits;         /* bits, see problem.needs */
};

struct layer_class {
    size_t strategy_count; /* > 0, and the same at every place */
    const struct strategy *strategies;
    bool follows_nothing; /* what stands before it in the chain is not its neighbour */
};

/* Between two neighbours in one stage: resharding. */
struct transition {
    double cost;
    double tau, head;
    double spend;
};

#define PROBLEM_NO_CAP UINT64_MAX

struct stage_rule {
    uint64_t in_flight; /* micro-batches */
    double warm_up;     /* share of `head` that its tau does not count, 0 .. 1 */
    size_t end;         /* the layer after its last; 0: free */
    size_t place;       /* < places */
    uint64_t fixed_bytes;
    uint64_t cap_bytes; /* PROBLEM_NO_CAP: none, then of no stage */
};

enum { PROBLEM_TRAITS = 2, PROBLEM_TRAIT_SETS = 1 << PROBLEM_TRAITS };

/* A budget is held to this share of itself: sums in another order differ by less. */
#define PROBLEM_SPEND_SHARE 1e-9

/* Everything is borrowed and stays the caller's. */
struct problem {
    size_t layer_count;
    const size_t *layer_class; /* [layer_count], each < class_count */
    size_t places;             /* 1: all stages stand on devices of one kind */
    size_t class_count;
    const struct layer_class *classes; /* [places][class_count], see problem_class */
    /* [places][group_count][group_count], from before to; NULL: changes are free. */
    const struct transition *transitions;
    size_t group_count;
    size_t stages;                  /* 1 .. layer_count */
    const struct stage_rule *rules; /* [stages]; all ends are free or none is */
    double weight_tau, weight_gamma;
    double weight_memory; /* per byte */
    double fixed_cost;
    unsigned needs;   /* each of these traits must be that of some layer's strategy */
    double spend_cap; /* INFINITY: no budget, then nothing below matters */
    double spend_tau, spend_gamma;
};

/* A class as the stage's place has it. */
static inline const struct layer_class *problem_class(const struct problem *problem, size_t stage,
                                                      size_t class)
{
    return &problem->classes[problem->rules[stage].place * problem->class_count + class];
}

/* One layer on one stage, without what sending spends and scratch. */
struct stage_terms {
    double cost, tau, gamma, spend;
    uint64_t bytes;
};
struct stage_terms problem_stage_terms(const struct problem *problem, size_t stage,
                                       const struct strategy *strategy);
bool strategy_is_admitted(const struct strategy *strategy);
bool problem_has_budget(const struct problem *problem);
/* The budget and PROBLEM_SPEND_SHARE of it. */
double problem_spend_most(const struct problem *problem);
bool problem_affords(const struct problem *problem, double spend);
/* The largest of its stages. */
uint64_t problem_most_cap(const struct problem *problem);
/* May a stage end before layer `end`? */
bool problem_may_end(const struct problem *problem, size_t stage, size_t end);
/* NULL where the change is free. */
const struct transition *problem_transition(const struct problem *problem, size_t stage,
                                            const struct strategy *from,
                                            const struct layer_class *to_class,
                                            const struct strategy *to);
double problem_transition_tau(const struct problem *problem, size_t stage,
                              const struct transition *change);

struct assignment {
    size_t *strategies; /* [layer_count], owned; index into the class's strategies */
    size_t *stages;     /* [layer_count], owned */
};

enum status assignment_alloc(struct assignment *out, size_t layer_count, struct error *err);
void assignment_copy(struct assignment *to, const struct assignment *from, size_t layer_count);
void assignment_free(struct assignment *assignment);

/* The formula above; INFINITY when it is not feasible. `peak_bytes` (NULL allowed) receives
 * the fullest stage's. */
double problem_evaluate(const struct problem *problem, const struct assignment *assignment,
                        uint64_t *peak_bytes);

/* The least possible max_p (M_p + C - cap_bytes_p) of any assignment, within the budget or not,
 * with C the largest cap (problem_most_cap): it fits when this is at most C, and where all caps are
 * alike it is the least peak. UINT64_MAX: none has the needed traits. `assignment` (NULL allowed)
 * receives one that reaches it. */
enum status problem_leanest(const struct problem *problem, uint64_t *bytes,
                            struct assignment *assignment, struct error *err);

#endif
