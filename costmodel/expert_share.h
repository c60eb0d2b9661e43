/* What a device holds and computes of the experts of a block, as Megatron-Core's all-to-all
 * dispatcher shares them out: x devices (`expert`) of the data and context parallel ones have E / x
 * experts each, every expert divided over the t of a tensor group. Routing is taken to be balanced:
 * each expert gets as many tokens as any other, none is dropped. docs/layout-model.md has the
 * equations. */
#ifndef TEMPER_COSTMODEL_EXPERT_SHARE_H
#define TEMPER_COSTMODEL_EXPERT_SHARE_H

#include "costmodel/tier_exchange.h"
#include "ir/layout.h"
#include "ir/model.h"

/* All 0 of a model without experts. */
struct expert_share {
    double local;  /* experts of a device: E / x */
    double sent;   /* rows of hidden that a device sends to experts: its stream's tokens x top-k */
    double copies; /* rows that its experts work on: N k */
    double rows;   /* of them, of one expert */
    double ffn;    /* columns of one expert: f_e / t */
    double shared; /* columns of the shared expert: f_s / t */
    double router; /* columns of the router: E, and 1 for the shared expert's gate */
    struct tier_exchange exchange; /* of x devices that stand t apart */
};

struct device_tokens {
    double products; /* N: b s / c */
    double stream;   /* also / t under sequence parallelism */
};

struct expert_share expert_share(const struct node_group *group, const struct model *model,
                                 const struct layout *layout, struct device_tokens tokens);

#endif
