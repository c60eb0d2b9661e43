#include "executor/layout.h"

#include "ir/footprint.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Hands out pieces of one region from its start, each on a BUFFER_ALIGN_BYTES boundary. */
struct carver {
    struct region region;
    uint64_t used_bytes;
};

static void *carve(struct carver *carver, uint64_t bytes)
{
    void *piece = carver->region.base + carver->used_bytes;
    uint64_t rounded = (bytes + BUFFER_ALIGN_BYTES - 1) / BUFFER_ALIGN_BYTES * BUFFER_ALIGN_BYTES;
    carver->used_bytes += rounded;
    assert(carver->used_bytes <= carver->region.bytes); /* the footprint and the layout agree */
    return bytes == 0 ? NULL : piece;
}

static enum status allocate_regions(struct layout *layout, const struct footprint *footprint,
                                    bool training, struct error *err)
{
    for (size_t term = 0; term < MEMORY_TERM_COUNT; term++) {
        bool wanted = training || (term != MEMORY_GRADIENTS && term != MEMORY_OPTIMIZER);
        uint64_t bytes = footprint->term_bytes[term];
        if (term == MEMORY_PROCESS || !wanted || bytes == 0)
            continue;
        void *base = NULL;
        enum status status = device_allocate(layout->device, bytes, &base, err);
        if (status != STATUS_OK)
            return error_prefix(err, "laying out %s", memory_term_name((enum memory_term)term));
        layout->regions[term] = (struct region){.base = base, .bytes = bytes};
        layout->bytes += bytes;
    }
    return STATUS_OK;
}

static void place_parameters(struct layout *layout, const struct plan *plan, bool training)
{
    bool any_bf16 = false;
    for (size_t i = 0; i < layout->layer_count; i++) {
        struct layer_place *place = &layout->layers[i];
        place->first = layout->flat_count;
        place->count = layer_flat_count(&plan->model, model_layer(&plan->model, i).kind);
        layout->flat_count += place->count;
        any_bf16 |= plan->layers[i].precision == PRECISION_BF16;
    }
    uint64_t flat_bytes = layout->flat_count * sizeof(float);
    struct carver parameters = {.region = layout->regions[MEMORY_PARAMETERS]};
    layout->parameters = carve(&parameters, flat_bytes);
    if (any_bf16)
        layout->parameters_bf16 = carve(&parameters, layout->flat_count * sizeof(uint16_t));
    if (!training)
        return;
    struct carver gradients = {.region = layout->regions[MEMORY_GRADIENTS]};
    layout->gradients = carve(&gradients, flat_bytes);
    struct carver moments = {.region = layout->regions[MEMORY_OPTIMIZER]};
    layout->first_moment = carve(&moments, flat_bytes);
    layout->second_moment = carve(&moments, flat_bytes);
}

static void place_activations(struct layout *layout, const struct plan *plan)
{
    struct micro_batch_shape shape = plan_shape(plan);
    uint64_t token_bytes = (uint64_t)(shape.sequences * shape.seq_length) * sizeof(int32_t);
    struct carver kept = {.region = layout->regions[MEMORY_ACTIVATIONS]};
    layout->gradient = carve(&kept, boundary_bytes(&plan->model, &shape));
    layout->tokens = carve(&kept, token_bytes);
    layout->targets = carve(&kept, token_bytes);
    for (size_t i = 0; i < layout->layer_count; i++) {
        struct layer_place *place = &layout->layers[i];
        struct carver scratch = {.region = layout->regions[MEMORY_SCRATCH]};
        struct layer_precision_mode mode = {plan->layers[i].precision, plan->layers[i].recompute};
        struct buffer_spec buffers[LAYER_BUFFERS_MAX];
        size_t count =
            layer_buffers(&plan->model, model_layer(&plan->model, i).kind, mode, &shape, buffers);
        if (i > 0)
            place->input = carve(&kept, boundary_bytes(&plan->model, &shape));
        for (size_t k = 0; k < count; k++)
            place->slots[buffers[k].slot] =
                carve(buffers[k].life == BUFFER_SAVED ? &kept : &scratch, buffers[k].bytes);
    }
}

enum status layout_open(struct layout *out, struct device *device, const struct plan *plan,
                        bool training, struct error *err)
{
    struct layout layout = {.device = device, .layer_count = plan->layer_count};
    layout.layers = calloc(plan->layer_count, sizeof *layout.layers);
    if (layout.layers == NULL)
        return error_memory(err, plan->layer_count * sizeof *layout.layers, "the memory layout");
    struct footprint footprint;
    plan_footprint(plan, &footprint);
    enum status status = allocate_regions(&layout, &footprint, training, err);
    if (status != STATUS_OK) {
        layout_close(&layout);
        return status;
    }
    place_parameters(&layout, plan, training);
    place_activations(&layout, plan);
    *out = layout;
    return STATUS_OK;
}

void layout_close(struct layout *layout)
{
    for (size_t term = 0; term < MEMORY_TERM_COUNT; term++)
        device_free(layout->device, layout->regions[term].base, layout->regions[term].bytes);
    free(layout->layers);
    memset(layout, 0, sizeof *layout);
}
