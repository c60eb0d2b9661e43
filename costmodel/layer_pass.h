/* What one micro-batch of a layout costs one device in one layer: products, elementwise traffic,
 * launches, and the collectives of tensor and context parallelism that compute does not hide. The
 * equations and their sources stand in docs/layout-model.md. */
#ifndef TEMPER_COSTMODEL_LAYER_PASS_H
#define TEMPER_COSTMODEL_LAYER_PASS_H

#include "costmodel/tier_collective.h"
#include "ir/layout.h"
#include "ir/model.h"

/* What a device holds of a layer and of a micro-batch, and over what it speaks with others. Only
 * layout_share fills it. */
struct layout_share {
    const struct device_type *device;
    const struct model *model;
    const struct layout *layout;
    enum arithmetic
        core_arithmetic;           /* of attention and the logits: fp8 layouts keep 16 bit there */
    double element_bytes;          /* of an activation: 2, or 4 in fp32 and tf32 */
    double tokens;                 /* of products: b s / c */
    double stream_tokens;          /* of norms and residuals: also / t under sequence parallelism */
    double heads;                  /* query heads: a / t */
    double context, kv;            /* columns of q, and of k and v each: a d / t, k d / t */
    double ffn;                    /* f / t */
    double vocab;                  /* padded, / t */
    struct tier_ring tensor, ring; /* of t neighbours; of c devices t apart */
};

struct layout_share layout_share(const struct cluster *cluster, const struct model *model,
                                 const struct layout *layout);

enum { PASS_FORWARD, PASS_BACKWARD, PASS_COUNT };

/* Of one micro-batch. The device is busy for product_s + traffic_s, or idles behind a host that
 * needs host_s to launch its kernels; then it waits exchange_s. */
struct pass_time {
    double product_s; /* matrix products and fused attention */
    double traffic_s; /* bound by memory */
    double host_s;
    double exchange_s; /* collectives of the layer that compute does not hide */
};
/* The larger of host and device. */
double pass_s(const struct pass_time *pass);
void pass_add(struct pass_time *sum, const struct pass_time *pass, double count);

/* Attention and MLP of one block; backward includes what is recomputed. */
void block_passes(const struct layout_share *share, struct pass_time out[PASS_COUNT]);
void embedding_passes(const struct layout_share *share, struct pass_time out[PASS_COUNT]);
/* Final norm, logits, loss. */
void head_passes(const struct layout_share *share, struct pass_time out[PASS_COUNT]);

/* Parameters that a device holds of them. */
double block_parameters(const struct layout_share *share);
double table_parameters(const struct layout_share *share); /* vocab x hidden, positions apart */

#endif
