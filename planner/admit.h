/* Which strategies are worth trying on a stage, by levels of its scratch. */
#ifndef TEMPER_PLANNER_ADMIT_H
#define TEMPER_PLANNER_ADMIT_H

#include "planner/problem.h"

enum { SCRATCH_LEVELS_MAX = 16 };

/* Sizes of scratch, both included. */
struct scratch_level {
    uint64_t low_bytes, high_bytes;
};

/* The strategies of one class worth trying on one stage at one level: no other is at least as good
 * in every respect. */
struct admitted {
    size_t *strategies; /* [count], borrowed from the stage */
    size_t count;
};

/* The strategies whose scratch is within the level but for those that another can replace in any
 * solution of the level without loss. `out->strategies` has room for all of the class. */
void admit_class(const struct problem *problem, size_t stage, const struct scratch_level *level,
                 size_t class, struct admitted *out);

/* `levels` [SCRATCH_LEVELS_MAX], ascending, hold every size of the problem's admitted strategies:
 * one size each, or neighbouring sizes together where there are too many. `class_layers`
 * [class_count]: how many layers each class has. */
enum status scratch_levels(const struct problem *problem, const size_t *class_layers,
                           struct scratch_level *levels, size_t *level_count, struct error *err);

#endif
