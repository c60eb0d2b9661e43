/* Pipeline schedules: in which order a stage works on its micro-batches.
 *
 * The executor runs these very lists and the cost model's simulator times them. Virtual stage
 * c * stages + s is chunk c of stage s (Narayanan et al. 2021); without interleaving there is one
 * chunk. Each chunk's forward passes, and each chunk's backward passes, take the micro-batches in
 * order. */
#ifndef TEMPER_IR_SCHEDULE_H
#define TEMPER_IR_SCHEDULE_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum schedule {
    SCHEDULE_GPIPE,       /* all forward, then all backward (Huang et al. 2019) */
    SCHEDULE_1F1B,        /* one forward, one backward (PipeDream-Flush, Narayanan et al. 2021) */
    SCHEDULE_INTERLEAVED, /* 1F1B over two or more chunks a stage */
    SCHEDULE_ZB_H1,       /* 1F1B with late gradients of weights (Qi et al. 2024) */
    SCHEDULE_COUNT,
    SCHEDULE_RUN_COUNT = SCHEDULE_ZB_H1 /* those before it the executor can run */
};
const char *schedule_name(enum schedule schedule); /* "gpipe", "1f1b", "interleaved", "zb-h1" */
bool schedule_parse(const char *name, enum schedule *out);

struct schedule_shape {
    enum schedule kind;
    int stages; /* p */
    int chunks; /* v: virtual stages of each stage; 1 but for interleaved */
    int64_t micro_batches;
};

struct schedule_action {
    bool is_forward;
    /* Under zb-h1 alone: not the backward pass, which then stops at the gradients of inputs, but
     * the gradients of the weights that it left out. */
    bool is_weights;
    int32_t chunk;
    int32_t micro_batch;
};

/* Interleaving wants two or more chunks and stages, and micro-batches in multiples of the stages;
 * the others want one chunk. STATUS_INVALID says which. */
enum status schedule_check(const struct schedule_shape *shape, struct error *err);
/* What one stage does in a step, in order: 2 * chunks * micro_batches actions, 3 under zb-h1
 * (malloc, the caller's). `shape` has passed schedule_check.
 *
 * zb-h1: as 1F1B, and stage i does the gradients of weights of a micro-batch after the backward
 * pass of the i-th micro-batch behind it, so that gradients of inputs reach the first stage sooner
 * and all stages have p micro-batches that are not over. */
enum status schedule_actions(const struct schedule_shape *shape, int stage,
                             struct schedule_action **out, size_t *count, struct error *err);
/* Most micro-batches of one chunk whose forward has begun and whose backward is not over. GPipe: m;
 * 1F1B and zb-h1 (its gradients of inputs): min(m, p - stage). Quick enough for a search to ask. */
int64_t schedule_in_flight(const struct schedule_shape *shape, int stage, int chunk);

#endif
