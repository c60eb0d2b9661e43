/* The weights in a layout: their initial values, and the same ones at every rank. */
#ifndef TEMPER_EXECUTOR_WEIGHTS_H
#define TEMPER_EXECUTOR_WEIGHTS_H

#include "base/error.h"
#include "executor/comm/comm.h"
#include "executor/layout.h"
#include "ir/model.h"
#include <stdbool.h>
#include <stdint.h>

/* From the seed alone: tensor k of layer l draws from stream l * LAYER_TENSORS_MAX + k, so that
 * every plan starts from the same weights. Moments become zero. */
void weights_initialise(struct layout *layout, const struct model *model, uint64_t seed);

/* Rank 0's parameters (and moments) to all ranks, and the bf16 copies made anew. */
enum status weights_broadcast(struct layout *layout, struct comm *comm, bool moments,
                              struct error *err);

#endif
