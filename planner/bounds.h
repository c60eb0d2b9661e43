/* Lower bounds that know the memory cap and the budget, by Lagrangian relaxation (Fisher 1981).
 *
 * A stage's peak is its sum of bytes plus its largest scratch. Fixing a *level* of the scratch (one
 * of the sizes that occur, or a few neighbouring ones) makes it additive: admit the strategies
 * within the level, count its lower end. Then for any multiplier u >= 0 per byte and l >= 0 per
 * unit of spending, and with the maxima over stages relaxed to means (or any other shares of the
 * stages),
 *
 *     sum_layers min_s [cost + l spend + (w_tau tau + w_gamma gamma) / P + v bytes]
 *       + v (fixed_bytes + level) - u cap,        v = weight_memory / P + u,
 *       w_tau = weight_tau + l spend_tau,  w_gamma = weight_gamma + l spend_gamma
 *
 * is at most what any feasible stage costs with its spending at the price l. A stage is bounded by
 * its best multiplier at its worst level; a chain by the cheapest way of cutting it into stages
 * (interval dynamic program), less l spend_cap. */
#ifndef TEMPER_PLANNER_BOUNDS_H
#define TEMPER_PLANNER_BOUNDS_H

#include "planner/admit.h"
#include <stdbool.h>

enum { MULTIPLIERS_MAX = 9 };

/* Whose tau the relaxation counts. */
enum bound_view {
    VIEW_MEAN, /* every stage's by its share */
    VIEW_PEAK, /* all of the stage at hand, nothing of the others: bounds how long a stage can be */
    BOUND_VIEWS,
    VIEW_OTHERS = BOUND_VIEWS, /* nothing: a stage beside the one at hand in VIEW_PEAK */
    STAGE_VIEWS,
};

/* One stage at one level of scratch. */
struct stage_bounds {
    struct scratch_level level;
    uint64_t slack_bytes;      /* for the layers' own bytes; PROBLEM_NO_CAP: unlimited */
    struct admitted *admitted; /* [class_count] */
    size_t *strategies;        /* what `admitted` points into */
    size_t multiplier_count;
    double multipliers[MULTIPLIERS_MAX]; /* the first is the best for the whole chain */
    double constants[MULTIPLIERS_MAX];   /* v (fixed_bytes + level) - u cap */
    double *class_costs;   /* [STAGE_VIEWS][MULTIPLIERS_MAX][class_count]; INFINITY: nothing
                              admitted */
    double *class_sends;   /* [class_count]: the least of ending the stage with it */
    uint64_t *class_bytes; /* [class_count]: the least of any admitted strategy */
    /* [BOUND_VIEWS][MULTIPLIERS_MAX][layer_count + 1]: layers l.. on this stage and those after. */
    double *rest;
    uint64_t *rest_bytes; /* [layer_count + 1]: that this stage must still take in */
};

/* How far each stage stands for the maxima over all; all 1 / stages unless better ones are known.
 */
struct stage_shares {
    double tau, gamma, memory;
};

/* What the relaxation prices. */
struct relaxation {
    struct stage_shares *shares; /* [stages] */
    double spend_price;
};

struct bounds {
    const struct problem *problem;
    struct relaxation relaxation;    /* its shares owned */
    struct stage_bounds *stages;     /* [stages][level_count]; those that cannot be used have
                                        multiplier_count 0 */
    size_t level_count, stage_count; /* stage_count: stages * level_count */
    double threshold;
    size_t view_count; /* 1: VIEW_PEAK shows nothing more */
    /* By view, [stages + 1][layer_count + 1]: layers before l on the stages before p, and
     * fixed_cost less the budget's price; layers from l on the stages from p. */
    double *prefix[BOUND_VIEWS], *suffix[BOUND_VIEWS];
    double *spend_before; /* [layer_count + 1]: the least that the layers before l spend */
};

/* `relaxation` is copied; NULL: even shares and a price of spending that its bound on the chain is
 * about best for. Only solutions below `threshold` are bounded (INFINITY: all): stages that are in
 * none of them by VIEW_PEAK are left out in VIEW_MEAN. */
enum status bounds_init(struct bounds *out, const struct problem *problem,
                        const struct relaxation *relaxation, double threshold, struct error *err);
void bounds_free(struct bounds *bounds);
/* No solution is below the least of this and the threshold; INFINITY when memory shows that there
 * is none below the threshold. */
double bounds_total(const struct bounds *bounds);
/* Of the stages before and after this one at layers first .. end - 1. */
double bounds_outside(const struct bounds *bounds, int view, size_t stage, size_t first,
                      size_t end);
/* [layer_count + 1]: a row of `rest`. */
double *bounds_rest(const struct bounds *bounds, const struct stage_bounds *at, int view,
                    size_t multiplier);
/* No solution with this partial stage at layers first .. end - 1 is within the budget. */
bool bounds_overspends(const struct bounds *bounds, size_t first, size_t end, double spend);

/* Cost of a partial stage under its shares and one multiplier, without the stage's constant. */
struct partial {
    double cost, tau, gamma, spend;
    uint64_t bytes;
};
double bounds_relaxed(const struct bounds *bounds, size_t stage, int view, double multiplier,
                      const struct partial *partial);

#endif
