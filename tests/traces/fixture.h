/* Made-up runs with known figures. */
#ifndef TEMPER_TESTS_TRACES_FIXTURE_H
#define TEMPER_TESTS_TRACES_FIXTURE_H

/* cmocka needs these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/store.h"
#include "traces/compare.h"
#include <math.h>
#include <string.h>

struct fixture_options {
    int64_t blocks;
    int ranks;
    int64_t micro_batches;
    size_t steps, evaluations;
    int kept_steps; /* with events */
    bool has_energy, has_prediction, has_layer_times;
};

/* 4 blocks, 2 ranks, 2 micro-batches, 2000 steps, everything recorded. */
extern const struct fixture_options fixture_full;

/* Figures that every fixture has, whatever its options: see fixture.c. */
#define FIXTURE_STEP_S        0.060
#define FIXTURE_PREDICTED_S   0.057
#define FIXTURE_STEP_J        1.5
#define FIXTURE_PROCESS_BYTES (30.0 * 1048576)

/* Release with run_record_free. */
void fixture_make(struct run_record *out, const struct fixture_options *options);

void *fixture_allocate(size_t count, size_t bytes);
struct quantity fixture_predicted(double value);

/* A run of 2 stages x 2 tensor-parallel ranks x `data_parallel` replicas in which every kind of
 * communication happens, half of its gradients' and parameters' flights behind compute: see
 * fixture_split.c. 20 steps; times from a real recorder of each rank, events of two steps. */
enum { SPLIT_STAGES = 2, SPLIT_TENSOR = 2, SPLIT_MICRO_BATCHES = 4, SPLIT_STEPS = 20 };
void fixture_make_split(struct run_record *out, int data_parallel);

static inline void assert_ok(enum status status, const struct error *err)
{
    if (status != STATUS_OK)
        fail_msg("failed: %s", err->message);
}

static inline void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.17g is not %.17g", value, expected);
}

static inline void assert_contains(const char *text, const char *part)
{
    if (!text || !strstr(text, part))
        fail_msg("'%s' is not in the text", part);
}

static inline void assert_lacks(const char *text, const char *part)
{
    if (text && strstr(text, part))
        fail_msg("'%s' is in the text", part);
}

#endif
