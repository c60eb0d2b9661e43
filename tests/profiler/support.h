/* A tiny model and a list of rows, for tests of the profiler. */
#ifndef TEMPER_TESTS_PROFILER_SUPPORT_H
#define TEMPER_TESTS_PROFILER_SUPPORT_H

#include "profiler/profiler.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* cmocka compares floats; these are doubles. */
#define assert_near(a, b, tolerance) assert_true(fabs((a) - (b)) <= (tolerance))

enum { ROWS_MAX = 4096, WARNINGS_MAX = 64, WARNING_BYTES = 512 };

struct heard {
    struct measurement rows[ROWS_MAX];
    size_t count;
    char warnings[WARNINGS_MAX][WARNING_BYTES];
    size_t warning_count;
    size_t progress_calls, last_done, last_total;
};

static inline enum status hear_row(void *user, const struct measurement *row, struct error *err)
{
    struct heard *heard = user;
    (void)err;
    assert_true(heard->count < ROWS_MAX);
    heard->rows[heard->count++] = *row;
    return STATUS_OK;
}

static inline void hear_warning(void *user, const char *message)
{
    struct heard *heard = user;
    assert_true(heard->warning_count < WARNINGS_MAX);
    strncpy(heard->warnings[heard->warning_count++], message, WARNING_BYTES - 1);
}

/* Warnings about this; others may come on a busy machine. */
static inline size_t warnings_about(const struct heard *heard, const char *what)
{
    size_t count = 0;
    for (size_t i = 0; i < heard->warning_count; i++)
        count += strstr(heard->warnings[i], what) != NULL;
    return count;
}

static inline void hear_progress(void *user, const char *what, size_t done, size_t total)
{
    struct heard *heard = user;
    assert_non_null(what);
    assert_true(done <= total);
    heard->progress_calls++;
    heard->last_done = done;
    heard->last_total = total;
}

static inline struct model tiny_model(void)
{
    struct model_overrides sizes = {
        .layers = 2, .hidden = 32, .heads = 2, .vocab_size = 96, .positions = 32, .seq_length = 32};
    struct model model;
    struct error err;
    if (model_load(&model, "gpt2", &sizes, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return model;
}

static inline struct profile_request tiny_request(const struct model *model, struct heard *heard)
{
    struct profile_request request = {
        .model = model,
        .micro_batches = {1, 4, 32},
        .micro_batch_count = 3,
        .precisions = {true, true},
        .relative_error = 0.3, /* soon reached; the budget only matters on a busy machine */
        .budget_s = 20.0,
        .memory_limit_bytes = UINT64_C(64) << 20, /* which also keeps the links short */
        .power = {-1.0, -1.0},
        .reporter = {.user = heard, .progress = hear_progress, .warning = hear_warning},
    };
    return request;
}

#endif
