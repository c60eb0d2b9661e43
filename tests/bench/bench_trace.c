/* What recording costs: the same training with and without a recorder, step by step in turn.
 *
 * usage: bench_trace [STEPS]   (default 400)
 *
 * The model is the small one of the quick start, whose steps are short: the worst case. Prints the
 * median and mean step of both and their ratio; the median ratio is the figure, the mean shows the
 * noise. */
#include "base/clock.h"
#include "base/stats.h"
#include "executor/trainer.h"
#include "traces/recorder.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 1 << 16, MICRO_BATCH = 12, THREADS = 2 };

#define CHECK(call)                                                                                \
    do {                                                                                           \
        struct error err = {0};                                                                    \
        if ((call) != STATUS_OK) {                                                                 \
            fprintf(stderr, "bench_trace: %s\n", err.message);                                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void write_text(const char *path)
{
    FILE *file = fopen(path, "w");
    for (int i = 0; file != NULL && i < TEXT_BYTES; i++)
        fputc('a' + i % 23 * (i % 7) % 23, file);
    if (file == NULL || fclose(file) != 0) {
        fprintf(stderr, "bench_trace: cannot write %s\n", path);
        exit(1);
    }
}

static void build_plan(struct plan *plan)
{
    struct model_overrides sizes = {
        .layers = 4, .hidden = 128, .heads = 4, .vocab_size = 256, .seq_length = 64};
    *plan = (struct plan){.ranks = 1,
                          .data_parallel = 1,
                          .pipeline = 1,
                          .threads = THREADS,
                          .global_batch = MICRO_BATCH,
                          .micro_batch = MICRO_BATCH,
                          .micro_batches = 1};
    CHECK(model_load(&plan->model, "gpt2", &sizes, &err));
    plan->layer_count = model_layer_count(&plan->model);
    plan->layers = calloc(plan->layer_count, sizeof *plan->layers);
    for (size_t i = 0; plan->layers != NULL && i < plan->layer_count; i++)
        plan->layers[i].tensor_parallel = 1;
}

static double timed_step(struct trainer *trainer, struct recorder *recorder)
{
    struct step_result result;
    double start_s = clock_s();
    CHECK(trainer_step(trainer, &result, &err));
    if (recorder != NULL)
        recorder_step_end(recorder, result.step, result.seconds);
    return clock_s() - start_s;
}

static void measure(struct trainer *plain, struct trainer *traced, struct recorder *recorder,
                    size_t steps)
{
    double *seconds[2] = {calloc(steps, sizeof(double)), calloc(steps, sizeof(double))};
    struct stats stats[2] = {{0}, {0}};
    if (seconds[0] == NULL || seconds[1] == NULL)
        exit(1);
    for (size_t i = 0; i < steps; i++) {
        /* The order changes from step to step, so that neither always runs second. */
        for (size_t k = 0; k < 2; k++) {
            size_t which = (i + k) % 2;
            seconds[which][i] = which == 0 ? timed_step(plain, NULL) : timed_step(traced, recorder);
            stats_add(&stats[which], seconds[which][i]);
        }
    }
    double plain_s = stats_median(seconds[0], steps), traced_s = stats_median(seconds[1], steps);
    printf("plain   median %.3f ms  mean %.3f ms\n", 1e3 * plain_s, 1e3 * stats[0].mean);
    printf("traced  median %.3f ms  mean %.3f ms\n", 1e3 * traced_s, 1e3 * stats[1].mean);
    printf("tracing costs %.2f %% of a step (median; target below 1 %%), %zu steps each\n",
           100 * (traced_s / plain_s - 1), steps);
    free(seconds[0]);
    free(seconds[1]);
}

int main(int argc, char **argv)
{
    size_t steps = argc > 1 ? strtoul(argv[1], NULL, 10) : 400;
    char path[] = "/tmp/temper-bench-trace-XXXXXX";
    struct plan plan;
    struct comm *comm = NULL;
    struct device *device = NULL;
    struct dataset *dataset = NULL;
    struct recorder *recorder = NULL;
    struct trainer *trainers[2] = {NULL, NULL};
    int file = mkstemp(path);
    if (file < 0 || steps == 0)
        return 1;
    close(file);
    write_text(path);
    build_plan(&plan);
    CHECK(comm_open(&comm, &err));
    CHECK(device_open(&device, THREADS, &err));
    struct dataset_options data = {
        .path = path, .vocab = plan.model.vocab, .seq_length = plan.model.seq_length, .seed = 1};
    CHECK(dataset_open(&dataset, &data, &err));
    struct recorder_options options = {.layer_count = plan.layer_count,
                                       .end_step = (int64_t)steps,
                                       .kept_steps = 8,
                                       .warmup_steps = 3,
                                       .events_per_step = 8 * plan.layer_count};
    CHECK(recorder_open(&recorder, &options, &err));
    for (size_t i = 0; i < 2; i++) {
        struct trainer_setup setup = {.plan = &plan,
                                      .comm = comm,
                                      .device = device,
                                      .dataset = dataset,
                                      .optimizer = {.learning_rate = 1e-3,
                                                    .decay_steps = 1,
                                                    .beta1 = 0.9,
                                                    .beta2 = 0.95,
                                                    .epsilon = 1e-8},
                                      .skip_limit = 1};
        CHECK(trainer_open(&trainers[i], &setup, &err));
    }
    trainer_record(trainers[1], recorder_sink(recorder));
    measure(trainers[0], trainers[1], recorder, steps);
    trainer_close(trainers[0]);
    trainer_close(trainers[1]);
    recorder_close(recorder);
    dataset_close(dataset);
    device_close(device);
    comm_close(comm);
    plan_clear(&plan);
    unlink(path);
    return 0;
}
