/* The master problem of planner/master.h without branching on columns.
 *
 * Once ceilings for the stages' tau, gamma and memory are given, the maxima no longer couple the
 * stages: the columns within the ceilings that tile the chain at least cost are a shortest path
 * from layer 0 to the last; with a budget, the cheapest of the paths within it (every way that no
 * other is below in both cost and spending is followed). So the search is over boxes of ceilings,
 * low .. high in each of the three. In a box no choice is below
 *
 *     weight . low + (shortest path within high),
 *
 * and the path itself is a choice, of the value weight . (its own maxima) + its cost. The most
 * promising box is halved where its path's maximum is furthest above its low end. It ends when no
 * box is below the best choice. */
#ifndef TEMPER_PLANNER_TILING_H
#define TEMPER_PLANNER_TILING_H

#include "planner/columns.h"

struct tiling {
    bool found;     /* a choice below the threshold */
    size_t *chosen; /* [stages], the caller's: index into columns->items */
    double value;   /* of the choice, from the columns' figures */
    bool proven;    /* no choice is below the value, or the threshold if none was found */
    double bound;   /* no choice is below the least of this, the value and the threshold */
    /* The caller's: how far each stage stands for the maxima and what spending is worth, improved
     * from what they are by multiplicative weights (Arora, Hazan and Kale 2012); NULL: not wanted.
     */
    struct relaxation *relaxation;
};

struct tiling_options {
    double threshold;   /* only choices below this are wanted */
    double gap;         /* one that is within this share of the best will do */
    double spend_price; /* what spending is worth: any number >= 0, the better the faster */
    const struct search_limits *limits;
};

enum status tiling_solve(const struct problem *problem, const struct columns *columns,
                         const struct tiling_options *options, struct tiling *out,
                         struct error *err);

#endif
