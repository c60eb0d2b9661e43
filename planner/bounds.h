/* Lower bounds that know the memory cap, by Lagrangian relaxation (Fisher 1981).
 *
 * A stage's peak is its sum of bytes plus its largest scratch. Fixing a *limit* on the scratch (one
 * of the sizes that occur) makes it additive: admit the strategies within the limit, count the
 * limit. Then for any multiplier u >= 0 per byte, and with the maxima over stages relaxed to means,
 *
 *     sum_layers min_s [cost + (weight_tau tau + weight_gamma gamma) / P + v bytes]
 *       + v (fixed_bytes + limit) - u cap,        v = weight_memory / P + u
 *
 * is at most what any feasible stage costs. A stage is bounded by its best multiplier at its worst
 * limit; a chain by the cheapest way of cutting it into stages (interval dynamic program). */
#ifndef TEMPER_PLANNER_BOUNDS_H
#define TEMPER_PLANNER_BOUNDS_H

#include "planner/problem.h"
#include <stdbool.h>

enum { MULTIPLIERS_MAX = 9 };

/* The strategies of one class worth trying on one stage at one limit: no other is at least as good
 * in every respect. */
struct admitted {
    size_t *strategies; /* [count], borrowed from the stage */
    size_t count;
};

/* One stage at one scratch limit. */
struct stage_bounds {
    uint64_t limit_bytes;
    uint64_t slack_bytes;      /* for the layers' own bytes; PROBLEM_NO_CAP: unlimited */
    struct admitted *admitted; /* [class_count] */
    size_t *strategies;        /* what `admitted` points into */
    size_t multiplier_count;
    double multipliers[MULTIPLIERS_MAX]; /* the first is the best for the whole chain */
    double constants[MULTIPLIERS_MAX];   /* v (fixed_bytes + limit) - u cap */
    double *class_costs;   /* [multiplier_count][class_count]; INFINITY: nothing admitted */
    uint64_t *class_bytes; /* [class_count]: the least of any admitted strategy */
    /* [multiplier_count][layer_count + 1]: of layers l.. on this stage and those after it. */
    double *rest;
    uint64_t *rest_bytes; /* [layer_count + 1]: that this stage must still take in */
};

/* How far each stage stands for the maxima over all; all 1 / stages unless better ones are known
 * (the duals of the master's relaxation). */
struct stage_shares {
    double tau, gamma, memory;
};

struct bounds {
    const struct problem *problem;
    struct stage_shares *shares;     /* [stages] */
    struct stage_bounds *stages;     /* [stages][limit_count]; those that cannot be used have
                                        multiplier_count 0 */
    size_t limit_count, stage_count; /* stage_count: stages * limit_count */
    double *prefix; /* [stages + 1][layer_count + 1]: layers before l on the stages before p */
    double *suffix; /* [stages + 1][layer_count + 1]: layers from l on the stages from p */
};

/* `shares` [stages] are copied; NULL: even ones. */
enum status bounds_init(struct bounds *out, const struct problem *problem,
                        const struct stage_shares *shares, struct error *err);
void bounds_free(struct bounds *bounds);
/* No solution is below this; INFINITY when memory shows that there is none. */
double bounds_total(const struct bounds *bounds);

/* Cost of a partial stage under its shares and one multiplier, without the stage's constant. */
struct partial {
    double cost, tau, gamma;
    uint64_t bytes;
};
double bounds_relaxed(const struct bounds *bounds, size_t stage, double multiplier,
                      const struct partial *partial);

#endif
