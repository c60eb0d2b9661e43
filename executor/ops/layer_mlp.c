/* The MLP layer: output = input + down(activation(up(norm(input)))). */
#include "executor/ops/activation.h"
#include "executor/ops/internal.h"
#include "executor/ops/linear.h"
#include "executor/ops/norm.h"
#include "executor/ops/update.h"

/* llama's gate and up are one matrix of twice the width. */
static struct linear up_linear(const struct layer_view *view, const struct layer_call *call)
{
    enum tensor_role role = call->model->family == MODEL_LLAMA ? ROLE_GATE_WEIGHT : ROLE_UP_WEIGHT;
    return linear_of(view, call, role, view->dims.hidden, view->dims.pre);
}

static struct linear down_linear(const struct layer_view *view, const struct layer_call *call)
{
    return linear_of(view, call, ROLE_DOWN_WEIGHT, view->dims.ffn, view->dims.hidden);
}

/* input -> NORM_OUT -> PRE -> ACT */
static enum status make_act(struct device *device, const struct layer_call *call,
                            const struct layer_view *view, struct error *err)
{
    struct norm norm = norm_of(view, call);
    norm_forward(device, &norm, call->slots[SLOT_NORM_OUT]);
    struct linear up = up_linear(view, call);
    TRY(linear_forward(device, &up, call->slots[SLOT_NORM_OUT], view->parameters[ROLE_UP_BIAS],
                       call->slots[SLOT_PRE], call->mode.precision, err));
    struct activation activation = activation_of(view, call);
    activation_forward(device, &activation, call->slots[SLOT_PRE], call->slots[SLOT_ACT]);
    return STATUS_OK;
}

enum status mlp_forward(struct device *device, const struct layer_call *call, struct error *err)
{
    struct layer_view view = layer_view_of(call);
    TRY(make_act(device, call, &view, err));
    struct linear down = down_linear(&view, call);
    rows_add(device, call->input, view.parameters[ROLE_DOWN_BIAS], call->output, view.dims.tokens,
             view.dims.hidden);
    return linear_forward_add(device, &down, call->slots[SLOT_ACT], call->output, err);
}

/* gradient -> down projection's gradients, gradient of PRE in GRAD_B. */
static enum status backward_act(struct device *device, const struct layer_call *call,
                                const struct layer_view *view, struct error *err)
{
    const struct layer_dims *d = &view->dims;
    const void *gradient = call->gradient;
    if (d->bf16) {
        ops_cast_bf16(device, call->gradient, call->slots[SLOT_GRAD_C], d->tokens * d->hidden);
        gradient = call->slots[SLOT_GRAD_C];
    }
    if (view->gradients[ROLE_DOWN_BIAS] != NULL) {
        columns_sum(device, call->gradient, false, view->gradients[ROLE_DOWN_BIAS], d->tokens,
                    d->hidden, call->accumulate);
    }
    struct linear down = down_linear(view, call);
    TRY(linear_backward_weight(device, &down, call->slots[SLOT_ACT], gradient,
                               view->gradients[ROLE_DOWN_WEIGHT], call->accumulate, err));
    /* GELU's gradient goes over its own input; SwiGLU's is twice as wide. */
    struct activation activation = activation_of(view, call);
    void *pre_gradient = call->slots[SLOT_GRAD_B];
    void *act_gradient = activation.is_gated ? call->slots[SLOT_GRAD_A] : pre_gradient;
    TRY(linear_backward_input(device, &down, gradient, act_gradient, call->mode.precision, err));
    activation_backward(device, &activation, call->slots[SLOT_PRE], act_gradient, pre_gradient);
    return STATUS_OK;
}

enum status mlp_backward(struct device *device, const struct layer_call *call, struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const struct layer_dims *d = &view.dims;
    if (call->mode.recompute == RECOMPUTE_FULL)
        TRY(make_act(device, call, &view, err));
    TRY(backward_act(device, call, &view, err));

    const void *pre_gradient = call->slots[SLOT_GRAD_B];
    float *norm_gradient = call->slots[SLOT_GRAD_C]; /* the incoming gradient's copy is done with */
    if (view.gradients[ROLE_UP_BIAS] != NULL) {
        columns_sum(device, pre_gradient, d->bf16, view.gradients[ROLE_UP_BIAS], d->tokens, d->pre,
                    call->accumulate);
    }
    struct linear up = up_linear(&view, call);
    enum tensor_role up_role =
        call->model->family == MODEL_LLAMA ? ROLE_GATE_WEIGHT : ROLE_UP_WEIGHT;
    TRY(linear_backward_weight(device, &up, call->slots[SLOT_NORM_OUT], pre_gradient,
                               view.gradients[up_role], call->accumulate, err));
    TRY(linear_backward_input(device, &up, pre_gradient, norm_gradient, PRECISION_FP32, err));

    struct norm norm = norm_of(&view, call);
    norm_backward_weight(device, &norm, norm_gradient, view.gradients[ROLE_NORM_WEIGHT],
                         view.gradients[ROLE_NORM_BIAS], call->accumulate);
    norm_backward_input(device, &norm, norm_gradient, call->gradient);
    return STATUS_OK;
}
