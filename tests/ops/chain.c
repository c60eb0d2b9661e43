#include "chain.h"

#include "base/bf16.h"
#include "base/rng.h"
#include <stdlib.h>
#include <string.h>

const struct model chain_gpt2 = {
    .name = "gpt2",
    .family = MODEL_GPT2,
    .blocks = 2,
    .hidden = 15,
    .heads = 3,
    .kv_heads = 3,
    .head_dim = 5,
    .ffn = 37,
    .vocab = 19,
    .positions = 300,
    .seq_length = 7,
    .norm_epsilon = 1e-5,
    .tied_head = true,
};
const struct model chain_llama = {
    .name = "llama",
    .family = MODEL_LLAMA,
    .blocks = 2,
    .hidden = 10,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 6,
    .ffn = 23,
    .vocab = 17,
    .positions = 300,
    .seq_length = 7,
    .norm_epsilon = 1e-6,
    .rope_theta = 1e4,
};

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
    struct layer_precision_mode mode = {PRECISION_FP32, RECOMPUTE_NONE, ATTENTION_PLAIN};
    if (layer_admits_precision(kind, options->precision))
        mode.precision = options->precision;
    if (layer_admits_recompute(kind, options->recompute))
        mode.recompute = options->recompute;
    if (layer_admits_kernel(kind, options->attention))
        mode.attention = options->attention;
    return mode;
}

static struct layer_part part_of(const struct chain_options *options, enum layer_kind kind)
{
    struct layer_part part = layer_whole(kind);
    part.owns_table = kind == LAYER_HEAD && options->owns_table;
    if (options->ways < 2)
        return part;
    part.ways = options->ways;
    part.index = options->index;
    part.sequence_parallel = options->sequence_parallel;
    return part;
}

static enum status open_layer(struct chain *chain, size_t index, size_t scratch_bytes[SLOT_COUNT],
                              struct error *err)
{
    struct chain_layer *layer = &chain->layers[index];
    layer->layer = model_layer(&chain->model, index);
    layer->part = part_of(&chain->options, layer->layer.kind);
    layer->mode = mode_of(&chain->options, layer->layer.kind);
    layer->counts = layer_part_counts(&chain->model, &layer->part);
    layer->at = (size_t)chain->count;
    layer->gradients_at = chain->gradient_bytes;
    chain->gradient_bytes += layer->counts.matrices * precision_bytes(chain->options.gradients) +
                             layer->counts.vectors * sizeof(float);
    chain->count += layer->counts.matrices + layer->counts.vectors;
    TRY(layer_part_check(&chain->model, &layer->part, err));

    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    size_t count = layer_part_buffers(&chain->model, &layer->part, layer->mode,
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
    size_t bytes = (size_t)part_boundary_bytes(&chain->model, &layer->part, &chain->options.shape);
    return region_open(chain->device, bytes, &layer->output, err);
}

static enum status open_arrays(struct chain *chain, struct error *err)
{
    size_t count = (size_t)chain->count, token_bytes = chain->tokens * sizeof(int32_t);
    struct device *device = chain->device;
    TRY(device_allocate(device, count * sizeof(float), (void **)&chain->parameters, err));
    TRY(device_allocate(device, chain->gradient_bytes, (void **)&chain->gradients, err));
    TRY(device_allocate(device, count * sizeof(uint16_t), (void **)&chain->parameters_16, err));
    TRY(device_allocate(device, token_bytes, (void **)&chain->token_ids, err));
    TRY(device_allocate(device, token_bytes, (void **)&chain->targets, err));
    size_t bytes =
        (size_t)part_boundary_bytes(&chain->model, &chain->layers[0].part, &chain->options.shape);
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
    device_free(device, chain->gradients, chain->gradient_bytes);
    device_free(device, chain->parameters_16, count * sizeof(uint16_t));
    device_free(device, chain->token_ids, token_bytes);
    device_free(device, chain->targets, token_bytes);
    region_close(device, &chain->gradient);
    device_close(device);
    *chain = (struct chain){0};
}

size_t chain_tensors(const struct chain *chain, size_t index,
                     struct chain_tensor out[LAYER_TENSORS_MAX])
{
    const struct chain_layer *layer = &chain->layers[index];
    struct tensor_part parts[LAYER_TENSORS_MAX];
    size_t count = layer_part_tensors(&chain->model, &layer->part, parts);
    size_t matrix_at = layer->at, vector_at = layer->at + (size_t)layer->counts.matrices;
    for (size_t i = 0; i < count; i++) {
        size_t *at = parts[i].whole.stays_whole ? &vector_at : &matrix_at;
        out[i] = (struct chain_tensor){parts[i], *at};
        *at += (size_t)tensor_part_count(&parts[i]);
    }
    return count;
}

void chain_cast(struct chain *chain)
{
    if (chain->options.precision != PRECISION_FP32)
        ops_cast_16(chain->device, chain->parameters, chain->parameters_16, chain->count,
                    chain->options.precision);
}

static void take_slice(const struct tensor_slice *slice, const float *whole, size_t whole_cols,
                       float *part, size_t part_cols)
{
    for (int64_t row = 0; row < slice->rows; row++) {
        memcpy(part + (size_t)(slice->local_row + row) * part_cols + (size_t)slice->local_col,
               whole + (size_t)(slice->row + row) * whole_cols + (size_t)slice->col,
               (size_t)slice->cols * sizeof(float));
    }
}

/* The values of the whole tensor, of which the chain may hold a part. */
static enum status randomise_tensor(struct chain *chain, const struct chain_tensor *tensor,
                                    uint64_t seed, uint64_t stream, struct error *err)
{
    const struct tensor_part *part = &tensor->part;
    uint64_t count = tensor_count(&part->whole);
    double deviation = part->whole.is_vector ? 0.1 : part->whole.init_deviation;
    float *whole = calloc((size_t)count, sizeof(float));
    if (whole == NULL)
        return error_memory(err, (size_t)count * sizeof(float), "a tensor");
    ops_fill_normal(chain->device, whole, 0, count, deviation, seed, stream);
    for (uint64_t i = 0; part->whole.init == INIT_ONE && i < count; i++)
        whole[i] += 1.0f;
    for (size_t i = 0; i < part->slice_count; i++) {
        take_slice(&part->slices[i], whole, (size_t)part->whole.cols,
                   chain->parameters + tensor->at, (size_t)part->cols);
    }
    free(whole);
    return STATUS_OK;
}

enum status chain_randomise(struct chain *chain, uint64_t seed, struct error *err)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct chain_tensor tensors[LAYER_TENSORS_MAX];
        size_t count = chain_tensors(chain, i, tensors);
        for (size_t j = 0; j < count; j++) {
            enum tensor_role role = tensors[j].part.whole.role;
            bool is_tied = role == ROLE_HEAD_WEIGHT && chain->model.tied_head;
            uint64_t stream = is_tied ? ROLE_TOKEN_EMBEDDING : i * ROLE_COUNT + (uint64_t)role;
            TRY(randomise_tensor(chain, &tensors[j], seed, stream, err));
        }
    }
    uint64_t vocab = (uint64_t)chain->model.vocab;
    for (size_t t = 0; t < chain->tokens; t++) {
        chain->token_ids[t] = (int32_t)rng_below(seed, 1000000, t, vocab);
        chain->targets[t] = (int32_t)rng_below(seed, 1000001, t, vocab);
    }
    chain_cast(chain);
    return STATUS_OK;
}

/* Of the element at `at` of the flat arrays, which is the layer's. */
static void *gradient_at(const struct chain *chain, const struct chain_layer *layer, size_t at)
{
    size_t offset = at - layer->at, matrices = (size_t)layer->counts.matrices;
    size_t before = offset < matrices ? offset : matrices;
    return (char *)chain->gradients + layer->gradients_at +
           before * precision_bytes(chain->options.gradients) + (offset - before) * sizeof(float);
}

void chain_gradients(const struct chain *chain, float *out)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        const struct chain_layer *layer = &chain->layers[i];
        size_t matrices = (size_t)layer->counts.matrices;
        const void *from = gradient_at(chain, layer, layer->at);
        if (chain->options.gradients == PRECISION_FP32)
            memcpy(out + layer->at, from, matrices * sizeof(float));
        else
            for (size_t k = 0; k < matrices; k++)
                out[layer->at + k] = float_from_bf16(((const uint16_t *)from)[k]);
        memcpy(out + layer->at + matrices, gradient_at(chain, layer, layer->at + matrices),
               (size_t)layer->counts.vectors * sizeof(float));
    }
}

static void bind_parameters(struct chain *chain, const struct chain_layer *layer,
                            struct layer_call *call)
{
    size_t vectors_at = layer->at + (size_t)layer->counts.matrices;
    bool is_16 = layer->mode.precision != PRECISION_FP32;
    if (is_16)
        call->matrices_16 = chain->parameters_16 + layer->at;
    else
        call->matrices = chain->parameters + layer->at;
    call->vectors = chain->parameters + vectors_at;
    call->gradient_precision = chain->options.gradients;
    call->matrix_gradients = gradient_at(chain, layer, layer->at);
    call->vector_gradients = gradient_at(chain, layer, vectors_at);
    bool shares_table = chain->model.tied_head && !chain->options.owns_table;
    if (layer->part.kind == LAYER_EMBEDDING)
        call->table_is_written = shares_table;
    if (layer->part.kind != LAYER_HEAD || !shares_table)
        return;
    if (is_16)
        call->table_16 = chain->parameters_16;
    else
        call->table = chain->parameters;
    call->table_gradients = chain->gradients;
}

struct layer_call chain_call(struct chain *chain, size_t index)
{
    struct chain_layer *layer = &chain->layers[index];
    struct layer_call call = {
        .model = &chain->model,
        .part = layer->part,
        .mode = layer->mode,
        .shape = chain->options.shape,
        .group = chain->options.group,
        .tokens = chain->token_ids,
        .targets = chain->targets,
        .loss_scale = chain->loss_scale,
        .input = index > 0 ? chain->layers[index - 1].output.data : NULL,
        .output = layer->output.data,
        .gradient = chain->gradient.data,
    };
    bind_parameters(chain, layer, &call);
    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    size_t count =
        layer_part_buffers(&chain->model, &call.part, call.mode, &chain->options.shape, buffers);
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
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct chain_tensor tensors[LAYER_TENSORS_MAX];
        size_t count = chain_tensors(chain, i, tensors);
        for (size_t j = 0; j < count; j++) {
            bool is_vector = tensors[j].part.whole.stays_whole;
            size_t element_bytes =
                is_vector ? sizeof(float) : precision_bytes(chain->options.gradients);
            memset(gradient_at(chain, &chain->layers[i], tensors[j].at), 0xff,
                   (size_t)tensor_part_count(&tensors[j].part) * element_bytes);
        }
    }
}

enum status chain_forward(struct chain *chain, double *loss_sum, struct error *err)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct layer_call call = chain_call(chain, i);
        double *sum = call.part.kind == LAYER_HEAD ? loss_sum : NULL;
        TRY(layer_forward(chain->device, &call, sum, err));
    }
    return STATUS_OK;
}

enum status chain_backward(struct chain *chain, bool accumulate, double *loss_sum,
                           struct error *err)
{
    for (size_t i = chain->layer_count; i > 0; i--) {
        struct layer_call call = chain_call(chain, i - 1);
        call.accumulate_matrices = call.accumulate_vectors = accumulate;
        double *sum = call.part.kind == LAYER_HEAD ? loss_sum : NULL;
        TRY(layer_backward(chain->device, &call, sum, err));
    }
    return STATUS_OK;
}

enum status chain_logits(struct chain *chain, float *out, struct error *err)
{
    struct layer_call call = chain_call(chain, chain->layer_count - 1);
    int64_t tokens = (int64_t)chain->tokens;
    int64_t chunk = head_chunk_tokens(call.model, &call.part, &call.shape);
    size_t vocab = (size_t)part_vocab_rows(call.model, &call.part);
    for (int64_t first = 0; first < tokens; first += chunk) {
        int64_t count = tokens - first < chunk ? tokens - first : chunk;
        TRY(layer_logits(chain->device, &call, first, count, err));
        memcpy(out + (size_t)first * vocab, call.slots[SLOT_LOGITS],
               (size_t)count * vocab * sizeof(float));
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
