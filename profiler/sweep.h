/* What is measured of the layers and in which share of the time: the settings of every micro-batch
 * size, their estimated cost and whether they fit. */
#ifndef TEMPER_PROFILER_SWEEP_H
#define TEMPER_PROFILER_SWEEP_H

#include "profiler/chain.h"

/* A warm-up and two that count. */
enum {
    SWEEP_PASSES_MINIMUM = 3,
    SWEEP_SPLITS_MAX = 32,
    SWEEP_SETTINGS_MAX =
        SWEEP_SPLITS_MAX * PRECISION_COUNT * RECOMPUTE_COUNT * ATTENTION_KERNEL_COUNT,
};

struct sweep_setting {
    struct chain_setting setting;
    size_t split;      /* of the sweep's, which setting.split repeats */
    double estimate_s; /* of one pass, before calibration */
    uint64_t activation_bytes;
};

/* All that fits the memory limit of one micro-batch size. */
struct sweep_size {
    int64_t micro_batch;
    struct sweep_setting settings[SWEEP_SETTINGS_MAX];
    size_t setting_count;
};

struct sweep {
    /* Whole layers, then every number of ways that divides the ranks and the model admits, without
     * and with sequence parallelism. */
    struct chain_split splits[SWEEP_SPLITS_MAX];
    size_t split_count;
    struct sweep_size sizes[PROFILE_MICRO_BATCHES_MAX]; /* ascending */
    size_t size_count;
    bool is_automatic;  /* sizes were chosen here, not asked for */
    double calibration; /* seconds that the fastest pass took over its estimate, latest setting */
};

/* Whole layers are measured at every size; parts at the first two and the fourth only, or at all
 * when there are at most three: between them times are interpolated.
 *
 * matmul_flops: measured rates; 0 for a precision that is not measured. Sizes that do not fit the
 * memory limit are left out with a warning; when nothing fits, STATUS_INVALID names the limit.
 * `seconds`: the time for the layers; automatic sizes that could never fit in it are left out. */
enum status sweep_plan(struct sweep *out, const struct chain *chain,
                       const double matmul_flops[PRECISION_COUNT], double seconds,
                       struct error *err);
size_t sweep_pieces(const struct sweep *sweep); /* settings in all */
/* Seconds that the fewest passes of this size are expected to take. */
double sweep_minimum_s(const struct sweep *sweep, const struct sweep_size *size);
/* The share of the remaining time that a setting may use: its estimate over that of all from it on.
 */
double sweep_share(const struct sweep *sweep, size_t size_index, size_t setting_index);
/* Warn that sizes from this index on are left out for want of time. Rank 0. */
void sweep_warn_left_out(const struct sweep *sweep, size_t size_index,
                         const struct reporter *reporter);

#endif
