#include "every_plan.h"
#include "costmodel/predict.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void keep(struct every_plan *all, const struct profile *profile, const struct plan *plan)
{
    struct prediction prediction = {0};
    struct error err;
    if (predict_plan(profile, plan, &prediction, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    if (all->count == all->capacity) {
        all->capacity = all->capacity ? 2 * all->capacity : 256;
        all->items = realloc(all->items, all->capacity * sizeof(*all->items));
        assert_non_null(all->items);
    }
    struct listed_plan *item = &all->items[all->count++];
    *item = (struct listed_plan){
        .time_s = prediction.time_s.value,
        .energy_j = prediction.energy_j.value,
        .memory_bytes = memory_quantile_bytes(prediction.memory_bytes),
        .memory = prediction.memory_bytes,
        .ranks = plan->ranks,
        .threads = plan->threads,
        .micro_batch = plan->micro_batch,
    };
    assert_int_equal(plan->layer_count, EVERY_PLAN_LAYERS);
    for (size_t i = 0; i < plan->layer_count; i++) {
        item->recomputed[model_layer(&plan->model, i).kind][plan->layers[i].recompute]++;
        item->recompute[i] = plan->layers[i].recompute;
    }
    prediction_clear(&prediction);
}

static void try_layers(struct every_plan *all, const struct profile *profile, struct plan *plan,
                       size_t layer)
{
    if (layer == plan->layer_count) {
        keep(all, profile, plan);
        return;
    }
    for (int r = 0; r < RECOMPUTE_COUNT; r++) {
        if (!layer_admits_recompute(model_layer(&plan->model, layer).kind, (enum recompute)r))
            continue;
        plan->layers[layer].recompute = (enum recompute)r;
        try_layers(all, profile, plan, layer + 1);
    }
}

static void list_all(struct small_world *world, const struct profile_options *options)
{
    enum { LAYERS_MAX = 8 };
    struct layer_strategy layers[LAYERS_MAX];
    for (size_t i = 0; i < options->placement_count; i++) {
        int ranks = options->placements[i].ranks;
        struct plan plan = {.model = world->model,
                            .ranks = ranks,
                            .data_parallel = ranks,
                            .tensor_parallel = 1,
                            .pipeline = 1,
                            .virtual_stages = 1,
                            .schedule = SCHEDULE_1F1B,
                            .threads = options->placements[i].threads,
                            .global_batch = world->request.global_batch,
                            .layers = layers,
                            .layer_count = model_layer_count(&world->model)};
        assert_true(plan.layer_count <= LAYERS_MAX);
        memset(layers, 0, sizeof(layers));
        for (size_t l = 0; l < plan.layer_count; l++)
            layers[l].tensor_parallel = 1;
        for (int64_t b = 1; b <= plan.global_batch / ranks; b++) {
            if (plan.global_batch / ranks % b != 0)
                continue;
            plan.micro_batch = b;
            plan.micro_batches = plan.global_batch / ranks / b;
            try_layers(&world->all, world->profile, &plan, 0);
        }
    }
}

void open_small_world(struct small_world *world, uint64_t seed)
{
    struct dice dice = {.seed = seed};
    struct error err;
    const struct profile_options options = {.placements = {{1, 1}, {1, 2}, {2, 1}},
                                            .placement_count = 3,
                                            .micro_batches = {1, 2, 4},
                                            .micro_batch_count = 3,
                                            .energy = true};
    *world = (struct small_world){.model = tiny_model(2, true)};
    world->profile = random_profile(&dice, &world->model, &options);
    world->request = (struct planner_request){.model = &world->model,
                                              .profile = world->profile,
                                              .ranks = 2,
                                              .global_batch = 8,
                                              .weight_time = 1,
                                              .pins_text = EVERY_PLAN_PINS};
    if (pins_parse(&world->request.pins, EVERY_PLAN_PINS, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    list_all(world, &options);
}

void close_small_world(struct small_world *world)
{
    free(world->all.items);
    profile_close(world->profile);
}
