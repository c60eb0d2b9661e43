/* The attention layer: output = input + out_projection(attention(norm(input))). */
#include "executor/ops/attention.h"
#include "executor/ops/internal.h"
#include "executor/ops/linear.h"
#include "executor/ops/norm.h"
#include "executor/ops/rope.h"
#include "executor/ops/update.h"

static struct linear qkv_linear(const struct layer_view *view, const struct layer_call *call)
{
    return linear_of(view, call, ROLE_Q_WEIGHT, view->dims.hidden, view->dims.qkv);
}

static struct linear out_linear(const struct layer_view *view, const struct layer_call *call)
{
    return linear_of(view, call, ROLE_OUT_WEIGHT, view->dims.context, view->dims.hidden);
}

/* input -> NORM_OUT -> QKV, turned by their positions. */
static enum status make_qkv(struct device *device, const struct layer_call *call,
                            const struct layer_view *view, struct error *err)
{
    bool rotary = call->model->family == MODEL_LLAMA;
    if (rotary)
        TRY(rope_prepare(device, call->model, view->dims.length, err));

    struct norm norm = norm_of(view, call);
    norm_forward(device, &norm, call->slots[SLOT_NORM_OUT]);
    struct linear qkv = qkv_linear(view, call);
    TRY(linear_forward(device, &qkv, call->slots[SLOT_NORM_OUT], view->parameters[ROLE_QKV_BIAS],
                       call->slots[SLOT_QKV], call->mode.precision, err));
    if (rotary)
        rope_apply(device, &view->dims, call->slots[SLOT_QKV], false);
    return STATUS_OK;
}

enum status attention_forward(struct device *device, const struct layer_call *call,
                              struct error *err)
{
    struct layer_view view = layer_view_of(call);
    TRY(make_qkv(device, call, &view, err));
    struct attention heads = attention_of(&view, call);
    attention_heads_forward(device, &heads);

    struct linear out = out_linear(&view, call);
    rows_add(device, call->input, view.parameters[ROLE_OUT_BIAS], call->output, view.dims.tokens,
             view.dims.hidden);
    return linear_forward_add(device, &out, call->slots[SLOT_CONTEXT], call->output, err);
}

/* gradient -> out projection's gradients, gradient of qkv. */
static enum status backward_heads(struct device *device, const struct layer_call *call,
                                  const struct layer_view *view, struct error *err)
{
    const struct layer_dims *d = &view->dims;
    const void *gradient = call->gradient;
    if (d->bf16) {
        ops_cast_bf16(device, call->gradient, call->slots[SLOT_GRAD_C], d->tokens * d->hidden);
        gradient = call->slots[SLOT_GRAD_C];
    }
    if (view->gradients[ROLE_OUT_BIAS] != NULL) {
        columns_sum(device, call->gradient, false, view->gradients[ROLE_OUT_BIAS], d->tokens,
                    d->hidden, call->accumulate);
    }
    struct linear out = out_linear(view, call);
    TRY(linear_backward_input(device, &out, gradient, call->slots[SLOT_GRAD_A], PRECISION_FP32,
                              err));
    struct attention heads = attention_of(view, call);
    if (call->mode.recompute != RECOMPUTE_FULL)
        heads.context = NULL; /* kept from forward */
    attention_heads_backward(device, &heads);
    return linear_backward_weight(device, &out, call->slots[SLOT_CONTEXT], gradient,
                                  view->gradients[ROLE_OUT_WEIGHT], call->accumulate, err);
}

enum status attention_backward(struct device *device, const struct layer_call *call,
                               struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const struct layer_dims *d = &view.dims;
    if (call->mode.recompute == RECOMPUTE_FULL)
        TRY(make_qkv(device, call, &view, err));
    TRY(backward_heads(device, call, &view, err));

    void *qkv_gradient = call->slots[SLOT_GRAD_B];
    float *norm_gradient = call->slots[SLOT_GRAD_A];
    if (call->model->family == MODEL_LLAMA)
        rope_apply(device, d, qkv_gradient, true);
    if (view.gradients[ROLE_QKV_BIAS] != NULL) {
        columns_sum(device, qkv_gradient, d->bf16, view.gradients[ROLE_QKV_BIAS], d->tokens, d->qkv,
                    call->accumulate);
    }
    struct linear qkv = qkv_linear(&view, call);
    TRY(linear_backward_weight(device, &qkv, call->slots[SLOT_NORM_OUT], qkv_gradient,
                               view.gradients[ROLE_Q_WEIGHT], call->accumulate, err));
    TRY(linear_backward_input(device, &qkv, qkv_gradient, norm_gradient, PRECISION_FP32, err));

    struct norm norm = norm_of(&view, call);
    norm_backward_weight(device, &norm, norm_gradient, view.gradients[ROLE_NORM_WEIGHT],
                         view.gradients[ROLE_NORM_BIAS], call->accumulate);
    norm_backward_input(device, &norm, norm_gradient, call->gradient);
    return STATUS_OK;
}
