#include "executor/weights.h"

#include "executor/ops/update.h"

static void refresh_bf16(struct layout *layout)
{
    if (layout->parameters_bf16 != NULL)
        ops_cast_bf16(layout->device, layout->parameters, layout->parameters_bf16,
                      layout->flat_count);
}

static void initialise_tensor(struct layout *layout, const struct tensor_spec *tensor, float *data,
                              uint64_t seed, uint64_t stream)
{
    uint64_t count = tensor_count(tensor);
    if (tensor->init == INIT_NORMAL)
        ops_fill_normal(layout->device, data, count, tensor->init_deviation, seed, stream);
    else
        ops_fill(layout->device, data, count, tensor->init == INIT_ONE ? 1.0F : 0.0F);
}

void weights_initialise(struct layout *layout, const struct model *model, uint64_t seed)
{
    for (size_t l = 0; l < layout->layer_count; l++) {
        struct tensor_spec tensors[LAYER_TENSORS_MAX];
        size_t count = layer_tensors(model, model_layer(model, l).kind, tensors);
        float *data = layout->parameters + layout->layers[l].first;
        for (size_t k = 0; k < count; k++) {
            initialise_tensor(layout, &tensors[k], data, seed, l * LAYER_TENSORS_MAX + k);
            data += tensor_count(&tensors[k]);
        }
    }
    if (layout->first_moment != NULL) {
        size_t bytes = layout->flat_count * sizeof(float);
        device_zero(layout->device, layout->first_moment, bytes);
        device_zero(layout->device, layout->second_moment, bytes);
    }
    refresh_bf16(layout);
}

enum status weights_broadcast(struct layout *layout, struct comm *comm, bool moments,
                              struct error *err)
{
    size_t bytes = layout->flat_count * sizeof(float);
    TRY(comm_broadcast(comm, layout->parameters, bytes, 0, err));
    if (moments) {
        TRY(comm_broadcast(comm, layout->first_moment, bytes, 0, err));
        TRY(comm_broadcast(comm, layout->second_moment, bytes, 0, err));
    }
    refresh_bf16(layout);
    return STATUS_OK;
}
