/* Two ranks of one thread against one rank of two threads, on the same machine in one run: tokens/s
 * of training steps with data, tensor and pipeline parallelism of degree 2.
 *
 *     mpirun -np 2 build/release/tests/bench/bench_scaling [MODEL [SEQ_LENGTH [ROUNDS]]]
 *
 * Each round runs every configuration once, so that slow phases of the machine meet all alike; the
 * fastest step of all rounds counts. While one rank trains alone the other one sleeps. */
#include "split_plan.h"

#include "base/clock.h"
#include "executor/comm/comm.h"
#include "executor/trainer.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MICRO_BATCH = 4, MICRO_BATCHES = 8, STEPS = 3, DONE_TAG = 9 };

static const struct configuration {
    const char *name;
    struct split split;
} configurations[] = {
    {"1 rank x 2 threads", {1, 1, 1, false, 0, 2, MICRO_BATCH, MICRO_BATCHES, PRECISION_FP32}},
    {"dp=2, 1 thread", {2, 1, 1, false, 0, 1, MICRO_BATCH, MICRO_BATCHES / 2, PRECISION_FP32}},
    {"tp=2, 1 thread", {1, 2, 1, false, 0, 1, MICRO_BATCH, MICRO_BATCHES, PRECISION_FP32}},
    {"tp=2 sp, 1 thread", {1, 2, 1, true, 0, 1, MICRO_BATCH, MICRO_BATCHES, PRECISION_FP32}},
    {"pp=2, 1 thread", {1, 1, 2, false, 0, 1, MICRO_BATCH, MICRO_BATCHES, PRECISION_FP32}},
};
enum { CONFIGURATIONS = sizeof configurations / sizeof configurations[0] };

struct bench {
    struct comm *world;
    struct model model;
    char data_path[64];
    double fastest_s[CONFIGURATIONS];
};

static enum status write_data(struct bench *bench, struct error *err)
{
    snprintf(bench->data_path, sizeof bench->data_path, "/tmp/temper-bench-XXXXXX");
    int file = comm_rank(bench->world) == 0 ? mkstemp(bench->data_path) : -1;
    for (int i = 0; file >= 0 && i < 40000; i++)
        if (write(file, &"the plan of a model is always good. "[i % 36], 1) != 1)
            return error_set(err, STATUS_IO, "cannot write %s", bench->data_path);
    if (file >= 0)
        close(file);
    return comm_broadcast(bench->world, bench->data_path, sizeof bench->data_path, 0, err);
}

static enum status train(struct bench *bench, struct comm *comm, const struct plan *plan,
                         double *fastest_s, struct error *err)
{
    struct split_training training;
    enum status status = split_training_open(&training, plan, comm, bench->data_path, err);
    for (int i = 0; status == STATUS_OK && i < STEPS; i++) {
        struct step_result result = {0};
        status = trainer_step(training.trainer, &result, err);
        if (i > 0) /* the first touches memory and compiles kernels */
            *fastest_s = fmin(*fastest_s, result.seconds);
    }
    split_training_close(&training);
    return status;
}

/* The rank that has nothing to do must not spin for the other's end. */
static enum status wait_asleep(struct comm *world, struct error *err)
{
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    struct comm_request *request = NULL;
    char done = 0;
    TRY(comm_receive_start(world, &done, 1, 0, DONE_TAG, &request, err));
    while (!comm_test(world, request))
        nanosleep(&pause, NULL);
    return comm_wait(world, request, err);
}

static enum status run_configuration(struct bench *bench, int index, struct error *err)
{
    const struct configuration *configuration = &configurations[index];
    bool alone = configuration->split.threads == 2;
    struct plan plan;
    if (alone && comm_rank(bench->world) > 0)
        return wait_asleep(bench->world, err);
    TRY(split_plan(&plan, &bench->model, &configuration->split, err));
    enum status status = STATUS_OK;
    if (alone) {
        struct comm *self = NULL;
        struct comm_request *request = NULL;
        char done = 1;
        TRY(comm_open_alone(&self, err));
        status = train(bench, self, &plan, &bench->fastest_s[index], err);
        comm_close(self);
        TRY(comm_send_start(bench->world, &done, 1, 1, DONE_TAG, &request, err));
        TRY(comm_wait(bench->world, request, err));
    } else {
        status = train(bench, bench->world, &plan, &bench->fastest_s[index], err);
    }
    plan_clear(&plan);
    return status;
}

static void print(const struct bench *bench)
{
    double tokens = (double)(MICRO_BATCH * MICRO_BATCHES * bench->model.seq_length);
    printf("%s, sequences of %lld, %d micro-batches of %d, fp32; fastest step of each\n",
           bench->model.name, (long long)bench->model.seq_length, MICRO_BATCHES, MICRO_BATCH);
    printf("%-20s %10s %12s %10s\n", "configuration", "step s", "tokens/s", "efficiency");
    for (int i = 0; i < CONFIGURATIONS; i++)
        printf("%-20s %10.3f %12.1f %10.3f\n", configurations[i].name, bench->fastest_s[i],
               tokens / bench->fastest_s[i], bench->fastest_s[0] / bench->fastest_s[i]);
}

static enum status run(struct bench *bench, int argc, char **argv, struct error *err)
{
    struct model_overrides overrides = {.seq_length = argc > 2 ? atoll(argv[2]) : 64};
    int rounds = argc > 3 ? atoi(argv[3]) : 3;
    if (comm_size(bench->world) != 2)
        return error_set(err, STATUS_USAGE, "start two ranks: mpirun -np 2 bench_scaling");
    TRY(model_load(&bench->model, argc > 1 ? argv[1] : "gpt2", &overrides, err));
    TRY(write_data(bench, err));
    for (int i = 0; i < CONFIGURATIONS; i++)
        bench->fastest_s[i] = INFINITY;
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < CONFIGURATIONS; i++)
            TRY(run_configuration(bench, i, err));
    if (comm_rank(bench->world) == 0) {
        print(bench);
        unlink(bench->data_path);
    }
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    struct error err = {0};
    enum status status = comm_open(&bench.world, &err);
    if (status == STATUS_OK)
        status = run(&bench, argc, argv, &err);
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_scaling: %s\n", err.message);
        if (bench.world != NULL)
            comm_abort(bench.world, 1);
        return 1;
    }
    comm_close(bench.world);
    return 0;
}
