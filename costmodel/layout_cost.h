/* Time, memory and energy of a step under a layout on a described cluster. Every equation and its
 * source stand in docs/layout-model.md. All figures are `modelled`. */
#ifndef TEMPER_COSTMODEL_LAYOUT_COST_H
#define TEMPER_COSTMODEL_LAYOUT_COST_H

#include "ir/cluster.h"
#include "ir/layout.h"
#include "ir/plan.h"
#include "ir/quantity.h"

struct layout_prediction {
    /* Of the slowest stage; PHASE_PIPELINE is bubble and exposed transfers. They sum to time_s. */
    struct quantity phase_time_s[PHASE_COUNT];
    struct quantity time_s;
    /* Of the device that has least left; they sum to memory_bytes. MEMORY_PROCESS is what lies
     * outside the framework's allocator (CUDA context, NCCL buffers). */
    struct quantity memory_term_bytes[MEMORY_TERM_COUNT];
    struct quantity memory_bytes;
    /* Of that, what the allocator holds of an earlier phase of the step and can give back: freed,
     * but in pieces too small for the next phase. */
    double cached_bytes;
    double device_bytes; /* that the device has */
    /* Of the host: what offload puts there and what there is, of the device that has least left. */
    double host_bytes, host_memory_bytes;
    struct quantity energy_j; /* of all devices */
    struct quantity price;    /* in the cluster's currency; absent without prices */
    struct quantity carbon_g; /* absent without the cluster's intensity */
    double model_flops;       /* of the step: without recompute */
    double mfu;               /* share of all devices' peak in the layout's arithmetic */
};

/* The layout passes layout_check. Its devices are those of the cluster's first group, unless its
 * block plan says which stages stand on which. */
enum status layout_predict(const struct cluster *cluster, const struct model *model,
                           const struct layout *layout, struct layout_prediction *out,
                           struct error *err);

/* ---- its two halves, for who needs one ---- */

enum status layout_time(const struct cluster *cluster, const struct model *model,
                        const struct layout *layout, struct layout_prediction *out,
                        struct error *err);
enum status layout_memory(const struct cluster *cluster, const struct model *model,
                          const struct layout *layout, struct layout_prediction *out,
                          struct error *err);
/* Does the device's memory hold it, 95 times of 100? The allocator's bytes, but for those that it
 * can give back, and what lies outside. And does its share of the host hold what waits there? */
bool layout_fits(const struct layout_prediction *prediction);
/* The same for other shares of 100: that many deviations (base/stats.h, normal_deviations) of room.
 */
bool layout_fits_at(const struct layout_prediction *prediction, double deviations);

#endif
