/* The end of a step: learning-rate schedule, gradient norm and clipping, AdamW over all layers. */
#ifndef TEMPER_EXECUTOR_OPTIMIZER_H
#define TEMPER_EXECUTOR_OPTIMIZER_H

#include "executor/comm/comm.h"
#include "executor/journal.h"
#include "executor/layout.h"
#include "executor/parameters.h"
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

/* Global L2 norm of the gradients over all ranks of `world` (collective), each element counted
 * once; not finite when any of them is not. Records one optimizer event a layer. */
enum status optimizer_gradient_norm(const struct memory_layout *layout, struct comm *world,
                                    struct journal *journal, double *norm, struct error *err);

struct optimizer_step {
    double learning_rate;
    double gradient_norm;  /* of the gradients as they stand times gradient_scale */
    double gradient_scale; /* 1 / loss scale */
    int64_t time;          /* updates, from 1 */
};

/* One AdamW update of everything this rank owns, and the 16-bit copies of it; matrices decay, norms
 * and biases do not. Each layer is published as soon as it is updated (executor/parameters.h); the
 * caller finishes that. */
enum status optimizer_update(struct parameters *parameters, const struct optimizer_options *options,
                             const struct optimizer_step *step, struct error *err);

#endif
