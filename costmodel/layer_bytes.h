/* What a device keeps of a block and of the head while a micro-batch is under way, in bytes: every
 * tensor that the software named by the layout's framework saves for the backward pass. Equations
 * and sources stand in docs/layout-memory.md. */
#ifndef TEMPER_COSTMODEL_LAYER_BYTES_H
#define TEMPER_COSTMODEL_LAYER_BYTES_H

#include "costmodel/layer_pass.h"

struct layer_bytes {
    double kept;    /* from a micro-batch's forward pass to its backward pass */
    double working; /* besides that, at most, while the layer itself is at work */
};

/* Attention and MLP of one block. */
struct layer_bytes block_bytes(const struct layout_share *share, const struct block_kind *kind);
/* What the gradients of a block's weights read, from its backward pass until they are computed: the
 * products' inputs and the gradients of their outputs (Qi et al. 2024, table 1: 32 s b h). */
double late_weight_bytes(const struct layout_share *share, bool has_experts);
/* Final norm, logits, loss. */
struct layer_bytes head_bytes(const struct layout_share *share);
/* The residual stream of a micro-batch: what goes from one stage to the next. */
double stream_bytes(const struct layout_share *share);

#endif
