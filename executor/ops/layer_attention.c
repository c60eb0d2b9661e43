/* The attention layer: output = input + out_projection(attention(norm(input))). */
#include "executor/ops/attention.h"
#include "executor/ops/internal.h"
#include "executor/ops/linear.h"
#include "executor/ops/parts.h"
#include "executor/ops/rope.h"

static struct linear qkv_linear(const struct layer_view *view, const struct layer_call *call)
{
    return linear_of(view, call, ROLE_Q_WEIGHT, view->dims.hidden, view->dims.qkv);
}

static struct linear out_linear(const struct layer_view *view, const struct layer_call *call)
{
    return linear_of(view, call, ROLE_OUT_WEIGHT, view->dims.context, view->dims.hidden);
}

/* input -> NORM_OUT -> QKV, turned by their positions. `normed` receives what the product read. */
static enum status make_qkv(struct device *device, const struct layer_call *call,
                            const struct layer_view *view, const void **normed, struct error *err)
{
    bool rotary = call->model->family == MODEL_LLAMA;
    if (rotary)
        TRY(rope_prepare(device, call->model, view->dims.length, err));

    TRY(part_norm(device, call, view, normed, err));
    struct linear qkv = qkv_linear(view, call);
    TRY(linear_forward(device, &qkv, *normed, view->parameters[ROLE_QKV_BIAS],
                       call->slots[SLOT_QKV], call->mode.precision, err));
    if (rotary)
        rope_apply(device, &view->dims, call->slots[SLOT_QKV], false);
    return STATUS_OK;
}

enum status attention_forward(struct device *device, const struct layer_call *call,
                              struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const void *normed = NULL;
    TRY(make_qkv(device, call, &view, &normed, err));
    struct attention heads = attention_of(&view, call);
    attention_heads_forward(device, &heads);
    layer_poll(call);

    struct linear out = out_linear(&view, call);
    return part_output(device, call, &view, &out, call->slots[SLOT_CONTEXT],
                       view.parameters[ROLE_OUT_BIAS], err);
}

/* gradient -> out projection's gradients, gradient of qkv. */
static enum status backward_heads(struct device *device, const struct layer_call *call,
                                  const struct layer_view *view, struct error *err)
{
    const void *gradient = NULL;
    TRY(part_incoming(device, call, view, ROLE_OUT_BIAS, &gradient, err));
    struct linear out = out_linear(view, call);
    TRY(linear_backward_input(device, &out, gradient, call->slots[SLOT_GRAD_A], PRECISION_FP32,
                              err));
    struct attention heads = attention_of(view, call);
    if (heads.tile == NULL && call->mode.recompute != RECOMPUTE_FULL)
        heads.context = NULL; /* kept from forward */
    if (heads.tile != NULL && call->mode.recompute == RECOMPUTE_FULL)
        attention_heads_forward(device, &heads);
    attention_heads_backward(device, &heads);
    layer_poll(call);
    return linear_backward_weight(device, &out, call->slots[SLOT_CONTEXT], gradient,
                                  view->gradients[ROLE_OUT_WEIGHT], call->accumulate_matrices, err);
}

enum status attention_backward(struct device *device, const struct layer_call *call,
                               struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const struct layer_dims *d = &view.dims;
    const void *normed = NULL;
    if (call->mode.recompute == RECOMPUTE_FULL)
        TRY(make_qkv(device, call, &view, &normed, err));
    TRY(backward_heads(device, call, &view, err));
    if (call->mode.recompute != RECOMPUTE_FULL)
        TRY(part_norm_again(device, call, &view, &normed, err));

    void *qkv_gradient = call->slots[SLOT_GRAD_B];
    float *norm_gradient = call->slots[SLOT_GRAD_A];
    if (call->model->family == MODEL_LLAMA)
        rope_apply(device, d, qkv_gradient, true);
    if (view.gradients[ROLE_QKV_BIAS] != NULL) {
        columns_sum(device, qkv_gradient, d->precision, view.gradients[ROLE_QKV_BIAS], d->tokens,
                    d->qkv, call->accumulate_vectors);
    }
    struct linear qkv = qkv_linear(&view, call);
    TRY(linear_backward_weight(device, &qkv, normed, qkv_gradient, view.gradients[ROLE_Q_WEIGHT],
                               call->accumulate_matrices, err));
    TRY(linear_backward_input(device, &qkv, qkv_gradient, norm_gradient, PRECISION_FP32, err));
    return part_norm_backward(device, call, &view, norm_gradient, err);
}
