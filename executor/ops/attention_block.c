#include "executor/ops/attention_block.h"

#include "executor/ops/convert.h"
#include "executor/ops/gemm.h"
#include "executor/ops/vector.h"
#include <assert.h>
#include <math.h>

size_t attention_units(const struct attention *z)
{
    return z->dims.sequences * z->dims.kv_heads;
}

struct workspace attention_workspace(const struct attention *z)
{
    size_t length = z->dims.length, head_dim = z->dims.head_dim;
    size_t rows = length < ATTENTION_BLOCK_ROWS ? length : ATTENTION_BLOCK_ROWS;
    float *at = z->scratch + (size_t)omp_get_thread_num() * z->scratch_floats;
    struct workspace w = {.probs = at, .probs_gradient = at + rows * length};
    at += 2 * rows * length;
    if (z->dims.is_16) {
        w.k = at;
        w.v = at + length * head_dim;
        w.k_gradient = at + 2 * length * head_dim;
        w.v_gradient = at + 3 * length * head_dim;
        at += 4 * length * head_dim;
        w.q = at;
        w.result = at + rows * head_dim;
        at += 2 * rows * head_dim;
    }
    assert(at <= z->scratch + ((size_t)omp_get_thread_num() + 1) * z->scratch_floats);
    return w;
}

void attention_unpack(const struct attention *z, const void *data, size_t at, size_t stride,
                      size_t rows, size_t width, float *out)
{
    for (size_t i = 0; i < rows; i++)
        convert_widen((const uint16_t *)data + at + i * stride, out + i * width, width,
                      z->dims.precision);
}

void attention_pack(const struct attention *z, const float *data, size_t rows, size_t width,
                    void *out, size_t at, size_t stride)
{
    for (size_t i = 0; i < rows; i++)
        convert_narrow(data + i * width, (uint16_t *)out + at + i * stride, width,
                       z->dims.precision);
}

struct unit attention_unit(const struct attention *z, const struct workspace *w, size_t index)
{
    const struct layer_dims *d = &z->dims;
    struct unit u = {.sequence = index / d->kv_heads, .kv_head = index % d->kv_heads};
    u.k_at = u.sequence * d->length * d->qkv + (d->heads + u.kv_head) * d->head_dim;
    u.v_at = u.k_at + d->kv_heads * d->head_dim;
    if (d->is_16) {
        attention_unpack(z, z->qkv, u.k_at, d->qkv, d->length, d->head_dim, w->k);
        attention_unpack(z, z->qkv, u.v_at, d->qkv, d->length, d->head_dim, w->v);
        u.k = w->k;
        u.v = w->v;
        u.stride = d->head_dim;
    } else {
        u.k = (const float *)z->qkv + u.k_at;
        u.v = (const float *)z->qkv + u.v_at;
        u.stride = d->qkv;
    }
    return u;
}

struct block attention_block(const struct attention *z, const struct workspace *w,
                             const struct unit *unit, size_t head, size_t begin)
{
    const struct layer_dims *d = &z->dims;
    size_t left = d->length - begin, row = unit->sequence * d->length + begin;
    struct block b = {.begin = begin};
    b.height = left < ATTENTION_BLOCK_ROWS ? left : ATTENTION_BLOCK_ROWS;
    b.first_key = z->window > 0 && begin + 1 > z->window ? begin + 1 - z->window : 0;
    b.width = begin + b.height - b.first_key;
    b.q_at = row * d->qkv + head * d->head_dim;
    b.context_at = row * d->context + head * d->head_dim;
    b.probs_at = ((unit->sequence * d->heads + head) * d->length + begin) * d->length + b.first_key;

    b.q = (const float *)z->qkv + b.q_at;
    b.q_stride = d->qkv;
    if (d->is_16) {
        attention_unpack(z, z->qkv, b.q_at, d->qkv, b.height, d->head_dim, w->q);
        b.q = w->q;
        b.q_stride = d->head_dim;
    }
    bool in_place = z->probs != NULL && !d->is_16;
    b.probs = in_place ? (float *)z->probs + b.probs_at : w->probs;
    b.probs_stride = in_place ? d->length : b.width;
    return b;
}

CLONES
static void softmax_row(float *row, size_t visible)
{
    float maximum = row[0], sum = 0.0f;
#pragma omp simd reduction(max : maximum)
    for (size_t j = 0; j < visible; j++)
        maximum = row[j] > maximum ? row[j] : maximum;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < visible; j++) {
        row[j] = exp_vector(row[j] - maximum);
        sum += row[j];
    }
    float scale = 1.0f / sum;
#pragma omp simd
    for (size_t j = 0; j < visible; j++)
        row[j] *= scale;
}

void attention_block_probs(const struct attention *z, const struct unit *unit,
                           const struct block *b)
{
    float scale = 1.0f / sqrtf((float)z->dims.head_dim);
    gemm_piece(b->height, b->width, z->dims.head_dim, scale,
               (struct piece){b->q, b->q_stride, false},
               (struct piece){unit->k + b->first_key * unit->stride, unit->stride, true}, 0.0f,
               b->probs, b->probs_stride);
    for (size_t i = 0; i < b->height; i++) {
        float *row = b->probs + i * b->probs_stride;
        size_t query = b->begin + i, end = query + 1 - b->first_key, first = 0;
        if (z->window > 0 && query + 1 > z->window)
            first = query + 1 - z->window - b->first_key;
        softmax_row(row + first, end - first);
        memset(row, 0, first * sizeof(float));
        memset(row + end, 0, (b->width - end) * sizeof(float));
        if (z->dims.is_16)
            convert_round(row, b->width, z->dims.precision);
    }
}

void attention_block_context(const struct attention *z, const struct workspace *w,
                             const struct unit *unit, const struct block *b)
{
    const struct layer_dims *d = &z->dims;
    float *context = d->is_16 ? w->result : (float *)z->context + b->context_at;
    gemm_piece(b->height, d->head_dim, b->width, 1.0f,
               (struct piece){b->probs, b->probs_stride, false},
               (struct piece){unit->v + b->first_key * unit->stride, unit->stride, false}, 0.0f,
               context, d->is_16 ? d->head_dim : d->context);
    if (d->is_16)
        attention_pack(z, context, b->height, d->head_dim, z->context, b->context_at, d->context);
}
