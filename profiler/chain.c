#include "profiler/chain.h"
#include "base/clock.h"
#include "base/rng.h"
#include "executor/ops/update.h"
#include "profiler/cache.h"
#include <stdlib.h>

/* Backward without a head starts from normal values of the order of a loss gradient's: constant or
 * vanishing ones would make denormal numbers, which are slow. */
enum { SEED_PATTERN_COUNT = 1 << 16, PARAMETER_SEED = 1, TOKEN_STREAM = 1000, PATTERN_STREAM };
#define SEED_DEVIATION 1e-4
/* Parameters and gradients of the blocks are to exceed the last-level cache this often. */
#define CACHE_FACTOR             2
#define BLOCKS_MINIMUM           2  /* so that one pass has two samples of a kind */
#define STATIC_BYTES_PER_ELEMENT 16 /* parameter, gradient, two moments in fp32 */

/* ---- static arrays ---- */

static uint64_t flat_count_of(const struct model *model)
{
    uint64_t count = 0;
    for (size_t i = 0; i < model_layer_count(model); i++)
        count += layer_flat_count(model, model_layer(model, i).kind);
    return count;
}

static uint64_t static_bytes_of(const struct model *model, bool with_bf16)
{
    return flat_count_of(model) * (STATIC_BYTES_PER_ELEMENT + (with_bf16 ? 2U : 0U));
}

static int64_t choose_blocks(const struct model *model, bool with_bf16, uint64_t limit_bytes)
{
    uint64_t block_bytes =
        (layer_flat_count(model, LAYER_ATTENTION) + layer_flat_count(model, LAYER_MLP)) * 2 *
        sizeof(float);
    uint64_t wanted = CACHE_FACTOR * cache_last_level_bytes() / block_bytes + 1;
    struct model cut = *model;
    wanted = wanted < BLOCKS_MINIMUM ? BLOCKS_MINIMUM : wanted;
    if (wanted < (uint64_t)model->blocks)
        cut.blocks = (int64_t)wanted;
    while (cut.blocks > 1 && static_bytes_of(&cut, with_bf16) > limit_bytes)
        cut.blocks--;
    return cut.blocks;
}

static enum status allocate_static(struct chain *chain, bool with_bf16, struct error *err)
{
    size_t bytes = chain->flat_count * sizeof(float);
    float **arrays[] = {&chain->parameters, &chain->gradients, &chain->first_moment,
                        &chain->second_moment};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++) {
        void *data = NULL;
        TRY(session_allocate(chain->session, bytes, &data, err));
        *arrays[i] = data;
    }
    if (with_bf16) {
        void *data = NULL;
        TRY(session_allocate(chain->session, chain->flat_count * sizeof(uint16_t), &data, err));
        chain->parameters_bf16 = data;
    }
    return STATUS_OK;
}

static void initialise_layer(struct chain *chain, size_t index)
{
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    size_t count = layer_tensors(&chain->model, chain->layers[index].kind, tensors);
    float *data = chain->parameters + chain->layers[index].first;
    for (size_t i = 0; i < count; i++) {
        uint64_t elements = tensor_count(&tensors[i]);
        if (tensors[i].init == INIT_NORMAL)
            ops_fill_normal(chain->session->device, data, elements, tensors[i].init_deviation,
                            PARAMETER_SEED, index * LAYER_TENSORS_MAX + i);
        else
            ops_fill(chain->session->device, data, elements,
                     tensors[i].init == INIT_ONE ? 1.0F : 0.0F);
        data += elements;
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
        layer->count = layer_flat_count(&chain->model, layer->kind);
        first += layer->count;
    }
    chain->flat_count = first;
    return STATUS_OK;
}

enum status chain_open(struct chain *out, struct session *session, bool with_bf16,
                       uint64_t limit_bytes, struct error *err)
{
    *out = (struct chain){.session = session, .model = *session->request->model};
    out->model.blocks = choose_blocks(&out->model, with_bf16, limit_bytes);
    /* Hosts may have unlike caches, but all ranks work on the same chain. */
    TRY(comm_broadcast(session->comm, &out->model.blocks, sizeof(out->model.blocks), 0, err));
    out->layer_count = model_layer_count(&out->model);
    enum status status = make_host_parts(out, err);
    if (status == STATUS_OK)
        status = allocate_static(out, with_bf16, err);
    if (status != STATUS_OK) {
        chain_close(out);
        return status;
    }
    for (size_t i = 0; i < out->layer_count; i++)
        initialise_layer(out, i);
    if (with_bf16)
        ops_cast_bf16(session->device, out->parameters, out->parameters_bf16, out->flat_count);
    return STATUS_OK;
}

void chain_close(struct chain *chain)
{
    if (!chain->session)
        return;
    size_t bytes = chain->flat_count * sizeof(float);
    session_free(chain->session, chain->arena, chain->arena_bytes);
    session_free(chain->session, chain->parameters_bf16, chain->flat_count * sizeof(uint16_t));
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
    return static_bytes_of(&chain->model, chain->parameters_bf16 != NULL);
}

/* ---- activations ---- */

struct layer_precision_mode chain_mode(enum layer_kind kind, struct chain_setting setting)
{
    return (struct layer_precision_mode){
        .precision =
            layer_admits_precision(kind, setting.precision) ? setting.precision : PRECISION_FP32,
        .recompute =
            layer_admits_recompute(kind, setting.recompute) ? setting.recompute : RECOMPUTE_NONE,
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

static size_t layers_bound(const struct chain *chain, struct chain_setting setting)
{
    return setting.with_head ? chain->layer_count : chain->layer_count - 1;
}

/* A layer's buffers of one life; their places go to `slots` unless it is NULL. */
static void carve_slots(struct carver *carver, const struct chain *chain, size_t index,
                        struct chain_setting setting, enum buffer_life life, void **slots)
{
    struct micro_batch_shape shape = shape_of(chain, setting);
    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    enum layer_kind kind = chain->layers[index].kind;
    size_t count = layer_buffers(&chain->model, kind, chain_mode(kind, setting), &shape, buffers);
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
    uint64_t scratch_bytes = 0;
    (void)carve(&kept, boundary_bytes(&chain->model, &shape));
    (void)carve(&kept, (uint64_t)(shape.sequences * shape.seq_length) * sizeof(int32_t));
    (void)carve(&kept, (uint64_t)(shape.sequences * shape.seq_length) * sizeof(int32_t));
    for (size_t i = 0; i < layers_bound(chain, setting); i++) {
        struct carver scratch = {.base = NULL};
        if (chain->layers[i].kind != LAYER_HEAD)
            (void)carve(&kept, boundary_bytes(&chain->model, &shape));
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

static enum status write_tokens(struct chain *chain, int32_t *tokens, int32_t *targets,
                                struct error *err)
{
    size_t count = (size_t)chain->tokens;
    int32_t *drawn = calloc(count + 1, sizeof(drawn[0]));
    if (!drawn)
        return error_memory(err, (count + 1) * sizeof(drawn[0]), "tokens");
    uint64_t stream = TOKEN_STREAM + (uint64_t)comm_rank(chain->session->comm);
    for (size_t i = 0; i <= count; i++)
        drawn[i] = (int32_t)rng_below(PARAMETER_SEED + 1, stream, i, (uint64_t)chain->model.vocab);
    device_write(chain->session->device, tokens, drawn, count * sizeof(drawn[0]));
    device_write(chain->session->device, targets, drawn + 1, count * sizeof(drawn[0]));
    free(drawn);
    return STATUS_OK;
}

static struct layer_call call_of(const struct chain *chain, size_t index,
                                 struct chain_setting setting)
{
    const struct chain_layer *layer = &chain->layers[index];
    struct layer_call call = {
        .model = &chain->model,
        .kind = layer->kind,
        .mode = chain_mode(layer->kind, setting),
        .shape = shape_of(chain, setting),
        .parameters = chain->parameters + layer->first,
        .gradients = chain->gradients + layer->first,
        .loss_scale = 1.0F / (float)(chain->tokens * (int64_t)comm_size(chain->session->comm)),
        .gradient = chain->gradient,
    };
    bool is_bf16 = call.mode.precision == PRECISION_BF16;
    if (is_bf16)
        call.parameters_bf16 = chain->parameters_bf16 + layer->first;
    if (chain->model.tied_head) {
        call.tied_parameters = chain->parameters;
        call.tied_gradients = chain->gradients;
        call.tied_parameters_bf16 = is_bf16 ? chain->parameters_bf16 : NULL;
    }
    return call;
}

enum status chain_bind(struct chain *chain, struct chain_setting setting, struct error *err)
{
    struct micro_batch_shape shape = shape_of(chain, setting);
    struct carver kept = {.base = chain->arena};
    chain->tokens = shape.sequences * shape.seq_length;
    chain->bound_count = layers_bound(chain, setting);
    uint64_t boundary = boundary_bytes(&chain->model, &shape);
    uint64_t token_bytes = (uint64_t)chain->tokens * sizeof(int32_t);
    chain->gradient = carve(&kept, boundary);
    int32_t *tokens = carve(&kept, token_bytes);
    int32_t *targets = carve(&kept, token_bytes);
    float *input = NULL;
    for (size_t i = 0; i < chain->bound_count; i++) {
        struct layer_call *call = &chain->layers[i].call;
        *call = call_of(chain, i, setting);
        call->tokens = tokens;
        call->targets = targets;
        call->input = input;
        call->output = call->kind == LAYER_HEAD ? NULL : carve(&kept, boundary);
        input = call->output;
        carve_slots(&kept, chain, i, setting, BUFFER_SAVED, call->slots);
    }
    for (size_t i = 0; i < chain->bound_count; i++) {
        struct carver scratch = {.base = chain->arena, .used_bytes = kept.used_bytes};
        carve_slots(&scratch, chain, i, setting, BUFFER_SCRATCH, chain->layers[i].call.slots);
    }
    return write_tokens(chain, tokens, targets, err);
}

/* ---- passes ---- */

enum status chain_forward(struct chain *chain, int64_t *times_ns, struct error *err)
{
    for (size_t i = 0; i < chain->bound_count; i++) {
        const struct chain_layer *layer = &chain->layers[i];
        double loss_sum = 0;
        int64_t start_ns = clock_ns();
        TRY(layer_forward(chain->session->device, &layer->call,
                          layer->kind == LAYER_HEAD ? &loss_sum : NULL, err));
        times_ns[i] = clock_ns() - start_ns;
    }
    return STATUS_OK;
}

static void seed_gradient(struct chain *chain)
{
    size_t count = (size_t)(chain->tokens * chain->model.hidden);
    for (size_t at = 0; at < count; at += SEED_PATTERN_COUNT) {
        size_t piece = count - at < SEED_PATTERN_COUNT ? count - at : SEED_PATTERN_COUNT;
        device_write(chain->session->device, chain->gradient + at, chain->seed_pattern,
                     piece * sizeof(float));
    }
}

enum status chain_backward(struct chain *chain, bool accumulate, const struct chain_hook *hook,
                           int64_t *times_ns, struct error *err)
{
    if (chain->bound_count < chain->layer_count)
        seed_gradient(chain);
    for (size_t i = chain->bound_count; i-- > 0;) {
        struct layer_call *call = &chain->layers[i].call;
        call->accumulate = accumulate;
        int64_t start_ns = clock_ns();
        TRY(layer_backward(chain->session->device, call, err));
        times_ns[i] = clock_ns() - start_ns;
        if (hook)
            TRY(hook->layer_done(hook->user, i, err));
    }
    return STATUS_OK;
}

/* ---- optimizer ---- */

struct span {
    uint64_t first, count;
    bool decays;
};

static void update_span(struct chain *chain, const struct span *span, bool with_bf16, int64_t time)
{
    if (span->count == 0)
        return;
    struct adamw_call call = {
        .parameters = chain->parameters + span->first,
        .gradients = chain->gradients + span->first,
        .first_moment = chain->first_moment + span->first,
        .second_moment = chain->second_moment + span->first,
        .parameters_bf16 = with_bf16 ? chain->parameters_bf16 + span->first : NULL,
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

/* Neighbouring tensors that decay alike are updated as one span. */
static void update_layer(struct chain *chain, size_t index, bool with_bf16, int64_t time)
{
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    size_t count = layer_tensors(&chain->model, chain->layers[index].kind, tensors);
    struct span span = {.first = chain->layers[index].first, .decays = tensors[0].decays};
    for (size_t i = 0; i < count; i++) {
        if (tensors[i].decays != span.decays) {
            update_span(chain, &span, with_bf16, time);
            span = (struct span){.first = span.first + span.count, .decays = tensors[i].decays};
        }
        span.count += tensor_count(&tensors[i]);
    }
    update_span(chain, &span, with_bf16, time);
}

void chain_optimize(struct chain *chain, bool with_bf16, int64_t time, int64_t *times_ns)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        const struct chain_layer *layer = &chain->layers[i];
        int64_t start_ns = clock_ns();
        (void)ops_sum_squares(chain->session->device, chain->gradients + layer->first,
                              layer->count);
        times_ns[i] = clock_ns() - start_ns;
    }
    for (size_t i = 0; i < chain->layer_count; i++) {
        int64_t start_ns = clock_ns();
        update_layer(chain, i, with_bf16, time);
        times_ns[i] += clock_ns() - start_ns;
    }
}
