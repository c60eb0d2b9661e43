#include "executor/ops/attention.h"

#include "executor/ops/attention_block.h"
#include "executor/ops/attention_tiled.h"
#include "executor/ops/gemm.h"
#include "executor/ops/vector.h"
#include <math.h>

struct attention attention_of(const struct layer_view *view, const struct layer_call *call)
{
    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    size_t count = layer_part_buffers(call->model, &call->part, call->mode, &call->shape, buffers);
    size_t scratch_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        if (buffers[i].slot == SLOT_THREAD)
            scratch_bytes = (size_t)buffers[i].bytes;
    }
    return (struct attention){
        .dims = view->dims,
        .window = (size_t)call->model->sliding_window,
        .qkv = call->slots[SLOT_QKV],
        .probs = call->mode.recompute == RECOMPUTE_NONE ? call->slots[SLOT_PROBS] : NULL,
        .context = call->slots[SLOT_CONTEXT],
        .context_gradient = call->slots[SLOT_GRAD_A],
        .qkv_gradient = call->slots[SLOT_GRAD_B],
        .scratch = call->slots[SLOT_THREAD],
        .scratch_floats = scratch_bytes / sizeof(float) / (size_t)call->shape.threads,
        .tile = call->mode.attention == ATTENTION_TILED ? tile_ops_for(call->mode.precision) : NULL,
        .log_sums = call->slots[SLOT_LOG_SUMS],
    };
}

static void forward_unit(const struct attention *z, size_t index)
{
    const struct layer_dims *d = &z->dims;
    struct workspace w = attention_workspace(z);
    struct unit unit = attention_unit(z, &w, index);
    size_t group = d->heads / d->kv_heads, first = unit.kv_head * group;
    for (size_t head = first; head < first + group; head++) {
        for (size_t begin = 0; begin < d->length; begin += ATTENTION_BLOCK_ROWS) {
            struct block b = attention_block(z, &w, &unit, head, begin);
            attention_block_probs(z, &unit, &b);
            if (z->probs != NULL && d->is_16)
                attention_pack(z, b.probs, b.height, b.width, z->probs, b.probs_at, d->length);
            attention_block_context(z, &w, &unit, &b);
        }
    }
}

void attention_heads_forward(struct device *device, const struct attention *z)
{
    if (z->tile != NULL) {
        attention_tiled_forward(device, z);
        return;
    }
    size_t units = attention_units(z);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t index = 0; index < units; index++)
        forward_unit(z, index);
}

/* The gradient by the scores, in place of that by the probabilities p: p (d - sum p d). */
CLONES
static void softmax_backward_row(const float *probs, float *gradient, size_t width, float scale)
{
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (size_t j = 0; j < width; j++)
        dot += probs[j] * gradient[j];
#pragma omp simd
    for (size_t j = 0; j < width; j++)
        gradient[j] = scale * probs[j] * (gradient[j] - dot);
}

/* The gradients that a unit gathers from all its blocks, rows unit->stride apart. */
struct sums {
    float *k, *v;
};

static struct sums sums_begin(const struct attention *z, const struct workspace *w,
                              const struct unit *unit)
{
    const struct layer_dims *d = &z->dims;
    struct sums sums = {w->k_gradient, w->v_gradient};
    if (!d->is_16) {
        sums.k = (float *)z->qkv_gradient + unit->k_at;
        sums.v = (float *)z->qkv_gradient + unit->v_at;
    }
    for (size_t i = 0; i < d->length; i++) {
        memset(sums.k + i * unit->stride, 0, d->head_dim * sizeof(float));
        memset(sums.v + i * unit->stride, 0, d->head_dim * sizeof(float));
    }
    return sums;
}

static void backward_block(const struct attention *z, const struct workspace *w,
                           const struct unit *unit, const struct block *b, struct sums sums)
{
    const struct layer_dims *d = &z->dims;
    size_t keys_at = b->first_key * unit->stride, width = b->width, stride = unit->stride;
    struct piece probs = {b->probs, b->probs_stride, true};
    struct piece slope = {w->probs_gradient, width, false};
    struct piece context_gradient = {z->context_gradient + b->context_at, d->context, false};

    gemm_piece(width, d->head_dim, b->height, 1.0f, probs, context_gradient, 1.0f, sums.v + keys_at,
               stride);
    gemm_piece(b->height, width, d->head_dim, 1.0f, context_gradient,
               (struct piece){unit->v + keys_at, stride, true}, 0.0f, w->probs_gradient, width);
    float scale = 1.0f / sqrtf((float)d->head_dim);
    for (size_t i = 0; i < b->height; i++) {
        softmax_backward_row(b->probs + i * b->probs_stride, w->probs_gradient + i * width, width,
                             scale);
    }

    float *q_gradient = d->is_16 ? w->result : (float *)z->qkv_gradient + b->q_at;
    gemm_piece(b->height, d->head_dim, width, 1.0f, slope,
               (struct piece){unit->k + keys_at, stride, false}, 0.0f, q_gradient,
               d->is_16 ? d->head_dim : d->qkv);
    if (d->is_16)
        attention_pack(z, q_gradient, b->height, d->head_dim, z->qkv_gradient, b->q_at, d->qkv);
    slope.transposed = true;
    gemm_piece(width, d->head_dim, b->height, 1.0f, slope, (struct piece){b->q, b->q_stride, false},
               1.0f, sums.k + keys_at, stride);
}

static void backward_unit(const struct attention *z, size_t index)
{
    const struct layer_dims *d = &z->dims;
    struct workspace w = attention_workspace(z);
    struct unit unit = attention_unit(z, &w, index);
    struct sums sums = sums_begin(z, &w, &unit);
    size_t group = d->heads / d->kv_heads, first = unit.kv_head * group;
    for (size_t head = first; head < first + group; head++) {
        for (size_t begin = 0; begin < d->length; begin += ATTENTION_BLOCK_ROWS) {
            struct block b = attention_block(z, &w, &unit, head, begin);
            if (z->probs == NULL)
                attention_block_probs(z, &unit, &b);
            else if (d->is_16)
                attention_unpack(z, z->probs, b.probs_at, d->length, b.height, b.width, b.probs);
            if (z->context != NULL)
                attention_block_context(z, &w, &unit, &b);
            backward_block(z, &w, &unit, &b, sums);
        }
    }
    if (d->is_16) {
        attention_pack(z, sums.k, d->length, d->head_dim, z->qkv_gradient, unit.k_at, d->qkv);
        attention_pack(z, sums.v, d->length, d->head_dim, z->qkv_gradient, unit.v_at, d->qkv);
    }
}

void attention_heads_backward(struct device *device, const struct attention *z)
{
    if (z->tile != NULL) {
        attention_tiled_backward(device, z);
        return;
    }
    size_t units = attention_units(z);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t index = 0; index < units; index++)
        backward_unit(z, index);
}
