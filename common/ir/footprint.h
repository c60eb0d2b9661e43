/* Memory arithmetic: what bytes one rank lays out for a plan.
 *
 * The one place where layer tables become a memory layout: the cost model predicts with it and the
 * executor's layout must equal it. A stage's memory is, with each array and each layer's share of a
 * term rounded up to FOOTPRINT_ALIGN_BYTES, so that sums over layers are exact:
 *
 *   parameters, gradients, optimizer   layer_state_of, summed over the stage's layers
 *   activations   per layer and micro-batch in flight (schedule_in_flight of its chunk): its saved
 *                 buffers and the residual stream that it reads (not of the embedding)
 *               + tokens of the embedding and targets of the head, per micro-batch in flight
 *               + the streams: gradients and hand-overs, see footprint_stream_count
 *   scratch       the largest need of any layer: its scratch, and its transient parameters and
 *                 gradient (layer_state) where they do not fit into the rings
 *               + the rings: two gradient buffers when any layer of the plan has ZeRO 2 or 3, and
 *                 two parameter buffers when any has ZeRO 3, each of footprint_ring_bytes
 *
 * Everything is the same at every rank of a stage. All values are bytes. */
#ifndef TEMPER_IR_FOOTPRINT_H
#define TEMPER_IR_FOOTPRINT_H

#include "ir/layer.h"
#include "ir/plan.h"
#include "ir/state.h"
#include <stdint.h>

enum { FOOTPRINT_ALIGN_BYTES = 4096 };

/* MEMORY_PROCESS is no part of the layout and stays 0. */
struct footprint {
    uint64_t term_bytes[MEMORY_TERM_COUNT];
};

/* `bytes` as a region takes it. */
uint64_t footprint_region_bytes(uint64_t bytes);

/* One micro-batch in flight through this layer: saved buffers, the residual stream it reads, its
 * tokens (embedding) or targets (head). */
uint64_t footprint_saved_bytes(const struct model *model, const struct layer_part *part,
                               struct layer_precision_mode mode,
                               const struct micro_batch_shape *shape);
/* What the layer needs while it works: scratch, and transient state that no ring takes. */
uint64_t footprint_scratch_bytes(const struct plan *plan, size_t layer);

/* A layer's transient parameters (or gradient) of `bytes` go into a ring's buffers when they fit;
 * a ring is for attention and mlp, which come many in a row: the larger of the two as T ranks share
 * it, fp32. */
uint64_t footprint_ring_bytes(const struct plan *plan);
/* Rings of this plan: 0 (ZeRO 0 and 1 only), 1 (gradients) or 2 (and parameters). */
int footprint_ring_count(const struct plan *plan);

/* A stream is fp32 [tokens, hidden], the residual stream of a micro-batch or its gradient, in the
 * widest spread of any layer of the plan: b * s tokens, or b * s / T where no layer of the plan
 * holds more than its share (degree 1 or sequence parallel). One stage: 1, the gradient; 2 where
 * any two layers of the plan hold different shares. More stages: 8: two that come forward, two that
 * go, three gradients (coming, at work, going), one to reshard in. */
int footprint_stream_count(const struct plan *plan);
uint64_t footprint_stream_bytes(const struct plan *plan);

/* Of a rank of this stage; `plan` is valid (plan_validate). */
void plan_footprint(const struct plan *plan, int stage, struct footprint *out);
/* The stage whose ranks hold most. */
int plan_fullest_stage(const struct plan *plan);
uint64_t footprint_total_bytes(const struct footprint *footprint);

#endif
