/* Plans for benchmarks: every layer split alike, stages balanced by FLOPs. */
#ifndef TEMPER_TESTS_BENCH_SPLIT_PLAN_H
#define TEMPER_TESTS_BENCH_SPLIT_PLAN_H

#include "base/error.h"
#include "ir/plan.h"

struct split {
    int data_parallel, tensor_parallel, pipeline;
    bool sequence_parallel;
    int zero_stage;
    int threads;
    int64_t micro_batch, micro_batches;
    enum precision precision;
};

/* Release with plan_clear. */
enum status split_plan(struct plan *out, const struct model *model, const struct split *split,
                       struct error *err);

#endif
