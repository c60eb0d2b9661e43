/* Plans for benchmarks, every layer split alike and stages balanced by FLOPs, and their training.
 */
#ifndef TEMPER_TESTS_BENCH_SPLIT_PLAN_H
#define TEMPER_TESTS_BENCH_SPLIT_PLAN_H

#include "base/error.h"
#include "executor/trainer.h"
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

/* Everything that a training owns; release with split_training_close, also after a failure. */
struct split_training {
    struct device *device;
    struct dataset *dataset;
    struct trainer *trainer;
};

/* Any file is data: its bytes are tokens. */
enum status split_training_open(struct split_training *out, const struct plan *plan,
                                struct comm *comm, const char *data_path, struct error *err);
void split_training_close(struct split_training *training);

#endif
