/* The end of a step: learning-rate schedule, gradient norm and clipping, AdamW over all layers. */
#ifndef TEMPER_EXECUTOR_OPTIMIZER_H
#define TEMPER_EXECUTOR_OPTIMIZER_H

#include "executor/layout.h"
#include "executor/pass.h"
#include "ir/model.h"
#include <stdint.h>

struct optimizer_options {
    double learning_rate, min_learning_rate;
    int64_t warmup_steps; /* linear from 0 */
    int64_t decay_steps;  /* cosine down to min_learning_rate at this step */
    double beta1, beta2, epsilon, weight_decay;
    double clip_norm; /* global; 0: no clipping */
};

/* Of step `step` (from 0). Warm-up: lr (step+1)/(warmup+1); then half a cosine to the minimum
 * (Loshchilov & Hutter 2017). */
double learning_rate_at(const struct optimizer_options *options, int64_t step);

/* Global L2 norm of the gradients in the layout; not finite when any of them is not. Records one
 * optimizer event a layer. */
double optimizer_gradient_norm(const struct pass *pass);

/* One AdamW update of every parameter; `time` counts updates from 1. Matrices decay, norms and
 * biases do not. */
void optimizer_update(const struct pass *pass, const struct optimizer_options *options,
                      double learning_rate, double gradient_norm, int64_t time);

#endif
