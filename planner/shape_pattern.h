/* A family of plans, by what their ranks do: degrees, schedule, threads and micro-batch. What
 * single layers do (stage boundaries, tensor-parallel degree, ZeRO, recompute, precision) is no
 * part of it.
 *
 * Searches that answer "what else?" leave such families out. */
#ifndef TEMPER_PLANNER_SHAPE_PATTERN_H
#define TEMPER_PLANNER_SHAPE_PATTERN_H

#include "ir/plan.h"
#include <stdbool.h>

/* 0 (and has_schedule false) stands for any. */
struct shape_pattern {
    int ranks, threads;
    int pipeline, data_parallel, tensor_parallel; /* T: the largest of any layer */
    int virtual_stages;
    int64_t micro_batch; /* sequences */
    bool has_schedule;
    enum schedule schedule;
};

/* The smallest family that has the plan. */
struct shape_pattern shape_pattern_of(const struct plan *plan);

/* `shape` leaves nothing open. */
bool shape_pattern_has(const struct shape_pattern *pattern, const struct shape_pattern *shape);

#endif
