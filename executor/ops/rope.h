/* Rotary position embedding (Su et al. 2021) in HF's convention: element i of a head turns with
 * element i + head_dim/2, by the angle position / theta^(2i/head_dim). */
#ifndef TEMPER_OPS_ROPE_H
#define TEMPER_OPS_ROPE_H

#include "executor/ops/internal.h"

/* Make sure that the device's table covers `length` positions. */
enum status rope_prepare(struct device *device, const struct model *model, size_t length,
                         struct error *err);
void rope_release(struct device *device);

/* Turn the query and key heads of qkv [tokens, (heads + 2 kv_heads) head_dim], fp32 or 16 bit, in
 * place; `inverse` turns them back, which is what the gradient needs. */
void rope_apply(struct device *device, const struct layer_dims *dims, void *qkv, bool inverse);

#endif
