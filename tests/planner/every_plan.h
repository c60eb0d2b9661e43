/* Every plan of a small space, one by one, through predict_plan: data parallelism, threads,
 * micro-batch, and recompute of each layer; all in fp32, no ZeRO, one stage, whole layers. */
#ifndef TEMPER_TESTS_PLANNER_EVERY_PLAN_H
#define TEMPER_TESTS_PLANNER_EVERY_PLAN_H

#include "fixture.h"
#include "planner/planner.h"

/* What leaves the search the same space. */
#define EVERY_PLAN_PINS "pp=1,tp=1,zero=0,precision=fp32"

enum { EVERY_PLAN_LAYERS = 6 };

struct listed_plan {
    double time_s, energy_j;
    double memory_bytes; /* at the 95th percentile */
    struct quantity memory;
    int ranks, threads;
    int64_t micro_batch;
    size_t recomputed[LAYER_KIND_COUNT][RECOMPUTE_COUNT]; /* layers */
    enum recompute recompute[EVERY_PLAN_LAYERS];          /* of each layer */
};

struct every_plan {
    struct listed_plan *items; /* [count], owned */
    size_t count, capacity;
};

/* A profile with energy for ranks x threads 1 x 1, 1 x 2 and 2 x 1, two blocks, global batch 8,
 * time alone in the objective. */
struct small_world {
    struct model model;
    struct profile *profile;
    struct planner_request request;
    struct every_plan all;
};
void open_small_world(struct small_world *world, uint64_t seed);
void close_small_world(struct small_world *world);

#endif
