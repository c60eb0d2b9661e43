#include "executor/weights.h"

#include "executor/ops/update.h"
#include "executor/shard_copy.h"

_Static_assert((int)ROLE_COUNT <= (int)WEIGHT_STREAMS, "a stream for each role of a layer");

/* A tied head's own table starts as the embedding's. */
static uint64_t stream_of(const struct local_layer *layer, const struct held_tensor *held)
{
    if (held->is_copy)
        return ROLE_TOKEN_EMBEDDING;
    return layer->index * WEIGHT_STREAMS + (uint64_t)held->tensor.whole.role;
}

static void initialise_tensor(const struct memory_layout *layout, const struct local_layer *layer,
                              const struct holding *holding, size_t index, uint64_t seed)
{
    const struct held_tensor *held = &holding->tensors[index];
    const struct tensor_spec *whole = &held->tensor.whole;
    struct shard_walk walk = shard_runs(holding, index, true);
    struct shard_run run;
    while (shard_run_next(&walk, &run)) {
        float *data = shard_owned_place(layer, ARRAY_PARAMETERS, whole->stays_whole, &run);
        if (whole->init == INIT_NORMAL)
            ops_fill_normal(layout->device, data, run.whole, run.count, whole->init_deviation, seed,
                            stream_of(layer, held));
        else
            ops_fill(layout->device, data, run.count, whole->init == INIT_ONE ? 1.0F : 0.0F);
    }
}

static void zero_moments(const struct memory_layout *layout, const struct local_layer *layer)
{
    const struct layer_state *state = &layer->state;
    if (layout->regions[MEMORY_OPTIMIZER].base == NULL)
        return;
    device_zero(layout->device, layer->first_moment, state->moments * sizeof(float));
    device_zero(layout->device, layer->second_moment, state->moments * sizeof(float));
    device_zero(layout->device, layer->vector_first_moment, state->vectors * sizeof(float));
    device_zero(layout->device, layer->vector_second_moment, state->vectors * sizeof(float));
}

void weights_initialise(struct memory_layout *layout, uint64_t seed)
{
    for (size_t i = 0; i < layout->layer_count; i++) {
        const struct local_layer *layer = &layout->layers[i];
        struct holding holding;
        holding_of(&layout->plan->model, layer, &holding);
        for (size_t k = 0; k < holding.tensor_count; k++)
            initialise_tensor(layout, layer, &holding, k, seed);
        zero_moments(layout, layer);
    }
}

enum status weights_publish(struct parameters *parameters, struct error *err)
{
    for (size_t i = 0; i < parameters->layout->layer_count; i++)
        TRY(parameters_publish(parameters, i, true, err));
    return parameters_publish_finish(parameters, err);
}
