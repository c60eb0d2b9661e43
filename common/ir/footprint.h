/* Memory arithmetic: what bytes one rank lays out for a plan.
 *
 * The one place where layer tables become a memory layout: the cost model predicts with it and the
 * executor's layout must equal it. A rank's memory is a list of regions, each rounded up to
 * FOOTPRINT_ALIGN_BYTES on its own, so that the sum over layers is exact:
 *
 *   parameters   fp32 [F]; uint16 [F] where any layer computes in bf16 (its copy of the parameters)
 *   gradients    fp32 [F]
 *   optimizer    fp32 [F] twice: AdamW's two moments
 *   activations  per layer its saved buffers; per layer but the embedding the residual stream that
 *                it reads; once the gradient of the residual stream, the tokens and the targets
 *   scratch      the largest of any layer
 *
 * F = sum of layer_flat_count over all layers. A tied head in bf16 reads the embedding's bf16 copy.
 * Gradients are accumulated, so that one micro-batch is in flight. All values are bytes. */
#ifndef TEMPER_IR_FOOTPRINT_H
#define TEMPER_IR_FOOTPRINT_H

#include "ir/layer.h"
#include "ir/plan.h"
#include <stdint.h>

enum { FOOTPRINT_ALIGN_BYTES = 4096 };

/* MEMORY_PROCESS is no part of the layout and stays 0. */
struct footprint {
    uint64_t term_bytes[MEMORY_TERM_COUNT];
};

/* `bytes` as a region takes it. */
uint64_t footprint_region_bytes(uint64_t bytes);

/* One fp32 array over all parameters of the model; a rank has four: see above. */
uint64_t footprint_state_bytes(const struct model *model);
/* The bf16 copy of all parameters: laid out as soon as one layer computes in bf16. */
uint64_t footprint_bf16_bytes(const struct model *model);
/* Kept from this layer's forward to its backward: saved buffers and the residual stream it reads.
 */
uint64_t footprint_saved_bytes(const struct model *model, enum layer_kind kind,
                               struct layer_precision_mode mode,
                               const struct micro_batch_shape *shape);
uint64_t footprint_scratch_bytes(const struct model *model, enum layer_kind kind,
                                 struct layer_precision_mode mode,
                                 const struct micro_batch_shape *shape);
/* Activations that belong to no layer: the stream's gradient, tokens and targets. */
uint64_t footprint_shared_bytes(const struct model *model, const struct micro_batch_shape *shape);

/* The whole plan, of one rank; `plan` is valid (plan_validate). */
void plan_footprint(const struct plan *plan, struct footprint *out);
uint64_t footprint_total_bytes(const struct footprint *footprint);

#endif
