/* What the ranks that share a layer exchange in it (Shoeybi et al. 2019; under sequence parallelism
 * Korthikanti et al. 2022). For a whole layer nothing is. */
#ifndef TEMPER_OPS_PARTS_H
#define TEMPER_OPS_PARTS_H

#include "executor/ops/linear.h"

/* The layer's norm: NORM_OUT of all the group's tokens, as the first product reads it. Under
 * sequence parallelism it is gathered into SLOT_GATHER; where the mode has no SLOT_NORM_OUT it is
 * where its gradient will be. */
enum status part_norm(struct device *device, const struct layer_call *call,
                      const struct layer_view *view, const void **out, struct error *err);
/* The same in backward, of what forward kept: to be called when nothing is wanted any more of what
 * stands in the gradient's room. */
enum status part_norm_again(struct device *device, const struct layer_call *call,
                            const struct layer_view *view, const void **out, struct error *err);
/* output = input + bias + x W, the product summed over the group. */
enum status part_output(struct device *device, const struct layer_call *call,
                        const struct layer_view *view, const struct linear *linear, const void *x,
                        const float *bias, struct error *err);

/* The gradient by the output of all the group's tokens; under sequence parallelism it is gathered
 * into SLOT_GROUP. */
enum status part_gather_gradient(const struct layer_call *call, const struct layer_view *view,
                                 const float **out, struct error *err);
/* The same as the products of attention and mlp read it: 16-bit layers round it into SLOT_GRAD_C.
 * The gradient of the output's bias goes to that role, if the layer has it. */
enum status part_incoming(struct device *device, const struct layer_call *call,
                          const struct layer_view *view, enum tensor_role bias, const void **out,
                          struct error *err);
/* Backward through the norm. Of the gradient by its output [T, hidden] every rank has a summand,
 * which is lost; the gradient by the input is added to call->gradient. */
enum status part_norm_backward(struct device *device, const struct layer_call *call,
                               const struct layer_view *view, float *out_gradient,
                               struct error *err);

#endif
