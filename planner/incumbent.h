/* The best plan of a search so far, and what plans are compared by. */
#ifndef TEMPER_PLANNER_INCUMBENT_H
#define TEMPER_PLANNER_INCUMBENT_H

#include "planner/part.h"
#include "planner/planner.h"

/* Objectives closer than this are the same: the search and the prediction add in different orders.
 */
#define SAME_SHARE 1e-11

/* Zero-initialise; release the plan with plan_clear. */
struct incumbent {
    bool found;
    struct plan plan; /* with its prediction, owned */
    double value;
    double bound; /* no plan of the space is below */
};

/* What the search minimises. */
double rates_value(const struct objective_rates *rates, const struct prediction *prediction);
bool prediction_fits(const struct planner_request *request, const struct prediction *prediction);

/* Take the plan, which is predicted, if it is valid, fits and is better; it is released or moved
 * either way. */
void incumbent_offer(struct incumbent *best, const struct planner_request *request,
                     const struct objective_rates *rates, struct plan *plan);

/* Recompute that costs no time, off the critical stage of a pipeline say, may stand where nothing
 * needs it. Afterwards no single layer can recompute less in a plan that fits and is as good. */
enum status incumbent_recompute_least(struct incumbent *best, const struct planner_request *request,
                                      const struct objective_rates *rates, struct error *err);

#endif
