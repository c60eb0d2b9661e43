#include "held.h"

#include "support.h"

#include "base/rng.h"
#include "executor/shards.h"
#include "ir/mesh.h"
#include "ir/state.h"

struct model held_model(const char *builtin, bool tied, int64_t vocab)
{
    const struct model_overrides overrides = {.layers = 2,
                                              .hidden = 8,
                                              .heads = 2,
                                              .kv_heads = builtin[0] == 'g' ? 2 : 1,
                                              .ffn = 12,
                                              .vocab_size = vocab > 0 ? vocab : 16,
                                              .positions = 8,
                                              .seq_length = 4};
    struct model model;
    struct error err;
    assert_ok(model_load(&model, builtin, &overrides, &err), &err);
    model.tied_head = tied;
    return model;
}

static struct plan plan_of(const struct model *model, int data, int tensor, int pipeline)
{
    struct plan plan = {
        .model = *model,
        .ranks = data * tensor * pipeline,
        .data_parallel = data,
        .tensor_parallel = tensor,
        .pipeline = pipeline,
        .virtual_stages = 1,
        .schedule = SCHEDULE_1F1B,
        .threads = 1,
        .micro_batch = tensor,
        .micro_batches = pipeline,
        .global_batch = (int64_t)data * tensor * pipeline,
        .layer_count = model_layer_count(model),
    };
    plan.layers = calloc(plan.layer_count, sizeof(*plan.layers));
    assert_non_null(plan.layers);
    for (size_t i = 0; i < plan.layer_count; i++)
        plan.layers[i].tensor_parallel = 1;
    return plan;
}

struct plan held_plan_of_one(const struct model *model)
{
    return plan_of(model, 1, 1, 1);
}

/* ---- random plans ---- */

struct dice {
    uint64_t seed, thrown;
};

static int throw(struct dice * dice, int sides)
{
    return (int)rng_below(dice->seed, 0, dice->thrown++, (uint64_t)sides);
}

/* A divisor of `number` of at most `limit`. */
static int random_divisor(struct dice *dice, int number, int limit)
{
    int divisor = 1 + throw(dice, number < limit ? number : limit);
    while (number % divisor != 0)
        divisor--;
    return divisor;
}

static void choose_strategy(struct plan *plan, size_t index, struct dice *dice)
{
    struct error ignored;
    struct layer_strategy *strategy = &plan->layers[index];
    struct layer_part part = {.kind = model_layer(&plan->model, index).kind};
    do
        part.ways = random_divisor(dice, plan->tensor_parallel, plan->tensor_parallel);
    while (layer_part_check(&plan->model, &part, &ignored) != STATUS_OK);
    strategy->tensor_parallel = part.ways;
    strategy->sequence_parallel = part.ways > 1 && throw(dice, 2) == 0;
    strategy->zero_stage = throw(dice, 4);
    do
        strategy->precision = (enum precision) throw(dice, PRECISION_COUNT);
    while (!layer_admits_precision(part.kind, strategy->precision));
}

/* Every virtual stage has a layer. */
static void choose_stages(struct plan *plan, struct dice *dice)
{
    int stages = plan->pipeline * plan->virtual_stages, stage = 0;
    for (size_t i = 1; i < plan->layer_count; i++) {
        int layers_left = (int)(plan->layer_count - i), stages_left = stages - 1 - stage;
        if (stages_left > 0 && (layers_left == stages_left || throw(dice, 2) == 0))
            stage++;
        plan->layers[i].stage = stage;
    }
}

struct plan held_plan_random(const struct model *model, int ranks, uint64_t seed)
{
    struct dice dice = {.seed = seed};
    int layers = (int)model_layer_count(model);
    int pipeline = random_divisor(&dice, ranks, layers);
    int tensor = random_divisor(&dice, ranks / pipeline, ranks);
    struct plan plan = plan_of(model, ranks / pipeline / tensor, tensor, pipeline);
    if (pipeline > 1 && 2 * pipeline <= layers && throw(&dice, 2) == 0) {
        plan.virtual_stages = 2;
        plan.schedule = SCHEDULE_INTERLEAVED;
    }
    choose_stages(&plan, &dice);
    for (size_t i = 0; i < plan.layer_count; i++)
        choose_strategy(&plan, i, &dice);
    return plan;
}

/* ---- layouts ---- */

static float *zeros(uint64_t count)
{
    float *data = count > 0 ? calloc(count, sizeof(*data)) : NULL;
    assert_true(data || count == 0);
    return data;
}

static void open_layer(struct local_layer *layer, const struct plan *plan, size_t index, int place,
                       bool with_moments)
{
    *layer = (struct local_layer){.index = index,
                                  .part = mesh_part(plan, index, place),
                                  .strategy = plan->layers[index],
                                  .data_index = mesh_data_index(plan, index, place)};
    layer_state_of(plan, index, &layer->state);
    layer->whole_fp32 = zeros(layer->state.whole_fp32);
    layer->shard_fp32 = zeros(layer->state.shard_fp32);
    layer->vectors = zeros(layer->state.vectors);
    if (!with_moments)
        return;
    layer->first_moment = zeros(layer->state.moments);
    layer->second_moment = zeros(layer->state.moments);
    layer->vector_first_moment = zeros(layer->state.vectors);
    layer->vector_second_moment = zeros(layer->state.vectors);
}

void held_open(struct memory_layout *out, struct device *device, const struct plan *plan, int rank,
               bool with_moments)
{
    *out = (struct memory_layout){.device = device,
                                  .plan = plan,
                                  .rank = rank,
                                  .stage = mesh_stage_of(plan, rank),
                                  .place = mesh_place_of(plan, rank)};
    out->layers = calloc(plan->layer_count, sizeof(*out->layers));
    assert_non_null(out->layers);
    for (size_t i = 0; i < plan->layer_count; i++)
        if (mesh_layer_stage(plan, i) == out->stage)
            open_layer(&out->layers[out->layer_count++], plan, i, out->place, with_moments);
}

void held_close(struct memory_layout *layout)
{
    for (size_t i = 0; i < layout->layer_count; i++) {
        struct local_layer *layer = &layout->layers[i];
        free(layer->whole_fp32);
        free(layer->shard_fp32);
        free(layer->vectors);
        free(layer->first_moment);
        free(layer->second_moment);
        free(layer->vector_first_moment);
        free(layer->vector_second_moment);
    }
    free(layout->layers);
}

float held_value(const struct tensor_place *place, enum tensor_array array, int64_t step,
                 uint64_t index)
{
    uint64_t stream = ((uint64_t)step * 1000 + place->layer) * ROLE_COUNT + (uint64_t)place->role;
    return (float)rng_normal((uint64_t)array + 7, stream, index);
}

void held_fill(struct memory_layout *layout, int64_t step)
{
    struct tensor_place *places;
    size_t count;
    struct error err;
    assert_ok(tensor_places(&layout->plan->model, &places, &count, &err), &err);
    int arrays = layout_has_moments(layout) ? ARRAY_COUNT : 1;
    for (size_t i = 0; i < count; i++) {
        if (!shard_is_wanted(layout, &places[i]))
            continue;
        float *whole = zeros(places[i].count);
        for (int array = 0; array < arrays; array++) {
            for (uint64_t k = 0; k < places[i].count; k++)
                whole[k] = held_value(&places[i], (enum tensor_array)array, step, k);
            shard_scatter(layout, &places[i], (enum tensor_array)array, whole);
        }
        free(whole);
    }
    free(places);
}

static void assert_same_array(const float *a, const float *b, uint64_t count)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a)
        assert_memory_equal(a, b, count * sizeof(*a));
}

void held_assert_same(const struct memory_layout *a, const struct memory_layout *b)
{
    assert_int_equal(a->layer_count, b->layer_count);
    for (size_t i = 0; i < a->layer_count; i++) {
        const struct local_layer *left = &a->layers[i], *right = &b->layers[i];
        const struct layer_state *state = &left->state;
        assert_same_array(left->whole_fp32, right->whole_fp32, state->whole_fp32);
        assert_same_array(left->shard_fp32, right->shard_fp32, state->shard_fp32);
        assert_same_array(left->vectors, right->vectors, state->vectors);
        assert_same_array(left->first_moment, right->first_moment, state->moments);
        assert_same_array(left->second_moment, right->second_moment, state->moments);
        assert_same_array(left->vector_first_moment, right->vector_first_moment, state->vectors);
        assert_same_array(left->vector_second_moment, right->vector_second_moment, state->vectors);
    }
}
