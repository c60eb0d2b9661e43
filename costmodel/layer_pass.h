/* What one micro-batch of a layout costs one device in one layer: products, elementwise traffic,
 * launches, and the collectives of tensor and context parallelism that compute does not hide. The
 * equations and their sources stand in docs/layout-model.md. */
#ifndef TEMPER_COSTMODEL_LAYER_PASS_H
#define TEMPER_COSTMODEL_LAYER_PASS_H

#include "costmodel/expert_share.h"
#include "costmodel/tier_collective.h"
#include "ir/layout.h"
#include "ir/model.h"

/* What a device holds of a layer and of a micro-batch, and over what it speaks with others. Only
 * layout_share fills it. */
struct layout_share {
    const struct device_type *device;
    const struct model *model;
    const struct layout *layout;
    /* Of the logits, and of attention in blocks of fp8, which keeps 16 bit there. */
    enum arithmetic core_arithmetic;
    double element_bytes; /* of an activation: 2, or 4 in fp32 and tf32 */
    double tokens;        /* of products: b s / c */
    double stream_tokens; /* of norms and residuals: also / t under sequence parallelism */
    double heads;         /* query heads: a / t */
    double context, kv;   /* columns of q, and of k and v each: a d / t, k d / t */
    double ffn;           /* f / t */
    double vocab;         /* padded, / t */
    struct expert_share experts;
    struct tier_ring tensor, ring; /* of t neighbours; of c devices t apart */
};

/* On devices of this group. */
struct layout_share layout_share(const struct node_group *group, const struct model *model,
                                 const struct layout *layout);

enum { PASS_FORWARD, PASS_BACKWARD, PASS_COUNT };

/* Of one micro-batch. The device is busy for product_s + traffic_s, or idles behind a host that
 * needs host_s to launch its kernels; then it waits exchange_s. */
struct pass_time {
    double product_s; /* matrix products and fused attention */
    double traffic_s; /* bound by memory */
    double host_s;
    double exchange_s; /* collectives of the layer that compute does not hide */
    double weight_s; /* of product_s and traffic_s: gradients of weights, which zb-h1 may put off */
};
/* The larger of host and device. */
double pass_s(const struct pass_time *pass);
void pass_add(struct pass_time *sum, const struct pass_time *pass, double count);

/* All that makes two blocks of a layout the same work. */
struct block_kind {
    bool has_experts; /* in place of one MLP */
    struct block_mode mode;
};
bool block_kind_equal(const struct block_kind *a, const struct block_kind *b);
/* Attention and MLP of one block; backward includes what is recomputed. */
void block_passes(const struct layout_share *share, const struct block_kind *kind,
                  struct pass_time out[PASS_COUNT]);
void embedding_passes(const struct layout_share *share, struct pass_time out[PASS_COUNT]);
/* Final norm, logits, loss; of an encoder its dense layer, too. */
void head_passes(const struct layout_share *share, struct pass_time out[PASS_COUNT]);

/* Parameters that a device holds of them. */
double block_parameters(const struct layout_share *share, bool has_experts);
/* Of a block with experts, those of its experts: they have fewer replicas than the rest. */
double expert_parameters(const struct layout_share *share);
double table_parameters(const struct layout_share *share); /* vocab x hidden, positions apart */

#endif
