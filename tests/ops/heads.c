#include "heads.h"

#include "executor/ops/convert.h"
#include "executor/ops/update.h"
#include <string.h>

enum { SEED = 11 };

static enum status take(struct heads *heads, size_t bytes, void **out, struct error *err)
{
    size_t slot = 0;
    while (heads->memory[slot] != NULL)
        slot++;
    TRY(device_allocate(heads->device, bytes, &heads->memory[slot], err));
    heads->bytes[slot] = bytes;
    *out = heads->memory[slot];
    return STATUS_OK;
}

static enum status take_scratch(struct heads *heads, const struct heads_shape *shape,
                                enum attention_kernel kernel, struct attention *out,
                                struct error *err)
{
    const struct model model = {.family = MODEL_GPT2,
                                .blocks = 1,
                                .hidden = (int64_t)(shape->heads * shape->head_dim),
                                .heads = (int64_t)shape->heads,
                                .kv_heads = (int64_t)shape->kv_heads,
                                .head_dim = (int64_t)shape->head_dim,
                                .ffn = 1,
                                .vocab = 1};
    const struct layer_precision_mode mode = {shape->precision, RECOMPUTE_NONE, kernel};
    const struct micro_batch_shape batch = {.sequences = (int64_t)shape->sequences,
                                            .seq_length = (int64_t)shape->length,
                                            .threads = shape->threads};
    struct buffer_spec rows[LAYER_BUFFERS_MAX];
    size_t count = layer_buffers(&model, LAYER_ATTENTION, mode, &batch, rows);
    for (size_t i = 0; i < count; i++) {
        void *data = NULL;
        size_t bytes = (size_t)rows[i].bytes;
        if (rows[i].slot != SLOT_THREAD && rows[i].slot != SLOT_PROBS &&
            rows[i].slot != SLOT_LOG_SUMS)
            continue;
        TRY(take(heads, bytes, &data, err));
        if (rows[i].slot == SLOT_PROBS) {
            out->probs = data;
        } else if (rows[i].slot == SLOT_LOG_SUMS) {
            out->log_sums = data;
        } else {
            out->scratch = data;
            out->scratch_floats = bytes / sizeof(float) / (size_t)shape->threads;
        }
    }
    return STATUS_OK;
}

static enum status take_results(struct heads *heads, size_t element_bytes, struct attention *out,
                                struct error *err)
{
    TRY(take(heads, heads->context_count * element_bytes, &out->context, err));
    return take(heads, heads->qkv_count * element_bytes, &out->qkv_gradient, err);
}

static enum status open_all(struct heads *heads, const struct heads_shape *shape, struct error *err)
{
    size_t element_bytes = (size_t)precision_bytes(shape->precision);
    void *qkv = NULL, *gradient = NULL;
    TRY(device_open(&heads->device, shape->threads, err));
    device_claim(heads->device);
    TRY(take(heads, heads->qkv_count * sizeof(float), &qkv, err));
    TRY(take(heads, heads->context_count * sizeof(float), &gradient, err));
    ops_fill_normal(heads->device, qkv, 0, heads->qkv_count, 1.0, SEED, 0);
    ops_fill_normal(heads->device, gradient, 0, heads->context_count, 1.0, SEED, 1);
    if (shape->precision != PRECISION_FP32)
        convert_narrow(qkv, qkv, heads->qkv_count, shape->precision);
    heads->plain.qkv = qkv;
    heads->plain.context_gradient = gradient;
    heads->tiled = heads->plain;
    heads->tiled.tile = tile_ops_for(shape->precision);
    TRY(take_scratch(heads, shape, ATTENTION_PLAIN, &heads->plain, err));
    TRY(take_scratch(heads, shape, ATTENTION_TILED, &heads->tiled, err));
    TRY(take_results(heads, element_bytes, &heads->plain, err));
    return take_results(heads, element_bytes, &heads->tiled, err);
}

enum status heads_open(struct heads *heads, const struct heads_shape *shape, struct error *err)
{
    size_t tokens = shape->sequences * shape->length;
    *heads = (struct heads){0};
    heads->plain.window = shape->window;
    heads->plain.dims = (struct layer_dims){
        .sequences = shape->sequences,
        .length = shape->length,
        .tokens = tokens,
        .heads = shape->heads,
        .kv_heads = shape->kv_heads,
        .head_dim = shape->head_dim,
        .context = shape->heads * shape->head_dim,
        .qkv = (shape->heads + 2 * shape->kv_heads) * shape->head_dim,
        .precision = shape->precision,
        .is_16 = shape->precision != PRECISION_FP32,
    };
    heads->qkv_count = tokens * heads->plain.dims.qkv;
    heads->context_count = tokens * heads->plain.dims.context;
    enum status status = open_all(heads, shape, err);
    if (status != STATUS_OK)
        heads_close(heads);
    return status;
}

void heads_close(struct heads *heads)
{
    for (size_t i = 0; i < sizeof(heads->memory) / sizeof(heads->memory[0]); i++)
        device_free(heads->device, heads->memory[i], heads->bytes[i]);
    device_close(heads->device);
    *heads = (struct heads){0};
}

void heads_widen(const struct heads *heads, const void *data, float *out, size_t count)
{
    if (heads->plain.dims.is_16)
        convert_widen(data, out, count, heads->plain.dims.precision);
    else
        memcpy(out, data, count * sizeof(float));
}
