/* Column generation: every complete strategy assignment of an interval of layers on a stage that
 * could be part of an optimum, by label-setting dynamic programming over the chain.
 *
 * A label is a partial stage. It is dropped when another partial stage of the same layers can
 * replace it in any solution without loss (exchange dominance), or when its bound shows that no
 * solution through it is below the upper bound. Labels depend on the sequence of classes, not on
 * the place in the chain: intervals with the same sequence share them, in a tree whose nodes are
 * sequences. */
#ifndef TEMPER_PLANNER_COLUMNS_H
#define TEMPER_PLANNER_COLUMNS_H

#include "planner/bounds.h"
#include "planner/limits.h"
#include <stdint.h>

struct label {
    struct partial sums;    /* with one stage tau and gamma are in cost and spend */
    uint64_t scratch_bytes; /* beyond the level's lower end, of all its layers */
    uint32_t parent;        /* index in the pool */
    uint32_t strategy;      /* of its last layer */
    unsigned traits;        /* of all its layers */
};

struct column {
    size_t stage, first, end; /* layers first .. end - 1 */
    double cost, tau, gamma;  /* cost with send_cost */
    double spend;             /* with send_spend, without the problem's spend_tau and spend_gamma */
    uint64_t peak_bytes; /* with fixed_bytes and scratch, this at least its level's lower end */
    uint32_t label;
    unsigned traits; /* of all its layers */
};

/* Zero-initialise; release with columns_free. */
struct columns {
    struct label *labels; /* [label_count], owned: the pool */
    size_t label_count, label_capacity;
    struct column *items; /* [count], owned */
    size_t count, capacity;
    bool incomplete; /* stopped early, or out of labels: columns are missing */
};

struct column_options {
    double threshold;   /* only solutions below this matter; INFINITY: all */
    size_t buckets;     /* labels kept a sequence, by memory; 0: all, which is exact */
    size_t labels_most; /* then it is incomplete; 0: no limit but memory's */
    const struct search_limits *limits;
};

/* Append the columns of all stages, intervals and levels of scratch. */
enum status columns_generate(const struct bounds *bounds, const struct column_options *options,
                             struct columns *out, struct error *err);
/* Write the column's strategies and stage at its layers. */
void column_assign(const struct columns *columns, const struct column *column,
                   struct assignment *out);
void columns_free(struct columns *columns);

#endif
