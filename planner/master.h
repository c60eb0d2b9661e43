/* The master problem: choose one column a stage so that they tile the chain at least cost. The only
 * part of temper that knows GLPK.
 *
 *     min  sum cost_q x_q + weight_tau tau + weight_gamma gamma + weight_memory M
 *     sum_{q on p} x_q = 1                                        each stage p
 *     sum_{q on p ending at l} x_q = sum_{q on p+1 starting at l} x_q    each p < P - 1, l
 *     sum_{q on p} tau_q x_q <= tau, likewise gamma and M         each stage p, where they weigh
 *     sum_{q with the trait} x_q >= 1                             each trait that is needed
 *     sum spend_q x_q + spend_tau tau + spend_gamma gamma <= spend_cap      where there is a budget
 *     x binary
 *
 * (set partitioning after column generation; the cap is in the columns already). With one stage the
 * maxima are part of the cost and only the first row and the budget's are left. */
#ifndef TEMPER_PLANNER_MASTER_H
#define TEMPER_PLANNER_MASTER_H

#include "planner/columns.h"

struct master_result {
    bool found;
    size_t *chosen; /* [stages], the caller's: index into columns->items */
    bool proven;    /* no choice is better, or (not found) there is none */
    double bound; /* of the relaxation, fixed_cost included: no choice of these columns is below */
};

/* Only choices below `threshold` are wanted (INFINITY: any): columns whose reduced cost shows that
 * they are in none are left out of the tree. `gap_target`: a choice that is proven within this
 * share of the best counts as proven. GLPK works in floating point, to about 1e-7 of the spread of
 * the columns' costs; what it chose is then improved column by column with exact comparisons, which
 * with one stage is the exact optimum. A choice that is above the budget by less than GLPK can see
 * is excluded and the next one taken. A GLPK failure is STATUS_FAILED. */
enum status master_solve(const struct problem *problem, const struct columns *columns,
                         double threshold, double gap_target, const struct search_limits *limits,
                         struct master_result *result, struct error *err);

#endif
