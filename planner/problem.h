/* The search without models or hardware: a chain of layers, each of a class that admits a few
 * strategies, cut into pipeline stages.
 *
 * A solution gives every layer a strategy and a stage. Stages are intervals of the chain in order,
 * none empty. With sums over the layers of a stage p and 1F1B's micro-batches in flight
 * k_p = min(micro_batches, stages - p) (Narayanan et al. 2021), it costs
 *
 *     fixed_cost + sum cost + sum transition.cost + sum send_cost of the last layer of each but the
 *     last stage + weight_tau * max_p (sum tau + sum transition.tau) + weight_gamma * max_p sum
 * gamma
 *     + weight_memory * max_p M_p,    M_p = fixed_bytes + sum (static + k_p inflight) + max scratch
 *
 * and is feasible when every M_p <= cap_bytes. What is spent once a layer (its own time, energy) is
 * in `cost`; tau is what the slowest stage repeats for each further micro-batch, gamma the gradient
 * synchronisation of which only the longest is waited for. Costs, weights, tau and gamma are finite
 * and >= 0 and in units of the caller's objective; bytes are exact integers. */
#ifndef TEMPER_PLANNER_PROBLEM_H
#define TEMPER_PLANNER_PROBLEM_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

struct strategy {
    double cost;
    double tau;
    double gamma;
    double send_cost; /* of handing the layer's output to the next stage */
    uint64_t static_bytes;
    uint64_t inflight_bytes; /* per micro-batch in flight */
    uint64_t scratch_bytes;  /* shared by the layers of a stage */
};

struct layer_class {
    size_t strategy_count; /* > 0 */
    const struct strategy *strategies;
};

/* Between two neighbours in one stage: resharding, casting. */
struct transition {
    double cost;
    double tau;
};

#define PROBLEM_NO_CAP UINT64_MAX

/* Everything is borrowed and stays the caller's. */
struct problem {
    size_t layer_count;
    const size_t *layer_class; /* [layer_count], each < class_count */
    size_t class_count;
    const struct layer_class *classes;
    /* [class_count * class_count], [from * class_count + to] is [strategies of from][strategies of
     * to], or NULL where changes are free; the whole NULL when all are. */
    const struct transition *const *transitions;
    size_t stages; /* 1 .. layer_count */
    int64_t micro_batches;
    double weight_tau, weight_gamma;
    double weight_memory; /* per byte */
    double fixed_cost;
    uint64_t fixed_bytes; /* of every stage */
    uint64_t cap_bytes;   /* PROBLEM_NO_CAP: none */
};

/* Bytes of one layer on one stage, without scratch. */
uint64_t problem_stage_bytes(const struct problem *problem, size_t stage,
                             const struct strategy *strategy);
/* NULL where the change is free. */
const struct transition *problem_transition(const struct problem *problem, size_t from_class,
                                            size_t from_strategy, size_t to_class,
                                            size_t to_strategy);

struct assignment {
    size_t *strategies; /* [layer_count], owned; index into the class's strategies */
    size_t *stages;     /* [layer_count], owned */
};

enum status assignment_alloc(struct assignment *out, size_t layer_count, struct error *err);
void assignment_copy(struct assignment *to, const struct assignment *from, size_t layer_count);
void assignment_free(struct assignment *assignment);

/* The formula above; INFINITY when a stage is over the cap. `peak_bytes` (NULL allowed) receives
 * the fullest stage's. */
double problem_evaluate(const struct problem *problem, const struct assignment *assignment,
                        uint64_t *peak_bytes);

/* The least possible max_p M_p of any assignment, cap or not; `assignment` (NULL allowed) receives
 * one that reaches it. */
enum status problem_leanest(const struct problem *problem, uint64_t *bytes,
                            struct assignment *assignment, struct error *err);

#endif
