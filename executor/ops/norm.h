/* LayerNorm (Ba et al. 2016) and RMSNorm (Zhang & Sennrich 2019) over the last dimension. */
#ifndef TEMPER_OPS_NORM_H
#define TEMPER_OPS_NORM_H

#include "executor/ops/internal.h"

struct norm {
    size_t tokens, hidden;
    bool is_rms;
    enum precision precision; /* of `out` */
    float epsilon;
    const float *input;  /* [tokens, hidden] */
    const float *weight; /* [hidden] */
    const float *bias;   /* [hidden]; NULL for RMSNorm */
    float *stats;        /* [tokens, 2]: mean (0 for RMSNorm) and 1 / deviation */
};

struct norm norm_of(const struct layer_view *view, const struct layer_call *call);

void norm_forward(struct device *device, const struct norm *norm, void *out);
/* The same bits once more, by the statistics that norm_forward left. */
void norm_forward_again(struct device *device, const struct norm *norm, void *out);
/* gradient += the gradient by the input that `out_gradient` (fp32, by the output) causes. */
void norm_backward_input(struct device *device, const struct norm *norm, const float *out_gradient,
                         float *gradient);
/* Gradients by weight and bias (NULL: none). */
void norm_backward_weight(struct device *device, const struct norm *norm, const float *out_gradient,
                          float *weight_gradient, float *bias_gradient, bool accumulate);

#endif
