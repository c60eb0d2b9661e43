/* When a search must end before it is done. */
#ifndef TEMPER_PLANNER_LIMITS_H
#define TEMPER_PLANNER_LIMITS_H

#include "base/clock.h"
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct search_limits {
    double deadline_s;      /* of clock_s(); INFINITY: none */
    const atomic_int *stop; /* non-zero: now; may be NULL */
};

static inline bool limits_reached(const struct search_limits *limits)
{
    if (limits->stop && *limits->stop)
        return true;
    return limits->deadline_s < INFINITY && clock_s() >= limits->deadline_s;
}

#endif
