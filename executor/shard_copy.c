#include "executor/shard_copy.h"

#include <string.h>

bool layout_has_moments(const struct memory_layout *layout)
{
    const struct local_layer *first = &layout->layers[0];
    return layout->layer_count > 0 && (first->first_moment || first->vector_first_moment);
}

/* Which of the layer's tensors is the one in the files. */
static bool find_held(const struct memory_layout *layout, const struct local_layer *layer,
                      const struct tensor_place *place, struct holding *holding, size_t *tensor)
{
    bool is_copy = place->role == ROLE_TOKEN_EMBEDDING && layer->part.owns_table;
    if (layer->index != place->layer && !is_copy)
        return false;
    holding_of(&layout->plan->model, layer, holding);
    return holding_find(holding, is_copy ? ROLE_HEAD_WEIGHT : place->role, tensor);
}

bool shard_is_wanted(const struct memory_layout *layout, const struct tensor_place *place)
{
    struct holding holding;
    size_t tensor;
    for (size_t i = 0; i < layout->layer_count; i++)
        if (find_held(layout, &layout->layers[i], place, &holding, &tensor))
            return true;
    return false;
}

float *shard_owned_place(const struct local_layer *layer, enum tensor_array array, bool is_vector,
                         const struct shard_run *run)
{
    if (is_vector) {
        float *const vectors[ARRAY_COUNT] = {layer->vectors, layer->vector_first_moment,
                                             layer->vector_second_moment};
        return vectors[array] + run->part;
    }
    if (array == ARRAY_FIRST_MOMENT)
        return layer->first_moment + run->shard;
    if (array == ARRAY_SECOND_MOMENT)
        return layer->second_moment + run->shard;
    return layer->whole_fp32 ? layer->whole_fp32 + run->part : layer->shard_fp32 + run->shard;
}

void shard_read(const struct memory_layout *layout, const struct local_layer *layer,
                enum tensor_array array, bool is_vector, const struct shard_run *run, float *out)
{
    device_read(layout->device, out, shard_owned_place(layer, array, is_vector, run),
                run->count * sizeof(float));
}

static void scatter_owned(const struct memory_layout *layout, const struct local_layer *layer,
                          const struct holding *holding, size_t tensor, enum tensor_array array,
                          const float *whole)
{
    bool is_vector = holding->tensors[tensor].tensor.whole.stays_whole;
    struct shard_walk walk = shard_runs(holding, tensor, true);
    struct shard_run run;
    while (shard_run_next(&walk, &run))
        device_write(layout->device, shard_owned_place(layer, array, is_vector, &run),
                     whole + run.whole, run.count * sizeof(float));
}

/* The working copy has also what other ranks own. */
static void scatter_whole(const struct memory_layout *layout, const struct local_layer *layer,
                          const struct holding *holding, size_t tensor, const float *whole)
{
    struct shard_walk walk = shard_runs(holding, tensor, false);
    struct shard_run run;
    while (shard_run_next(&walk, &run))
        device_write(layout->device, layer->whole_fp32 + run.part, whole + run.whole,
                     run.count * sizeof(float));
}

void shard_scatter(const struct memory_layout *layout, const struct tensor_place *place,
                   enum tensor_array array, const float *whole)
{
    struct holding holding;
    size_t tensor;
    for (size_t i = 0; i < layout->layer_count; i++) {
        const struct local_layer *layer = &layout->layers[i];
        if (!find_held(layout, layer, place, &holding, &tensor))
            continue;
        bool is_vector = holding.tensors[tensor].tensor.whole.stays_whole;
        if (array == ARRAY_PARAMETERS && !is_vector && layer->whole_fp32)
            scatter_whole(layout, layer, &holding, tensor, whole);
        else
            scatter_owned(layout, layer, &holding, tensor, array, whole);
    }
}
