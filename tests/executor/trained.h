/* Small trainings for the executor's tests: a plan in code, text in a file, a trainer over a group.
 */
#ifndef TEMPER_TESTS_EXECUTOR_TRAINED_H
#define TEMPER_TESTS_EXECUTOR_TRAINED_H

#include "executor/comm/comm.h"
#include "executor/trainer.h"
#include "ir/plan.h"
#include <stdbool.h>

/* What is varied between trainings that must agree. */
struct trained_case {
    const char *model; /* "gpt2" or "llama" */
    int data_parallel;
    int threads;
    int64_t global_batch, micro_batch;
    struct layer_precision_mode mode; /* where a layer admits it */
    double learning_rate;
    double clip_norm;
};

/* A training under way; every pointer is owned. */
struct trained {
    struct plan plan;
    struct device *device;
    struct dataset *dataset;
    struct trainer *trainer;
    char data_path[64];
};

/* Fails the test on any error. `comm` is borrowed and has data_parallel ranks. */
void trained_open(struct trained *out, const struct trained_case *what, struct comm *comm);
void trained_close(struct trained *trained);
/* `count` steps; losses[count] may be NULL. */
void trained_steps(struct trained *trained, int count, double *losses);
/* The weights as a checkpoint would hold them, [*count], freed by the caller. */
float *trained_weights(struct trained *trained, const char *folder, uint64_t *count);
/* sqrt(sum (a-b)^2) / sqrt(sum b^2). */
double relative_distance(const float *a, const float *b, uint64_t count);

#endif
