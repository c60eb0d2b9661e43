#include "profiler/chain.h"
#include "base/clock.h"
#include "base/rng.h"
#include "executor/ops/update.h"
#include "profiler/cache.h"
#include <stdio.h>
#include <stdlib.h>

/* Backward without a head starts from normal values of the order of a loss gradient's: constant or
 * vanishing ones would make denormal numbers, which are slow. */
enum { SEED_PATTERN_COUNT = 1 << 16, PARAMETER_SEED = 1, TOKEN_STREAM = 1000, PATTERN_STREAM };
#define SEED_DEVIATION 1e-4
/* Parameters and gradients of the blocks are to exceed the last-level cache this often. */
#define CACHE_FACTOR             2
#define BLOCKS_MINIMUM           2  /* so that one pass has two samples of a kind */
#define STATIC_BYTES_PER_ELEMENT 16 /* parameter, gradient, two moments in fp32 */

const char *chain_split_text(struct chain_split split, char text[CHAIN_SPLIT_BYTES])
{
    text[0] = '\0';
    if (split.ways > 1)
        (void)snprintf(text, CHAIN_SPLIT_BYTES, ", tp%d%s", split.ways,
                       split.sequence_parallel ? "sp" : "");
    return text;
}

/* ---- static arrays ---- */

static uint64_t layer_count_of(const struct model *model, enum layer_kind kind)
{
    struct layer_part whole = layer_whole(kind);
    struct part_counts counts = layer_part_counts(model, &whole);
    return counts.matrices + counts.vectors;
}

static uint64_t flat_count_of(const struct model *model)
{
    uint64_t count = 0;
    for (size_t i = 0; i < model_layer_count(model); i++)
        count += layer_count_of(model, model_layer(model, i).kind);
    return count;
}

static uint64_t static_bytes_of(const struct model *model, bool with_16)
{
    return flat_count_of(model) * (STATIC_BYTES_PER_ELEMENT + (with_16 ? 2U : 0U));
}

static int64_t choose_blocks(const struct model *model, bool with_16, uint64_t limit_bytes)
{
    uint64_t block_bytes =
        (layer_count_of(model, LAYER_ATTENTION) + layer_count_of(model, LAYER_MLP)) * 2 *
        sizeof(float);
    uint64_t wanted = CACHE_FACTOR * cache_last_level_bytes() / block_bytes + 1;
    struct model cut = *model;
    wanted = wanted < BLOCKS_MINIMUM ? BLOCKS_MINIMUM : wanted;
    if (wanted < (uint64_t)model->blocks)
        cut.blocks = (int64_t)wanted;
    while (cut.blocks > 1 && static_bytes_of(&cut, with_16) > limit_bytes)
        cut.blocks--;
    return cut.blocks;
}

static enum status allocate_static(struct chain *chain, bool with_16, struct error *err)
{
    size_t bytes = chain->flat_count * sizeof(float);
    float **arrays[] = {&chain->parameters, &chain->gradients, &chain->first_moment,
                        &chain->second_moment};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++) {
        void *data = NULL;
        TRY(session_allocate(chain->session, bytes, &data, err));
        *arrays[i] = data;
    }
    if (with_16) {
        void *data = NULL;
        TRY(session_allocate(chain->session, chain->flat_count * sizeof(uint16_t), &data, err));
        chain->parameters_16 = data;
    }
    return STATUS_OK;
}

static void initialise_layer(struct chain *chain, size_t index)
{
    const struct chain_layer *layer = &chain->layers[index];
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    size_t count = layer_tensors(&chain->model, layer->kind, tensors);
    float *matrix = chain->parameters + layer->first, *vector = matrix + layer->matrix_count;
    for (size_t i = 0; i < count; i++) {
        uint64_t elements = tensor_count(&tensors[i]);
        float **data = tensors[i].stays_whole ? &vector : &matrix;
        if (tensors[i].init == INIT_NORMAL)
            ops_fill_normal(chain->session->device, *data, 0, elements, tensors[i].init_deviation,
                            PARAMETER_SEED, index * LAYER_TENSORS_MAX + i);
        else
            ops_fill(chain->session->device, *data, elements,
                     tensors[i].init == INIT_ONE ? 1.0F : 0.0F);
        *data += elements;
    }
}

static enum status make_host_parts(struct chain *chain, struct error *err)
{
    chain->layers = calloc(chain->layer_count, sizeof(chain->layers[0]));
    chain->seed_pattern = calloc(SEED_PATTERN_COUNT, sizeof(float));
    if (!chain->layers || !chain->seed_pattern)
        return error_memory(err, SEED_PATTERN_COUNT * sizeof(float), "the chain of layers");
    for (uint64_t i = 0; i < SEED_PATTERN_COUNT; i++)
        chain->seed_pattern[i] =
            (float)(SEED_DEVIATION * rng_normal(PARAMETER_SEED, PATTERN_STREAM, i));
    uint64_t first = 0;
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct chain_layer *layer = &chain->layers[i];
        layer->kind = model_layer(&chain->model, i).kind;
        layer->first = first;
        struct layer_part whole = layer_whole(layer->kind);
        layer->matrix_count = layer_part_counts(&chain->model, &whole).matrices;
        layer->count = layer_count_of(&chain->model, layer->kind);
        first += layer->count;
    }
    chain->flat_count = first;
    return STATUS_OK;
}

static void round_parameters(struct chain *chain, enum precision precision)
{
    ops_cast_16(chain->session->device, chain->parameters, chain->parameters_16, chain->flat_count,
                precision);
    chain->precision_16 = precision;
}

enum status chain_open(struct chain *out, struct session *session, bool with_16,
                       uint64_t limit_bytes, struct error *err)
{
    *out = (struct chain){.session = session, .model = *session->request->model};
    out->model.blocks = choose_blocks(&out->model, with_16, limit_bytes);
    /* Hosts may have unlike caches, but all ranks work on the same chain. */
    TRY(comm_broadcast(session->comm, &out->model.blocks, sizeof(out->model.blocks), 0, err));
    out->layer_count = model_layer_count(&out->model);
    enum status status = make_host_parts(out, err);
    if (status == STATUS_OK)
        status = allocate_static(out, with_16, err);
    if (status != STATUS_OK) {
        chain_close(out);
        return status;
    }
    for (size_t i = 0; i < out->layer_count; i++)
        initialise_layer(out, i);
    if (with_16)
        round_parameters(out, PRECISION_BF16);
    return STATUS_OK;
}

void chain_close(struct chain *chain)
{
    if (!chain->session)
        return;
    size_t bytes = chain->flat_count * sizeof(float);
    chain_group_close(&chain->group);
    session_free(chain->session, chain->arena, chain->arena_bytes);
    session_free(chain->session, chain->parameters_16, chain->flat_count * sizeof(uint16_t));
    session_free(chain->session, chain->second_moment, bytes);
    session_free(chain->session, chain->first_moment, bytes);
    session_free(chain->session, chain->gradients, bytes);
    session_free(chain->session, chain->parameters, bytes);
    free(chain->seed_pattern);
    free(chain->layers);
    *chain = (struct chain){0};
}

uint64_t chain_static_bytes(const struct chain *chain)
{
    return static_bytes_of(&chain->model, chain->parameters_16 != NULL);
}

/* ---- activations ---- */

struct layer_part chain_part(const struct chain *chain, enum layer_kind kind,
                             struct chain_split split)
{
    return (struct layer_part){
        .kind = kind,
        .ways = split.ways,
        .index = comm_rank(chain->session->comm) % split.ways,
        .sequence_parallel = split.sequence_parallel,
    };
}

bool chain_admits(const struct chain *chain, enum layer_kind kind, struct chain_split split)
{
    struct layer_part part = chain_part(chain, kind, split);
    struct error ignored;
    return layer_part_check(&chain->model, &part, &ignored) == STATUS_OK;
}

struct layer_precision_mode chain_mode(enum layer_kind kind, struct chain_setting setting)
{
    return (struct layer_precision_mode){
        .precision =
            layer_admits_precision(kind, setting.precision) ? setting.precision : PRECISION_FP32,
        .recompute =
            layer_admits_recompute(kind, setting.recompute) ? setting.recompute : RECOMPUTE_NONE,
        .attention = kind == LAYER_ATTENTION ? setting.attention : ATTENTION_PLAIN,
    };
}

/* Hands out pieces of the arena; with a NULL base it only counts. */
struct carver {
    char *base;
    uint64_t used_bytes;
};

static void *carve(struct carver *carver, uint64_t bytes)
{
    void *piece = carver->base ? carver->base + carver->used_bytes : NULL;
    carver->used_bytes +=
        (bytes + BUFFER_ALIGN_BYTES - 1) / BUFFER_ALIGN_BYTES * BUFFER_ALIGN_BYTES;
    return piece;
}

static struct micro_batch_shape shape_of(const struct chain *chain, struct chain_setting setting)
{
    return (struct micro_batch_shape){
        .sequences = setting.micro_batch,
        .seq_length = chain->model.seq_length,
        .threads = device_threads(chain->session->device),
    };
}

static bool takes_part(const struct chain *chain, size_t index, struct chain_setting setting)
{
    enum layer_kind kind = chain->layers[index].kind;
    return (kind != LAYER_HEAD || setting.with_head) && chain_admits(chain, kind, setting.split);
}

/* The residual stream is the same before and after every layer of a split. */
static uint64_t stream_bytes(const struct chain *chain, struct chain_setting setting)
{
    struct micro_batch_shape shape = shape_of(chain, setting);
    struct layer_part part = chain_part(chain, LAYER_MLP, setting.split);
    return part_boundary_bytes(&chain->model, &part, &shape);
}

/* A layer's buffers of one life; their places go to `slots` unless it is NULL. */
static void carve_slots(struct carver *carver, const struct chain *chain, size_t index,
                        struct chain_setting setting, enum buffer_life life, void **slots)
{
    struct micro_batch_shape shape = shape_of(chain, setting);
    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    enum layer_kind kind = chain->layers[index].kind;
    struct layer_part part = chain_part(chain, kind, setting.split);
    size_t count =
        layer_part_buffers(&chain->model, &part, chain_mode(kind, setting), &shape, buffers);
    for (size_t i = 0; i < count; i++) {
        if (buffers[i].life != life)
            continue;
        void *place = carve(carver, buffers[i].bytes);
        if (slots)
            slots[buffers[i].slot] = place;
    }
}

uint64_t chain_activation_bytes(const struct chain *chain, struct chain_setting setting)
{
    struct micro_batch_shape shape = shape_of(chain, setting);
    struct carver kept = {.base = NULL};
    uint64_t scratch_bytes = 0, boundary = stream_bytes(chain, setting);
    (void)carve(&kept, boundary);
    (void)carve(&kept, (uint64_t)(shape.sequences * shape.seq_length) * sizeof(int32_t));
    (void)carve(&kept, (uint64_t)(shape.sequences * shape.seq_length) * sizeof(int32_t));
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct carver scratch = {.base = NULL};
        if (!takes_part(chain, i, setting))
            continue;
        if (chain->layers[i].kind != LAYER_HEAD)
            (void)carve(&kept, boundary);
        carve_slots(&kept, chain, i, setting, BUFFER_SAVED, NULL);
        carve_slots(&scratch, chain, i, setting, BUFFER_SCRATCH, NULL);
        scratch_bytes = scratch.used_bytes > scratch_bytes ? scratch.used_bytes : scratch_bytes;
    }
    return kept.used_bytes + scratch_bytes;
}

enum status chain_reserve(struct chain *chain, uint64_t activation_bytes, struct error *err)
{
    session_free(chain->session, chain->arena, chain->arena_bytes);
    chain->arena = NULL;
    void *arena = NULL;
    TRY(session_allocate(chain->session, activation_bytes, &arena, err));
    chain->arena = arena;
    chain->arena_bytes = activation_bytes;
    return STATUS_OK;
}

/* ---- binding ---- */

static enum status write_tokens(struct chain *chain, struct error *err)
{
    size_t count = (size_t)chain->tokens;
    int32_t *drawn = calloc(count + 1, sizeof(drawn[0]));
    if (!drawn)
        return error_memory(err, (count + 1) * sizeof(drawn[0]), "tokens");
    /* Ranks that share layers work on the same tokens. */
    int group = comm_rank(chain->session->comm) / chain->group.ways;
    uint64_t stream = TOKEN_STREAM + (uint64_t)group;
    for (size_t i = 0; i <= count; i++)
        drawn[i] = (int32_t)rng_below(PARAMETER_SEED + 1, stream, i, (uint64_t)chain->model.vocab);
    size_t bytes = count * sizeof(drawn[0]);
    device_write(chain->session->device, chain->token_inputs, drawn, bytes);
    device_write(chain->session->device, chain->token_targets, drawn + 1, bytes);
    free(drawn);
    return STATUS_OK;
}

static struct layer_call call_of(const struct chain *chain, size_t index,
                                 struct chain_setting setting)
{
    const struct chain_layer *layer = &chain->layers[index];
    struct layer_call call = {
        .model = &chain->model,
        .part = chain_part(chain, layer->kind, setting.split),
        .mode = chain_mode(layer->kind, setting),
        .shape = shape_of(chain, setting),
        .group = setting.split.ways > 1 ? &chain->group.calls : NULL,
        .vectors = chain->parameters + layer->first + layer->matrix_count,
        .matrix_gradients = chain->gradients + layer->first,
        .vector_gradients = chain->gradients + layer->first + layer->matrix_count,
        .table_is_written = chain->model.tied_head,
        .loss_scale = 1.0F / (float)(chain->tokens * (int64_t)comm_size(chain->session->comm)),
        .gradient = chain->gradient,
    };
    bool is_16 = call.mode.precision != PRECISION_FP32;
    if (is_16)
        call.matrices_16 = chain->parameters_16 + layer->first;
    else
        call.matrices = chain->parameters + layer->first;
    if (layer->kind == LAYER_HEAD && chain->model.tied_head) {
        call.table = chain->parameters;
        call.table_16 = is_16 ? chain->parameters_16 : NULL;
        call.table_gradients = chain->gradients;
    }
    return call;
}

/* Residual streams, saved buffers, then the scratch that all share. */
static void carve_calls(struct chain *chain, struct carver *kept, struct chain_setting setting)
{
    uint64_t boundary = stream_bytes(chain, setting);
    uint64_t token_bytes = (uint64_t)chain->tokens * sizeof(int32_t);
    chain->gradient = carve(kept, boundary);
    chain->token_inputs = carve(kept, token_bytes);
    chain->token_targets = carve(kept, token_bytes);
    float *input = NULL;
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct chain_layer *layer = &chain->layers[i];
        layer->takes_part = takes_part(chain, i, setting);
        if (!layer->takes_part)
            continue;
        layer->call = call_of(chain, i, setting);
        layer->call.tokens = chain->token_inputs;
        layer->call.targets = chain->token_targets;
        layer->call.input = input;
        layer->call.output = layer->kind == LAYER_HEAD ? NULL : carve(kept, boundary);
        input = layer->call.output;
        carve_slots(kept, chain, i, setting, BUFFER_SAVED, layer->call.slots);
    }
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct carver scratch = *kept;
        if (chain->layers[i].takes_part)
            carve_slots(&scratch, chain, i, setting, BUFFER_SCRATCH, chain->layers[i].call.slots);
    }
}

enum status chain_bind(struct chain *chain, struct chain_setting setting, struct error *err)
{
    struct micro_batch_shape shape = shape_of(chain, setting);
    struct layer_part part = chain_part(chain, LAYER_MLP, setting.split);
    struct carver kept = {.base = chain->arena};
    if (setting.precision != PRECISION_FP32 && setting.precision != chain->precision_16)
        round_parameters(chain, setting.precision);
    chain->tokens = shape.sequences * shape.seq_length;
    chain->stream_tokens = part_stream_tokens(&part, &shape);
    TRY(chain_group_join(&chain->group, chain->session->comm, setting.split.ways, err));
    carve_calls(chain, &kept, setting);
    return write_tokens(chain, err);
}

/* ---- passes ---- */

struct stopwatch {
    int64_t start_ns, exchange_ns;
};

static struct stopwatch stopwatch_start(const struct chain *chain)
{
    return (struct stopwatch){clock_ns(), chain->group.exchange_ns};
}

static struct chain_time stopwatch_time(const struct stopwatch *watch, const struct chain *chain)
{
    int64_t exchange_ns = chain->group.exchange_ns - watch->exchange_ns;
    return (struct chain_time){.compute = clock_ns() - watch->start_ns - exchange_ns,
                               .exchange = exchange_ns};
}

enum status chain_forward(struct chain *chain, struct chain_time *times, struct error *err)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        const struct chain_layer *layer = &chain->layers[i];
        times[i] = (struct chain_time){0};
        if (!layer->takes_part)
            continue;
        struct stopwatch watch = stopwatch_start(chain);
        TRY(layer_forward(chain->session->device, &layer->call, NULL, err));
        times[i] = stopwatch_time(&watch, chain);
    }
    return STATUS_OK;
}

static void seed_gradient(struct chain *chain)
{
    size_t count = (size_t)(chain->stream_tokens * chain->model.hidden);
    for (size_t at = 0; at < count; at += SEED_PATTERN_COUNT) {
        size_t piece = count - at < SEED_PATTERN_COUNT ? count - at : SEED_PATTERN_COUNT;
        device_write(chain->session->device, chain->gradient + at, chain->seed_pattern,
                     piece * sizeof(float));
    }
}

enum status chain_backward(struct chain *chain, bool accumulate, const struct chain_hook *hook,
                           struct chain_time *times, struct error *err)
{
    if (!chain->layers[chain->layer_count - 1].takes_part)
        seed_gradient(chain);
    for (size_t i = chain->layer_count; i-- > 0;) {
        struct layer_call *call = &chain->layers[i].call;
        times[i] = (struct chain_time){0};
        if (!chain->layers[i].takes_part)
            continue;
        call->accumulate_matrices = call->accumulate_vectors = accumulate;
        struct stopwatch watch = stopwatch_start(chain);
        double loss_sum = 0;
        TRY(layer_backward(chain->session->device, call,
                           chain->layers[i].kind == LAYER_HEAD ? &loss_sum : NULL, err));
        times[i] = stopwatch_time(&watch, chain);
        if (hook)
            TRY(hook->layer_done(hook->user, i, err));
    }
    return STATUS_OK;
}

/* ---- optimizer ---- */

struct span {
    uint64_t first, count;
    bool decays;
    enum precision precision; /* of its copy; fp32: it has none */
};

/* Matrices decay and have a copy of 16 bit in such layers; what stands behind them decays as a
 * whole or not at all. */
struct updated_part {
    struct span matrices, vectors;
};

static void update_span(struct chain *chain, const struct span *span, int64_t time)
{
    bool with_16 = span->precision != PRECISION_FP32;
    if (span->count == 0)
        return;
    struct adamw_call call = {
        .parameters = chain->parameters + span->first,
        .gradients = chain->gradients + span->first,
        .first_moment = chain->first_moment + span->first,
        .second_moment = chain->second_moment + span->first,
        .parameters_16 = with_16 ? chain->parameters_16 + span->first : NULL,
        .precision_16 = span->precision,
        .count = span->count,
        .learning_rate = 1e-6, /* the weights are to stay as good as new */
        .beta1 = 0.9,
        .beta2 = 0.95,
        .epsilon = 1e-8,
        .weight_decay = span->decays ? 0.1 : 0.0,
        .time = time,
        .grad_scale = 0.5,
    };
    ops_adamw(chain->session->device, &call);
}

/* Of the layer at this index; behind the last, of a tied head that owns a table. False: there is
 * none, or so many ways do not admit it. */
static bool part_to_update(const struct chain *chain, size_t index,
                           const struct chain_update *update, struct updated_part *out)
{
    bool owns_table = index == chain->layer_count;
    const struct chain_layer *layer = &chain->layers[owns_table ? index - 1 : index];
    const struct chain_layer *table = owns_table ? &chain->layers[0] : layer;
    struct chain_split split = {.ways = update->ways};
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    if ((owns_table && !chain->model.tied_head) || !chain_admits(chain, layer->kind, split))
        return false;
    struct layer_part part = chain_part(chain, layer->kind, split);
    part.owns_table = owns_table;
    struct part_counts counts = layer_part_counts(&chain->model, &part);
    size_t spec_count = layer_tensors(&chain->model, layer->kind, tensors);
    bool decays = tensors[spec_count - 1].decays;
    *out = (struct updated_part){
        .matrices = {table->first, counts.matrices, true, update->precision},
        .vectors = {layer->first + layer->matrix_count, counts.vectors, decays, PRECISION_FP32},
    };
    return true;
}

void chain_optimize(struct chain *chain, const struct chain_update *update, int64_t *times_ns)
{
    struct device *device = chain->session->device;
    struct updated_part part;
    if (update->precision != PRECISION_FP32 && update->precision != chain->precision_16)
        round_parameters(chain, update->precision);
    for (size_t i = 0; i <= chain->layer_count; i++) {
        times_ns[i] = 0;
        if (!part_to_update(chain, i, update, &part))
            continue;
        const float *gradients = chain->gradients;
        int64_t start_ns = clock_ns();
        if (i < chain->layer_count) /* a tied table counts once */
            (void)ops_sum_squares(device, gradients + part.matrices.first, PRECISION_FP32,
                                  part.matrices.count);
        (void)ops_sum_squares(device, gradients + part.vectors.first, PRECISION_FP32,
                              part.vectors.count);
        times_ns[i] = clock_ns() - start_ns;
    }
    for (size_t i = 0; i <= chain->layer_count; i++) {
        if (!part_to_update(chain, i, update, &part))
            continue;
        int64_t start_ns = clock_ns();
        update_span(chain, &part.matrices, update->time);
        update_span(chain, &part.vectors, update->time);
        times_ns[i] += clock_ns() - start_ns;
    }
}
