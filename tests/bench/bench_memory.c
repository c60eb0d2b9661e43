/* What each rank holds of a model's parameters, gradients and optimizer state under ZeRO 0 to 3,
 * beside the formula of Rajbhandari et al. 2020: laid out, and resident after two steps.
 *
 *     mpirun -np 4 build/release/tests/bench/bench_memory [MODEL [PRECISION [SEQ_LENGTH]]]
 *
 * Ranks are data parallel. The formula counts bytes a parameter: fp32 16, 8 + 8/d, 4 + 12/d, 16/d;
 * mixed with 16 bit 18, 6 + 12/d, 2 + 16/d, 18/d. */
#include "split_plan.h"

#include "base/host.h"
#include "executor/comm/comm.h"
#include "executor/trainer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (1024.0 * 1024.0)

static double formula_bytes(bool mixed, int zero_stage, double ranks)
{
    const double fp32[] = {16, 8 + 8 / ranks, 4 + 12 / ranks, 16 / ranks};
    const double half[] = {18, 6 + 12 / ranks, 2 + 16 / ranks, 18 / ranks};
    return mixed ? half[zero_stage] : fp32[zero_stage];
}

static double parameter_count(const struct model *model)
{
    double count = 0;
    for (size_t i = 0; i < model_layer_count(model); i++)
        count += (double)layer_parameter_count(model, model_layer(model, i).kind);
    return count;
}

/* At the fullest rank. */
struct held {
    int64_t state_bytes, activation_bytes, scratch_bytes, resident_bytes;
};

static enum status train(struct trainer *trainer, struct comm *world, int64_t before_bytes,
                         struct held *out, struct error *err)
{
    struct step_result result = {0};
    for (int i = 0; i < 2; i++)
        TRY(trainer_step(trainer, &result, err));
    *out = (struct held){
        .state_bytes = (int64_t)(trainer_term_bytes(trainer, MEMORY_PARAMETERS) +
                                 trainer_term_bytes(trainer, MEMORY_GRADIENTS) +
                                 trainer_term_bytes(trainer, MEMORY_OPTIMIZER)),
        .activation_bytes = (int64_t)trainer_term_bytes(trainer, MEMORY_ACTIVATIONS),
        .scratch_bytes = (int64_t)trainer_term_bytes(trainer, MEMORY_SCRATCH),
        .resident_bytes = (int64_t)host_process_rss_bytes() - before_bytes,
    };
    return comm_all_reduce_max_i64(world, &out->state_bytes, 4, err);
}

static enum status measure(struct comm *world, const struct plan *plan, const char *data_path,
                           struct held *out, struct error *err)
{
    struct split_training training;
    int64_t before_bytes = (int64_t)host_process_rss_bytes();
    enum status status = split_training_open(&training, plan, world, data_path, err);
    if (status == STATUS_OK)
        status = train(training.trainer, world, before_bytes, out, err);
    split_training_close(&training);
    return status;
}

static enum status run(struct comm *world, int argc, char **argv, struct error *err)
{
    struct model model;
    struct model_overrides overrides = {.seq_length = argc > 3 ? atoll(argv[3]) : 64};
    enum precision precision = PRECISION_FP32;
    const char *name = argc > 1 ? argv[1] : "gpt2";
    int ranks = comm_size(world);
    TRY(model_load(&model, name, &overrides, err));
    if (argc > 2 && !precision_parse(argv[2], &precision))
        return error_set(err, STATUS_USAGE, "'%s' is no precision: fp32, bf16 or fp16", argv[2]);
    double count = parameter_count(&model);
    if (comm_rank(world) == 0) {
        printf("%s, %.1f million parameters, %s, dp=%d, %d sequence of %lld; MiB at the fullest "
               "rank\n",
               model.name, count * 1e-6, precision_name(precision), ranks, 1,
               (long long)model.seq_length);
        printf("%-6s %10s %10s %7s %12s %10s %10s %9s\n", "ZeRO", "formula", "state", "ratio",
               "activations", "scratch", "laid out", "resident");
    }
    for (int zero_stage = 0; zero_stage <= 3; zero_stage++) {
        const struct split split = {ranks, 1, 1, false, zero_stage, 1, 1, 1, precision};
        struct plan plan;
        struct held held = {0};
        TRY(split_plan(&plan, &model, &split, err));
        enum status status = measure(world, &plan, argv[0], &held, err);
        plan_clear(&plan);
        TRY(status);
        double formula = formula_bytes(precision != PRECISION_FP32, zero_stage, ranks) * count;
        int64_t laid_out = held.state_bytes + held.activation_bytes + held.scratch_bytes;
        if (comm_rank(world) == 0)
            printf("%-6d %10.1f %10.1f %7.3f %12.1f %10.1f %10.1f %9.1f\n", zero_stage,
                   formula / MIB, (double)held.state_bytes / MIB,
                   (double)held.state_bytes / formula, (double)held.activation_bytes / MIB,
                   (double)held.scratch_bytes / MIB, (double)laid_out / MIB,
                   (double)held.resident_bytes / MIB);
    }
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    struct comm *world = NULL;
    struct error err = {0};
    enum status status = comm_open(&world, &err);
    if (status == STATUS_OK)
        status = run(world, argc, argv, &err);
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_memory: %s\n", err.message);
        if (world != NULL)
            comm_abort(world, 1);
        return 1;
    }
    comm_close(world);
    return 0;
}
