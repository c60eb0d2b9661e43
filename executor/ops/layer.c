#include "executor/ops/layer.h"

#include "executor/ops/internal.h"
#include <assert.h>

static struct layer_dims dims_of(const struct layer_call *call)
{
    const struct model *m = call->model;
    size_t gated = m->family == MODEL_LLAMA ? 2 : 1;
    return (struct layer_dims){
        .sequences = (size_t)call->shape.sequences,
        .length = (size_t)call->shape.seq_length,
        .tokens = (size_t)(call->shape.sequences * call->shape.seq_length),
        .hidden = (size_t)m->hidden,
        .heads = (size_t)m->heads,
        .kv_heads = (size_t)m->kv_heads,
        .head_dim = (size_t)m->head_dim,
        .context = (size_t)(m->heads * m->head_dim),
        .qkv = (size_t)((m->heads + 2 * m->kv_heads) * m->head_dim),
        .ffn = (size_t)m->ffn,
        .pre = (size_t)m->ffn * gated,
        .vocab = (size_t)m->vocab,
        .element_bytes = (size_t)precision_bytes(call->mode.precision),
        .bf16 = call->mode.precision == PRECISION_BF16,
    };
}

struct layer_view layer_view_of(const struct layer_call *call)
{
    struct layer_view view = {.dims = dims_of(call)};
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    size_t count = layer_tensors(call->model, call->kind, tensors), at = 0;
    for (size_t i = 0; i < count; i++) {
        enum tensor_role role = tensors[i].role;
        view.parameters[role] = call->parameters + at;
        if (call->parameters_bf16 != NULL)
            view.parameters_bf16[role] = call->parameters_bf16 + at;
        if (call->gradients != NULL)
            view.gradients[role] = call->gradients + at;
        at += (size_t)tensor_count(&tensors[i]);
    }
    if (call->kind == LAYER_HEAD && call->model->tied_head) {
        view.parameters[ROLE_HEAD_WEIGHT] = call->tied_parameters;
        view.parameters_bf16[ROLE_HEAD_WEIGHT] = call->tied_parameters_bf16;
        view.gradients[ROLE_HEAD_WEIGHT] = call->tied_gradients;
    }
    return view;
}

const void *layer_weight(const struct layer_view *view, enum tensor_role role)
{
    if (view->dims.bf16)
        return view->parameters_bf16[role];
    return view->parameters[role];
}

static enum status check(const struct device *device, const struct layer_call *call,
                         struct error *err)
{
    assert(call->shape.sequences > 0 && call->shape.seq_length > 0);
    assert(call->shape.seq_length <= call->model->positions);
    assert(layer_admits_recompute(call->kind, call->mode.recompute));
    assert(layer_admits_precision(call->kind, call->mode.precision));
    if (call->shape.threads < device_threads(device)) {
        return error_set(err, STATUS_INVALID,
                         "%s layer: its buffers are laid out for %d threads, the device has %d",
                         layer_kind_name(call->kind), call->shape.threads, device_threads(device));
    }
    if (!device_supports(device, call->mode.precision)) {
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s layer in %s: this machine or this build computes in fp32 only; plan "
                         "with precision fp32",
                         layer_kind_name(call->kind), precision_name(call->mode.precision));
    }
    return STATUS_OK;
}

enum status layer_forward(struct device *device, const struct layer_call *call, double *loss_sum,
                          struct error *err)
{
    TRY(check(device, call, err));
    device_claim(device);
    switch (call->kind) {
    case LAYER_EMBEDDING:
        return embedding_forward(device, call);
    case LAYER_ATTENTION:
        return attention_forward(device, call, err);
    case LAYER_MLP:
        return mlp_forward(device, call, err);
    default:
        return head_forward(device, call, loss_sum, err);
    }
}

enum status layer_backward(struct device *device, const struct layer_call *call, struct error *err)
{
    TRY(check(device, call, err));
    device_claim(device);
    switch (call->kind) {
    case LAYER_EMBEDDING:
        return embedding_backward(device, call);
    case LAYER_ATTENTION:
        return attention_backward(device, call, err);
    case LAYER_MLP:
        return mlp_backward(device, call, err);
    default:
        return head_backward(device, call, err);
    }
}
