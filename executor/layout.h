/* Where every tensor of a rank lives: all memory is laid out from the plan before the first step,
 * in the very sizes that ir/footprint.h predicts. */
#ifndef TEMPER_EXECUTOR_LAYOUT_H
#define TEMPER_EXECUTOR_LAYOUT_H

#include "base/error.h"
#include "executor/ops/device.h"
#include "ir/plan.h"
#include <stdbool.h>

/* One contiguous allocation. */
struct region {
    char *base;
    uint64_t bytes;
};

/* One layer's places in the regions. */
struct layer_place {
    uint64_t first; /* element in the flat arrays */
    uint64_t count; /* elements, padding included */
    float *input;   /* [T, hidden] residual stream before the layer; NULL for the embedding */
    void *slots[SLOT_COUNT];
};

struct layout {
    struct device *device;
    struct region regions[MEMORY_TERM_COUNT]; /* MEMORY_PROCESS stays empty */
    /* Flat arrays over all layers, [flat_count]. */
    float *parameters, *gradients, *first_moment, *second_moment;
    uint16_t *parameters_bf16; /* NULL when no layer computes in bf16 */
    uint64_t flat_count;
    struct layer_place *layers; /* [layer_count] */
    size_t layer_count;
    float *gradient;           /* [T, hidden]: of the residual stream, in place */
    int32_t *tokens, *targets; /* [T] */
    uint64_t bytes;            /* of all regions */
};

/* `training` false leaves out gradients and moments. The layout keeps `device` but does not own it.
 */
enum status layout_open(struct layout *out, struct device *device, const struct plan *plan,
                        bool training, struct error *err);
void layout_close(struct layout *layout); /* a zeroed layout is allowed */

#endif
