/* Seconds that a block with experts takes beside what every block does: router, permutation of
 * tokens, and the exchanges that bring them to their experts and back. The experts' own products
 * are among the block's weights (layer_pass.c). */
#ifndef TEMPER_COSTMODEL_EXPERT_PASS_H
#define TEMPER_COSTMODEL_EXPERT_PASS_H

#include "costmodel/layer_pass.h"

/* Memory-bound work. */
double routing_traffic_s(const struct layout_share *share, int pass);
/* All of it in the open: Megatron-Core runs on when the tokens are there. */
double dispatch_exchange_s(const struct layout_share *share);
/* Kernels that are launched beside a dense block's. */
double expert_launches(const struct layout_share *share, int pass);

#endif
