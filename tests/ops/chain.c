#include "chain.h"

#include "base/rng.h"
#include <stdlib.h>
#include <string.h>

enum { GUARD_BYTES = 256, GUARD_VALUE = 0x5a };

static enum status region_open(struct device *device, size_t bytes, struct chain_region *out,
                               struct error *err)
{
    TRY(device_allocate(device, bytes + GUARD_BYTES, &out->data, err));
    out->bytes = bytes;
    memset((char *)out->data + bytes, GUARD_VALUE, GUARD_BYTES);
    return STATUS_OK;
}

static void region_close(struct device *device, struct chain_region *region)
{
    device_free(device, region->data, region->bytes + GUARD_BYTES);
}

static bool region_holds(const struct chain_region *region)
{
    if (region->data == NULL)
        return true;
    const unsigned char *guard = (const unsigned char *)region->data + region->bytes;
    for (size_t i = 0; i < GUARD_BYTES; i++) {
        if (guard[i] != GUARD_VALUE)
            return false;
    }
    return true;
}

static void region_poison(const struct chain_region *region)
{
    if (region->data != NULL)
        memset(region->data, 0xff, region->bytes);
}

static struct layer_precision_mode mode_of(const struct chain_options *options,
                                           enum layer_kind kind)
{
    struct layer_precision_mode mode = {PRECISION_FP32, RECOMPUTE_NONE};
    if (layer_admits_precision(kind, options->precision))
        mode.precision = options->precision;
    if (layer_admits_recompute(kind, options->recompute))
        mode.recompute = options->recompute;
    return mode;
}

static enum status open_layer(struct chain *chain, size_t index, size_t scratch_bytes[SLOT_COUNT],
                              struct error *err)
{
    struct chain_layer *layer = &chain->layers[index];
    layer->layer = model_layer(&chain->model, index);
    layer->mode = mode_of(&chain->options, layer->layer.kind);
    layer->at = (size_t)chain->count;
    chain->count += layer_flat_count(&chain->model, layer->layer.kind);

    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    size_t count = layer_buffers(&chain->model, layer->layer.kind, layer->mode,
                                 &chain->options.shape, buffers);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = (size_t)buffers[i].bytes;
        if (buffers[i].life == BUFFER_SAVED)
            TRY(region_open(chain->device, bytes, &layer->slots[buffers[i].slot], err));
        else if (bytes > scratch_bytes[buffers[i].slot])
            scratch_bytes[buffers[i].slot] = bytes;
    }
    if (layer->layer.kind == LAYER_HEAD)
        return STATUS_OK;
    size_t bytes = (size_t)boundary_bytes(&chain->model, &chain->options.shape);
    return region_open(chain->device, bytes, &layer->output, err);
}

static enum status open_arrays(struct chain *chain, struct error *err)
{
    size_t count = (size_t)chain->count, token_bytes = chain->tokens * sizeof(int32_t);
    struct device *device = chain->device;
    TRY(device_allocate(device, count * sizeof(float), (void **)&chain->parameters, err));
    TRY(device_allocate(device, count * sizeof(float), (void **)&chain->gradients, err));
    TRY(device_allocate(device, count * sizeof(uint16_t), (void **)&chain->parameters_bf16, err));
    TRY(device_allocate(device, token_bytes, (void **)&chain->token_ids, err));
    TRY(device_allocate(device, token_bytes, (void **)&chain->targets, err));
    size_t bytes = (size_t)boundary_bytes(&chain->model, &chain->options.shape);
    return region_open(device, bytes, &chain->gradient, err);
}

static enum status open_all(struct chain *chain, struct error *err)
{
    size_t scratch_bytes[SLOT_COUNT] = {0};
    TRY(device_open(&chain->device, chain->options.shape.threads, err));
    chain->layers = calloc(chain->layer_count, sizeof(*chain->layers));
    if (chain->layers == NULL)
        return error_memory(err, chain->layer_count * sizeof(*chain->layers), "layers");
    for (size_t i = 0; i < chain->layer_count; i++)
        TRY(open_layer(chain, i, scratch_bytes, err));
    for (size_t slot = 0; slot < SLOT_COUNT; slot++) {
        if (scratch_bytes[slot] > 0)
            TRY(region_open(chain->device, scratch_bytes[slot], &chain->scratch[slot], err));
    }
    return open_arrays(chain, err);
}

enum status chain_open(struct chain *chain, const struct model *model,
                       const struct chain_options *options, struct error *err)
{
    *chain = (struct chain){
        .model = *model,
        .options = *options,
        .layer_count = model_layer_count(model),
        .tokens = (size_t)(options->shape.sequences * options->shape.seq_length),
    };
    chain->loss_scale = 1.0f / (float)chain->tokens;
    enum status status = open_all(chain, err);
    if (status != STATUS_OK)
        chain_close(chain);
    return status;
}

void chain_close(struct chain *chain)
{
    struct device *device = chain->device;
    for (size_t i = 0; chain->layers != NULL && i < chain->layer_count; i++) {
        for (size_t slot = 0; slot < SLOT_COUNT; slot++)
            region_close(device, &chain->layers[i].slots[slot]);
        region_close(device, &chain->layers[i].output);
    }
    free(chain->layers);
    for (size_t slot = 0; slot < SLOT_COUNT; slot++)
        region_close(device, &chain->scratch[slot]);
    size_t count = (size_t)chain->count, token_bytes = chain->tokens * sizeof(int32_t);
    device_free(device, chain->parameters, count * sizeof(float));
    device_free(device, chain->gradients, count * sizeof(float));
    device_free(device, chain->parameters_bf16, count * sizeof(uint16_t));
    device_free(device, chain->token_ids, token_bytes);
    device_free(device, chain->targets, token_bytes);
    region_close(device, &chain->gradient);
    device_close(device);
    *chain = (struct chain){0};
}

void chain_cast(struct chain *chain)
{
    ops_cast_bf16(chain->device, chain->parameters, chain->parameters_bf16, chain->count);
}

void chain_randomise(struct chain *chain, uint64_t seed)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct tensor_spec tensors[LAYER_TENSORS_MAX];
        size_t count = layer_tensors(&chain->model, chain->layers[i].layer.kind, tensors);
        float *at = chain->parameters + chain->layers[i].at;
        for (size_t j = 0; j < count; j++) {
            bool is_one = tensors[j].init == INIT_ONE;
            double deviation = tensors[j].is_vector ? 0.1 : tensors[j].init_deviation;
            uint64_t elements = tensor_count(&tensors[j]);
            ops_fill_normal(chain->device, at, elements, deviation, seed, i * 16 + j);
            for (uint64_t k = 0; is_one && k < elements; k++)
                at[k] += 1.0f;
            at += elements;
        }
    }
    uint64_t vocab = (uint64_t)chain->model.vocab;
    for (size_t t = 0; t < chain->tokens; t++) {
        chain->token_ids[t] = (int32_t)rng_below(seed, 1000000, t, vocab);
        chain->targets[t] = (int32_t)rng_below(seed, 1000001, t, vocab);
    }
    chain_cast(chain);
}

struct layer_call chain_call(struct chain *chain, size_t index)
{
    struct chain_layer *layer = &chain->layers[index];
    struct layer_call call = {
        .model = &chain->model,
        .kind = layer->layer.kind,
        .mode = layer->mode,
        .shape = chain->options.shape,
        .parameters = chain->parameters + layer->at,
        .gradients = chain->gradients + layer->at,
        .parameters_bf16 = chain->parameters_bf16 + layer->at,
        .tokens = chain->token_ids,
        .targets = chain->targets,
        .loss_scale = chain->loss_scale,
        .input = index > 0 ? chain->layers[index - 1].output.data : NULL,
        .output = layer->output.data,
        .gradient = chain->gradient.data,
    };
    if (call.kind == LAYER_HEAD && chain->model.tied_head) {
        call.tied_parameters = chain->parameters;
        call.tied_gradients = chain->gradients;
        call.tied_parameters_bf16 = chain->parameters_bf16;
    }
    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    size_t count =
        layer_buffers(&chain->model, call.kind, call.mode, &chain->options.shape, buffers);
    for (size_t i = 0; i < count; i++) {
        enum buffer_slot slot = buffers[i].slot;
        bool saved = buffers[i].life == BUFFER_SAVED;
        call.slots[slot] = saved ? layer->slots[slot].data : chain->scratch[slot].data;
    }
    return call;
}

void chain_poison(struct chain *chain)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        for (size_t slot = 0; slot < SLOT_COUNT; slot++)
            region_poison(&chain->layers[i].slots[slot]);
        region_poison(&chain->layers[i].output);
    }
    for (size_t slot = 0; slot < SLOT_COUNT; slot++)
        region_poison(&chain->scratch[slot]);
    region_poison(&chain->gradient);
    memset(chain->gradients, 0xff, (size_t)chain->count * sizeof(float));
}

enum status chain_forward(struct chain *chain, double *loss_sum, struct error *err)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct layer_call call = chain_call(chain, i);
        double *sum = call.kind == LAYER_HEAD ? loss_sum : NULL;
        TRY(layer_forward(chain->device, &call, sum, err));
    }
    return STATUS_OK;
}

enum status chain_backward(struct chain *chain, bool accumulate, struct error *err)
{
    for (size_t i = chain->layer_count; i > 0; i--) {
        struct layer_call call = chain_call(chain, i - 1);
        call.accumulate = accumulate;
        TRY(layer_backward(chain->device, &call, err));
    }
    return STATUS_OK;
}

bool chain_guards_hold(const struct chain *chain)
{
    bool hold = region_holds(&chain->gradient);
    for (size_t i = 0; i < chain->layer_count; i++) {
        for (size_t slot = 0; slot < SLOT_COUNT; slot++)
            hold = hold && region_holds(&chain->layers[i].slots[slot]);
        hold = hold && region_holds(&chain->layers[i].output);
    }
    for (size_t slot = 0; slot < SLOT_COUNT; slot++)
        hold = hold && region_holds(&chain->scratch[slot]);
    return hold;
}
