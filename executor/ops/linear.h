/* A linear layer y = x W (+ bias) and its gradients, whichever way round the family stores W. */
#ifndef TEMPER_OPS_LINEAR_H
#define TEMPER_OPS_LINEAR_H

#include "executor/ops/internal.h"

struct linear {
    const struct layer_call *call; /* polled after each product */
    size_t tokens, in, out;
    const void *weight;       /* gpt2 [in, out]; llama, and every head, [out, in] */
    bool out_major;           /* the latter */
    enum precision precision; /* of weight, x and y's gradient */
};

struct linear linear_of(const struct layer_view *view, const struct layer_call *call,
                        enum tensor_role role, size_t in, size_t out);

/* y [tokens, out] = x W + bias; bias NULL: none. */
enum status linear_forward(struct device *device, const struct linear *z, const void *x,
                           const float *bias, void *y, enum precision y_precision,
                           struct error *err);
/* y (fp32) += x W */
enum status linear_forward_add(struct device *device, const struct linear *z, const void *x,
                               float *y, struct error *err);
/* x_gradient [tokens, in] = y_gradient W^T */
enum status linear_backward_input(struct device *device, const struct linear *z,
                                  const void *y_gradient, void *x_gradient,
                                  enum precision x_precision, struct error *err);
/* weight_gradient (in the call's gradient_precision, shaped as the weight) = or += the product of x
 * and y_gradient */
enum status linear_backward_weight(struct device *device, const struct linear *z, const void *x,
                                   const void *y_gradient, void *weight_gradient, bool accumulate,
                                   struct error *err);

#endif
