#include "ir/mesh.h"

#include <assert.h>

int mesh_stage_ranks(const struct plan *plan)
{
    return plan->data_parallel * plan->tensor_parallel;
}

int mesh_stage_of(const struct plan *plan, int rank)
{
    return rank / mesh_stage_ranks(plan);
}

int mesh_place_of(const struct plan *plan, int rank)
{
    return rank % mesh_stage_ranks(plan);
}

int mesh_replica_of(const struct plan *plan, int rank)
{
    return mesh_place_of(plan, rank) / plan->tensor_parallel;
}

int mesh_rank_at(const struct plan *plan, int stage, int place)
{
    return stage * mesh_stage_ranks(plan) + place;
}

int mesh_layer_stage(const struct plan *plan, size_t layer)
{
    return plan->layers[layer].stage % plan->pipeline;
}

int mesh_layer_chunk(const struct plan *plan, size_t layer)
{
    return plan->layers[layer].stage / plan->pipeline;
}

void mesh_chunk_layers(const struct plan *plan, int stage, int chunk, size_t *first, size_t *end)
{
    int virtual_stage = chunk * plan->pipeline + stage;
    size_t at = 0;
    while (at < plan->layer_count && plan->layers[at].stage < virtual_stage)
        at++;
    *first = at;
    while (at < plan->layer_count && plan->layers[at].stage == virtual_stage)
        at++;
    *end = at;
}

struct layer_part mesh_part(const struct plan *plan, size_t layer, int place)
{
    assert(layer < plan->layer_count);
    const struct layer_strategy *strategy = &plan->layers[layer];
    enum layer_kind kind = model_layer(&plan->model, layer).kind;
    return (struct layer_part){
        .kind = kind,
        .ways = strategy->tensor_parallel,
        .index = place % strategy->tensor_parallel,
        .sequence_parallel = strategy->sequence_parallel,
        .owns_table = kind == LAYER_HEAD && plan->model.tied_head && plan->pipeline > 1,
    };
}

int mesh_data_ways(const struct plan *plan, size_t layer)
{
    return mesh_stage_ranks(plan) / plan->layers[layer].tensor_parallel;
}

int mesh_data_index(const struct plan *plan, size_t layer, int place)
{
    return place / plan->layers[layer].tensor_parallel;
}

struct micro_batch_shape mesh_shape(const struct plan *plan, size_t layer)
{
    struct micro_batch_shape shape = plan_shape(plan);
    shape.sequences = shape.sequences * plan->layers[layer].tensor_parallel / plan->tensor_parallel;
    return shape;
}
