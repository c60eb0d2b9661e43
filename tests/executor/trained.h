/* Small trainings for the executor's tests: a plan in code, text or tokens in a file, a trainer
 * over a group, and what it has learnt, tensor by tensor. */
#ifndef TEMPER_TESTS_EXECUTOR_TRAINED_H
#define TEMPER_TESTS_EXECUTOR_TRAINED_H

#include "executor/comm/comm.h"
#include "executor/trainer.h"
#include "ir/plan.h"
#include <stdbool.h>

/* What is varied between trainings that must agree. Degrees of 0 are 1. */
struct trained_case {
    const char *model; /* "gpt2" or "llama" */
    int data_parallel, tensor_parallel, pipeline;
    bool sequence_parallel;
    int zero_stage;
    int threads;
    int64_t global_batch, micro_batch;
    int64_t vocab, seq_length;        /* 0: 256 and 17 */
    struct layer_precision_mode mode; /* where a layer admits it */
    double learning_rate;
    double clip_norm;
};

/* A training under way; every pointer is owned but `data_path`, which may be shared. */
struct trained {
    struct plan plan;
    struct comm *comm; /* borrowed */
    struct device *device;
    struct dataset *dataset;
    struct trainer *trainer;
    char data_path[64];
    bool owns_data;
};

/* Fails the test on any error. `comm` is borrowed and has as many ranks as the case. */
void trained_open(struct trained *out, const struct trained_case *what, struct comm *comm);
void trained_close(struct trained *trained);
/* The same of any plan, which it takes over, on any data, which stays the caller's. */
void trained_open_plan(struct trained *out, const struct plan *plan, const char *data_path,
                       const struct optimizer_options *optimizer, struct comm *comm);
/* `count` steps; losses[count] may be NULL. */
void trained_steps(struct trained *trained, int count, double *losses);
/* A file of `count` tokens below `vocab` in llm.c's format, every one of which nearly decides the
 * next; fills `path`, which the caller unlinks. */
void write_tokens(char path[64], int64_t count, int64_t vocab);

/* ---- what was learnt ---- */

struct trained_tensor {
    char name[TENSOR_NAME_BYTES];
    uint64_t count;
    bool decays;
    float *weights, *first_moment, *second_moment; /* [count], owned */
};

struct trained_state {
    struct trained_tensor *tensors; /* owned; in the order of the chain */
    size_t count;
};

/* As a checkpoint has it. Collective; the checkpoint goes to `folder`, which every rank names
 * alike, and is removed again. Only rank 0 receives tensors. */
void trained_read(struct trained *trained, const char *folder, struct trained_state *out);
void trained_state_clear(struct trained_state *state);
/* A folder's name under /tmp that is the same at every rank of `comm` and used by no other. */
void trained_folder(struct comm *comm, char folder[64]);
/* sqrt(sum (a-b)^2) / sqrt(sum b^2) over the weights of all tensors. */
double trained_distance(const struct trained_state *a, const struct trained_state *b);

#endif
