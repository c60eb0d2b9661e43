#include "executor/ops/rope.h"

#include "executor/ops/vector.h"
#include <math.h>
#include <stdlib.h>

enum status rope_prepare(struct device *device, const struct model *model, size_t length,
                         struct error *err)
{
    size_t head_dim = (size_t)model->head_dim, half = head_dim / 2;
    bool same = device->rope_head_dim == head_dim && device->rope_theta == model->rope_theta;
    if (same && device->rope_positions >= length)
        return STATUS_OK;

    size_t bytes = length * half * 2 * sizeof(float);
    float *table = malloc(bytes);
    if (table == NULL)
        return error_memory(err, bytes, "the table of rotary positions");
    for (size_t i = 0; i < half; i++) {
        double frequency = pow(model->rope_theta, -2.0 * (double)i / (double)head_dim);
        for (size_t position = 0; position < length; position++) {
            float *pair = table + (position * half + i) * 2;
            pair[0] = (float)cos((double)position * frequency);
            pair[1] = (float)sin((double)position * frequency);
        }
    }
    free(device->rope);
    device->rope = table;
    device->rope_positions = length;
    device->rope_head_dim = head_dim;
    device->rope_theta = model->rope_theta;
    return STATUS_OK;
}

void rope_release(struct device *device)
{
    free(device->rope);
    device->rope = NULL;
    device->rope_positions = 0;
}

INLINED void turn_head(void *data, size_t offset, const float *table, size_t half, float sign,
                       enum precision precision)
{
#pragma omp simd
    for (size_t i = 0; i < half; i++) {
        float cosine = table[2 * i], sine = sign * table[2 * i + 1];
        float first = load_element(data, offset + i, precision);
        float second = load_element(data, offset + half + i, precision);
        store_element(data, offset + i, first * cosine - second * sine, precision);
        store_element(data, offset + half + i, second * cosine + first * sine, precision);
    }
}

CLONES
static void turn_tokens(const struct layer_dims *d, struct span tokens, const float *table,
                        void *qkv, float sign)
{
    size_t half = d->head_dim / 2;
    for (size_t t = tokens.begin; t < tokens.end; t++) {
        const float *row = table + (t % d->length) * half * 2;
        for (size_t head = 0; head < d->heads + d->kv_heads; head++) {
            size_t offset = t * d->qkv + head * d->head_dim;
            if (d->precision == PRECISION_FP32)
                turn_head(qkv, offset, row, half, sign, PRECISION_FP32);
            else if (d->precision == PRECISION_BF16)
                turn_head(qkv, offset, row, half, sign, PRECISION_BF16);
            else
                turn_head(qkv, offset, row, half, sign, PRECISION_FP16);
        }
    }
}

void rope_apply(struct device *device, const struct layer_dims *dims, void *qkv, bool inverse)
{
    const float *table = device->rope;
#pragma omp parallel num_threads(device->threads)
    turn_tokens(dims, span_of_thread(dims->tokens, 1), table, qkv, inverse ? -1.0f : 1.0f);
}
