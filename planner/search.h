/* Solves a problem to a proven optimum, or as far as the limits allow with an honest bound.
 *
 * Rounds of columns (columns.h) and the choice among them (tiling.h): thinned ones that find good
 * solutions and prices for the bounds, then unthinned ones that prove. Where the labels below the
 * best solution are too many, a lower value is refuted first. */
#ifndef TEMPER_PLANNER_SEARCH_H
#define TEMPER_PLANNER_SEARCH_H

#include "planner/limits.h"
#include "planner/problem.h"
#include <stdbool.h>
#include <stdint.h>

struct search_options {
    double upper_bound; /* only solutions below this are wanted; INFINITY: any */
    double gap_target;  /* a solution within this share of the best will do; 0: the best */
    /* No round keeps more labels than this, and the proof ends, closed or not, after twice as many;
     * 0: no such limit. */
    size_t labels_most;
    struct search_limits limits;
};

struct solution {
    bool found;                   /* something below the upper bound */
    struct assignment assignment; /* owned; empty unless found */
    double value;                 /* problem_evaluate of it */
    /* No solution is below the least of this, the value and the upper bound. INFINITY without a
     * solution and an upper bound: the problem is infeasible. */
    double bound;
    uint64_t labels, columns; /* generated */
};

enum status problem_solve(const struct problem *problem, const struct search_options *options,
                          struct solution *out, struct error *err);
void solution_free(struct solution *solution);

#endif
