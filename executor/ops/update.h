/* Work on flat arrays: the optimizer's step, norms, casts. */
#ifndef TEMPER_OPS_UPDATE_H
#define TEMPER_OPS_UPDATE_H

#include "executor/ops/device.h"
#include <stdint.h>

/* AdamW with decoupled weight decay (Loshchilov & Hutter 2019) for one span of the flat arrays:
 *   g = grad * grad_scale;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
 *   p -= lr * (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + decay * p) */
struct adamw_call {
    float *parameters, *first_moment, *second_moment; /* [count] */
    const void *gradients;                            /* [count] */
    enum precision gradient_precision;                /* fp32 or bf16 */
    uint16_t *parameters_16; /* [count]: receives the new values rounded; NULL: none wanted */
    enum precision precision_16;
    uint64_t count;
    double learning_rate, beta1, beta2, epsilon, weight_decay;
    int64_t time;      /* t, from 1 */
    double grad_scale; /* clipping: min(1, max_norm / norm) */
};
void ops_adamw(struct device *device, const struct adamw_call *call);

/* Sum of squares of fp32 or bf16 in double precision; the same bits for any thread count. Not
 * finite when any element is not. */
double ops_sum_squares(struct device *device, const void *data, enum precision precision,
                       uint64_t count);
/* To bf16 or fp16, to nearest even. */
void ops_cast_16(struct device *device, const float *from, uint16_t *to, uint64_t count,
                 enum precision precision);
/* to[i] += from[i], or = where `add` is false; of fp32, or of bf16, whose sums are rounded. */
void ops_accumulate(struct device *device, const void *from, void *to, enum precision precision,
                    uint64_t count, bool add);
/* Values `first` .. first + count - 1 of the normal (mean 0) sequence (seed, stream), the same for
 * every thread count. */
void ops_fill_normal(struct device *device, float *data, uint64_t first, uint64_t count,
                     double deviation, uint64_t seed, uint64_t stream);
void ops_fill(struct device *device, float *data, uint64_t count, float value);

#endif
