/* The MLP's non-linearity: GELU in its tanh form (Hendrycks & Gimpel 2016, HF's gelu_new) and
 * SwiGLU (Shazeer 2020). */
#ifndef TEMPER_OPS_ACTIVATION_H
#define TEMPER_OPS_ACTIVATION_H

#include "executor/ops/internal.h"

struct activation {
    size_t tokens, ffn;
    bool is_gated; /* SwiGLU: pre is [tokens, 2 ffn], gate then up; GELU: [tokens, ffn] */
    enum precision precision; /* of all arrays */
};

struct activation activation_of(const struct layer_view *view, const struct layer_call *call);

/* act [tokens, ffn] */
void activation_forward(struct device *device, const struct activation *z, const void *pre,
                        void *act);
/* The gradient by `pre` from that by act. GELU allows both to be the same array. */
void activation_backward(struct device *device, const struct activation *z, const void *pre,
                         const void *act_gradient, void *pre_gradient);

#endif
