/* The MLP layer: output = input + down(activation(up(norm(input)))). */
#include "executor/ops/activation.h"
#include "executor/ops/internal.h"
#include "executor/ops/linear.h"
#include "executor/ops/parts.h"

/* llama's gate and up are one matrix of twice the width. */
static enum tensor_role up_role(const struct layer_call *call)
{
    return call->model->family == MODEL_LLAMA ? ROLE_GATE_WEIGHT : ROLE_UP_WEIGHT;
}

static struct linear up_linear(const struct layer_view *view, const struct layer_call *call)
{
    return linear_of(view, call, up_role(call), view->dims.hidden, view->dims.pre);
}

static struct linear down_linear(const struct layer_view *view, const struct layer_call *call)
{
    return linear_of(view, call, ROLE_DOWN_WEIGHT, view->dims.ffn, view->dims.hidden);
}

/* Where it is not kept it is made where its gradient will be. GELU's gradient goes over its own
 * input; SwiGLU's is twice as wide. */
static void *act_gradient_of(const struct layer_call *call)
{
    return call->slots[call->model->family == MODEL_LLAMA ? SLOT_GRAD_A : SLOT_GRAD_B];
}

static void *act_of(const struct layer_call *call)
{
    return call->slots[SLOT_ACT] != NULL ? call->slots[SLOT_ACT] : act_gradient_of(call);
}

static void make_act(struct device *device, const struct layer_call *call,
                     const struct layer_view *view)
{
    struct activation activation = activation_of(view, call);
    activation_forward(device, &activation, call->slots[SLOT_PRE], act_of(call));
}

/* input -> NORM_OUT -> PRE -> ACT. `normed` receives what the product read. */
static enum status make_pre_and_act(struct device *device, const struct layer_call *call,
                                    const struct layer_view *view, const void **normed,
                                    struct error *err)
{
    TRY(part_norm(device, call, view, normed, err));
    struct linear up = up_linear(view, call);
    TRY(linear_forward(device, &up, *normed, view->parameters[ROLE_UP_BIAS], call->slots[SLOT_PRE],
                       call->mode.precision, err));
    make_act(device, call, view);
    return STATUS_OK;
}

enum status mlp_forward(struct device *device, const struct layer_call *call, struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const void *normed = NULL;
    TRY(make_pre_and_act(device, call, &view, &normed, err));
    layer_poll(call);
    struct linear down = down_linear(&view, call);
    return part_output(device, call, &view, &down, act_of(call), view.parameters[ROLE_DOWN_BIAS],
                       err);
}

/* gradient -> down projection's gradients, gradient of PRE in GRAD_B. */
static enum status backward_act(struct device *device, const struct layer_call *call,
                                const struct layer_view *view, struct error *err)
{
    const void *gradient = NULL;
    TRY(part_incoming(device, call, view, ROLE_DOWN_BIAS, &gradient, err));
    struct linear down = down_linear(view, call);
    if (call->mode.recompute == RECOMPUTE_SELECTIVE)
        make_act(device, call, view);
    TRY(linear_backward_weight(device, &down, act_of(call), gradient,
                               view->gradients[ROLE_DOWN_WEIGHT], call->accumulate_matrices, err));
    struct activation activation = activation_of(view, call);
    void *pre_gradient = call->slots[SLOT_GRAD_B], *act_gradient = act_gradient_of(call);
    TRY(linear_backward_input(device, &down, gradient, act_gradient, call->mode.precision, err));
    activation_backward(device, &activation, call->slots[SLOT_PRE], act_gradient, pre_gradient);
    layer_poll(call);
    return STATUS_OK;
}

enum status mlp_backward(struct device *device, const struct layer_call *call, struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const struct layer_dims *d = &view.dims;
    const void *normed = NULL;
    if (call->mode.recompute == RECOMPUTE_FULL)
        TRY(make_pre_and_act(device, call, &view, &normed, err));
    TRY(backward_act(device, call, &view, err));
    /* the incoming gradient's copy in GRAD_C is done with */
    if (call->mode.recompute != RECOMPUTE_FULL)
        TRY(part_norm_again(device, call, &view, &normed, err));

    const void *pre_gradient = call->slots[SLOT_GRAD_B];
    float *norm_gradient = call->slots[SLOT_GRAD_C];
    if (view.gradients[ROLE_UP_BIAS] != NULL) {
        columns_sum(device, pre_gradient, d->precision, view.gradients[ROLE_UP_BIAS], d->tokens,
                    d->pre, call->accumulate_vectors);
    }
    struct linear up = up_linear(&view, call);
    TRY(linear_backward_weight(device, &up, normed, pre_gradient, view.gradients[up_role(call)],
                               call->accumulate_matrices, err));
    TRY(linear_backward_input(device, &up, pre_gradient, norm_gradient, PRECISION_FP32, err));
    return part_norm_backward(device, call, &view, norm_gradient, err);
}
