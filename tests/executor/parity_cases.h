/* Plans to be held against one device: every combination that fits a number of ranks, and a
 * selection of them in which every two values meet. */
#ifndef TEMPER_TESTS_EXECUTOR_PARITY_CASES_H
#define TEMPER_TESTS_EXECUTOR_PARITY_CASES_H

#include "base/error.h"
#include "ir/plan.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a combination is made of. Each dimension's values count from 0. */
enum parity_dimension {
    PARITY_MESH,        /* dp x tp x pp: parity_mesh */
    PARITY_SCHEDULE,    /* gpipe, 1f1b, interleaved with two chunks; one stage: 1f1b */
    PARITY_ZERO,        /* 0 .. 3, and a mixture by layer */
    PARITY_RECOMPUTE,   /* none, selective, full, and a mixture */
    PARITY_PRECISION,   /* fp32, bf16, fp16, and a mixture of fp32 and bf16 */
    PARITY_SEQUENCE,    /* sequence parallel: no layer, every one that is split, every third */
    PARITY_MICRO_BATCH, /* 1, 2, 4 sequences */
    PARITY_DEGREES,     /* every layer split T ways, or degrees that differ by layer */
    PARITY_STAGES,      /* stages of equal length, or the first as long as it can be */
    PARITY_GRADIENTS,   /* in fp32, bf16 where layers are */
    PARITY_ATTENTION,   /* plain, tiled where a layer admits it */
    PARITY_DIMENSIONS
};

struct parity_case {
    const char *model; /* "gpt2" (tied head) or "llama" (a head of its own) */
    int ranks;
    int value[PARITY_DIMENSIONS];
};

enum { PARITY_GLOBAL_BATCH = 16, PARITY_NAME_BYTES = 96 };

/* Values of a dimension for this number of ranks. */
int parity_values(enum parity_dimension dimension, int ranks);

/* The value of PARITY_MESH for these degrees, whose product is the rank count. */
int parity_mesh(int data_parallel, int tensor_parallel, int pipeline);

/* A tiny model: 4 blocks (llama: 3), hidden 32, 8 heads, vocabulary 251, sequences of 16. */
enum status parity_model(struct model *out, const char *name, struct error *err);
/* A valid plan (plan_clear), or the reason why there is none. */
enum status parity_plan(struct plan *out, const struct parity_case *what, struct error *err);
/* The plan on one device to compare with: one micro-batch, nothing recomputed, gradients in fp32,
 * the same precisions and kernels. */
struct parity_case parity_reference(const struct parity_case *what);
/* "dp2 tp2 pp2 1f1b zero1 full bf16 sp mb2 mixed-degrees uneven"; returns `name`. */
const char *parity_case_name(const struct parity_case *what, char name[PARITY_NAME_BYTES]);

struct parity_cases {
    struct parity_case *rows; /* owned */
    size_t count;
};

/* Every valid combination of the model on this many ranks, none of them twice: values that make no
 * difference are left at 0. */
enum status parity_cases_all(struct parity_cases *out, const char *model, int ranks,
                             struct error *err);
/* How many of them are run by default. */
size_t parity_selection(int ranks);
/* Keeps `count` rows, or as many more as it takes until every pair of values of two dimensions that
 * is in any row is in a row that is kept. */
void parity_cases_select(struct parity_cases *cases, size_t count);
/* Pairs of values that are in `a`, but not in `b`. */
size_t parity_pairs_missing(const struct parity_cases *a, const struct parity_cases *b);
void parity_cases_clear(struct parity_cases *cases);

#endif
