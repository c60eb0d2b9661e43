/* `temper run`: its options, and the parts that cmd_run.c is made of. */
#ifndef TEMPER_CLI_CMD_RUN_H
#define TEMPER_CLI_CMD_RUN_H

#include "base/error.h"
#include "cli/pulse.h"
#include "executor/comm/comm.h"
#include "executor/ops/device.h"
#include "executor/trainer.h"
#include "ir/plan.h"
#include <stdbool.h>
#include <stdint.h>

struct run_options {
    const char *plan_path;
    const char *data, *validation_data;
    const char *store;
    int64_t steps;
    int64_t seed;
    double learning_rate, min_learning_rate;
    int64_t warmup_steps;
    double beta1, beta2, epsilon, weight_decay, clip_norm;
    int64_t skip_limit;
    int64_t eval_interval, eval_windows;
    int64_t log_interval;
    const char *log;
    const char *save, *load, *initial_weights;
    int64_t save_interval, keep;
    int64_t max_restarts, timeout_s;
    int64_t trace_steps;
    bool no_trace, no_bind;
    bool json;
    int64_t restart; /* how often temper started these ranks before; not the user's to give */
};

/* What all ranks of a run hold. */
struct run_context {
    const struct run_options *options;
    const struct plan *plan;
    struct comm *comm;
    struct device *device;
    struct pulse *pulse;
    bool is_first; /* rank 0: the one that prints and writes */
};

/* Train to the end: steps, evaluations, checkpoints, records. Collective. */
enum status run_train(const struct run_context *run, struct dataset *dataset, struct error *err);

#endif
