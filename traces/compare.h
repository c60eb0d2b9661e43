/* Predicted against measured, by term, by phase and by layer. */
#ifndef TEMPER_TRACES_COMPARE_H
#define TEMPER_TRACES_COMPARE_H

#include "base/error.h"
#include "ir/quantity.h"
#include "store/store.h"
#include "traces/communication.h"
#include "traces/times.h"

/* error = predicted / measured - 1; meaningless (has_error false) when either is absent or the
 * measured value is 0. */
struct comparison {
    struct quantity predicted, measured;
    bool has_error;
    double error;
};

/* What the figures of a layer are made of: the phases that the run recorded by layer, or all that
 * are of layers (times_is_of_layer) when it recorded none, on both sides alike. */
struct layer_comparison {
    struct layer layer;
    struct layer_strategy strategy;
    struct comparison phase_s[PHASE_COUNT]; /* of a step, mean over the ranks that have the layer */
    struct comparison total_s;
    struct comparison energy_j;   /* of a step, all ranks; measured: apportioned by time */
    struct comparison kept_bytes; /* from a micro-batch's forward to its backward; measured: by how
                                     much the recorded live bytes grew */
};

struct run_comparison {
    struct comparison step_time_s; /* measured: the median over steps after the warm-up */
    struct comparison peak_bytes;
    struct comparison layout_bytes; /* all memory terms but MEMORY_PROCESS */
    struct comparison energy_j;     /* of one step, all ranks; measured: the mean over steps */
    struct comparison tokens_per_s; /* from the step times */
    /* Each side's of the stage with most to do: predicted of predicted_stage, measured as the mean
     * over the ranks of measured_stage, so that each sums to its step time. */
    struct comparison phase_s[PHASE_COUNT];
    int predicted_stage, measured_stage;          /* -1: nothing was predicted or recorded */
    struct rank_spread phase_spread[PHASE_COUNT]; /* over all ranks */
    struct communication communication;
    /* Measured: the step's energy apportioned by time, hence never better than modelled. */
    struct comparison phase_energy_j[PHASE_COUNT];
    /* Measured: as laid out, absent when the layout differs from the prediction; MEMORY_PROCESS is
     * what is left of the peak beside the layout. */
    struct comparison memory_term_bytes[MEMORY_TERM_COUNT];
    struct layer_comparison *layers; /* owned */
    size_t layer_count;
    double matmul_share;                /* of info.matmul_flops, all ranks' peak; 0: unknown */
    double final_loss, validation_loss; /* NaN: none */
    int64_t steps;
    size_t warmup_steps; /* that were left out: COMPARE_WARMUP_STEPS, or all but one of fewer */
    size_t rank_count;   /* ranks with recorded times */
};

enum { COMPARE_WARMUP_STEPS = 3 };

/* STATUS_CORRUPT when recorded times or events name ranks or layers that the plan does not have.
 * Whoever writes a page or a trace of the record compares first. Release with run_comparison_clear.
 */
enum status compare_run(const struct run_record *record, struct run_comparison *out,
                        struct error *err);
void run_comparison_clear(struct run_comparison *comparison);

#endif
