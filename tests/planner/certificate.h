/* A second way to the same answer, which shares no code with the search but the problem's
 * structures: one label-setting dynamic program over the whole chain, layer by layer, with the
 * plainest dominance there is (no worse in any figure that the formula of planner/problem.h reads).
 * It has neither multipliers nor columns nor GLPK.
 *
 * A label is the first layers with their stages and strategies. It is left out only when another
 * label of the same layers, stage and last group is no worse in everything; when it already
 * breaks a cap or the budget; or when what it costs and the least that its layers can add,
 * each by itself, reaches the value that is to be refuted. */
#ifndef TEMPER_TESTS_PLANNER_CERTIFICATE_H
#define TEMPER_TESTS_PLANNER_CERTIFICATE_H

#include "planner/problem.h"

enum verdict {
    VERDICT_NONE_BELOW, /* proven: no assignment is below */
    VERDICT_FOUND,      /* one is, of `value` */
    VERDICT_TOO_LARGE,  /* more than labels_most at one layer: nothing is known */
};

struct certificate {
    enum verdict verdict;
    double value;       /* VERDICT_FOUND: the least of all */
    size_t labels_peak; /* kept at one layer at most */
};

/* Is any feasible assignment below `value`? */
struct certificate certificate_check(const struct problem *problem, double value,
                                     size_t labels_most);

#endif
