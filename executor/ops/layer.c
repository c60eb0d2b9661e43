#include "executor/ops/layer.h"

#include "executor/ops/internal.h"
#include <assert.h>

static struct layer_dims dims_of(const struct layer_call *call)
{
    const struct model *m = call->model;
    int64_t ways = call->part.ways, gated = m->family == MODEL_LLAMA ? 2 : 1;
    int64_t heads = m->heads / ways, kv_heads = m->kv_heads / ways, ffn = m->ffn / ways;
    int64_t vocab = part_vocab_rows(m, &call->part);
    return (struct layer_dims){
        .sequences = (size_t)call->shape.sequences,
        .length = (size_t)call->shape.seq_length,
        .tokens = (size_t)(call->shape.sequences * call->shape.seq_length),
        .stream = (size_t)part_stream_tokens(&call->part, &call->shape),
        .hidden = (size_t)m->hidden,
        .heads = (size_t)heads,
        .kv_heads = (size_t)kv_heads,
        .head_dim = (size_t)m->head_dim,
        .context = (size_t)(heads * m->head_dim),
        .qkv = (size_t)((heads + 2 * kv_heads) * m->head_dim),
        .ffn = (size_t)ffn,
        .pre = (size_t)(ffn * gated),
        .vocab = (size_t)vocab,
        .vocab_first = (size_t)(vocab * call->part.index),
        .vocab_valid = (size_t)part_vocab_valid(m, &call->part),
        .chunk = (size_t)head_chunk_tokens(m, &call->part, &call->shape),
        .precision = call->mode.precision,
        .is_16 = call->mode.precision != PRECISION_FP32,
    };
}

static void view_matrix(struct layer_view *view, enum tensor_role role,
                        const struct layer_call *call, size_t at)
{
    if (call->matrices != NULL)
        view->parameters[role] = call->matrices + at;
    if (call->matrices_16 != NULL)
        view->parameters_16[role] = call->matrices_16 + at;
    if (call->matrix_gradients != NULL)
        view->gradients[role] =
            (char *)call->matrix_gradients + at * precision_bytes(call->gradient_precision);
}

struct layer_view layer_view_of(const struct layer_call *call)
{
    struct layer_view view = {.dims = dims_of(call)};
    struct tensor_part tensors[LAYER_TENSORS_MAX];
    size_t count = layer_part_tensors(call->model, &call->part, tensors);
    size_t matrix_at = 0, vector_at = 0;
    for (size_t i = 0; i < count; i++) {
        enum tensor_role role = tensors[i].whole.role;
        size_t elements = (size_t)tensor_part_count(&tensors[i]);
        if (!tensors[i].whole.stays_whole) {
            view_matrix(&view, role, call, matrix_at);
            matrix_at += elements;
            continue;
        }
        view.parameters[role] = call->vectors + vector_at;
        if (call->vector_gradients != NULL)
            view.gradients[role] = call->vector_gradients + vector_at;
        vector_at += elements;
    }
    if (call->part.kind == LAYER_HEAD && call->model->tied_head && !call->part.owns_table) {
        view.parameters[ROLE_HEAD_WEIGHT] = call->table;
        view.parameters_16[ROLE_HEAD_WEIGHT] = call->table_16;
        view.gradients[ROLE_HEAD_WEIGHT] = call->table_gradients;
    }
    return view;
}

const void *layer_weight(const struct layer_view *view, enum tensor_role role)
{
    if (view->dims.is_16)
        return view->parameters_16[role];
    return view->parameters[role];
}

static enum status check(const struct device *device, const struct layer_call *call,
                         struct error *err)
{
    assert(call->shape.sequences > 0 && call->shape.seq_length > 0);
    assert(call->shape.seq_length <= call->model->positions);
    assert(call->part.index >= 0 && call->part.index < call->part.ways);
    assert(call->part.ways == 1 || call->group != NULL);
    assert(!call->part.sequence_parallel ||
           call->shape.sequences * call->shape.seq_length % call->part.ways == 0);
    assert(layer_admits_recompute(call->part.kind, call->mode.recompute));
    assert(layer_admits_precision(call->part.kind, call->mode.precision));
    assert(layer_admits_kernel(call->part.kind, call->mode.attention, call->mode.recompute));
    assert(call->gradient_precision == PRECISION_FP32 ||
           (call->gradient_precision == PRECISION_BF16 &&
            (call->mode.precision == PRECISION_BF16 || call->part.kind == LAYER_EMBEDDING)));
    if (call->shape.threads < device_threads(device)) {
        return error_set(err, STATUS_INVALID,
                         "%s layer: its buffers are laid out for %d threads, the device has %d",
                         layer_kind_name(call->part.kind), call->shape.threads,
                         device_threads(device));
    }
    if (!device_supports(device, call->mode.precision)) {
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s layer in %s: this machine or this build has no such products; plan "
                         "with precision fp32 or fp16",
                         layer_kind_name(call->part.kind), precision_name(call->mode.precision));
    }
    return STATUS_OK;
}

enum status layer_forward(struct device *device, const struct layer_call *call, double *loss_sum,
                          struct error *err)
{
    TRY(check(device, call, err));
    device_claim(device);
    switch (call->part.kind) {
    case LAYER_EMBEDDING:
        return embedding_forward(device, call, err);
    case LAYER_ATTENTION:
        return attention_forward(device, call, err);
    case LAYER_MLP:
        return mlp_forward(device, call, err);
    default:
        return head_forward(device, call, loss_sum, err);
    }
}

enum status layer_backward(struct device *device, const struct layer_call *call, double *loss_sum,
                           struct error *err)
{
    TRY(check(device, call, err));
    device_claim(device);
    switch (call->part.kind) {
    case LAYER_EMBEDDING:
        return embedding_backward(device, call, err);
    case LAYER_ATTENTION:
        return attention_backward(device, call, err);
    case LAYER_MLP:
        return mlp_backward(device, call, err);
    default:
        return head_backward(device, call, loss_sum, err);
    }
}

enum status layer_logits(struct device *device, const struct layer_call *call, int64_t first,
                         int64_t count, struct error *err)
{
    assert(call->part.kind == LAYER_HEAD);
    assert(first >= 0 && count <= head_chunk_tokens(call->model, &call->part, &call->shape));
    TRY(check(device, call, err));
    device_claim(device);
    return head_logits(device, call, (struct span){(size_t)first, (size_t)(first + count)}, err);
}
