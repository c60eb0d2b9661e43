#include "ir/footprint.h"
#include <stdbool.h>

uint64_t footprint_region_bytes(uint64_t bytes)
{
    uint64_t align = FOOTPRINT_ALIGN_BYTES;
    return (bytes + align - 1) / align * align;
}

static uint64_t flat_count(const struct model *model)
{
    uint64_t count = 0;
    for (size_t i = 0; i < model_layer_count(model); i++)
        count += layer_flat_count(model, model_layer(model, i).kind);
    return count;
}

uint64_t footprint_state_bytes(const struct model *model)
{
    return footprint_region_bytes(flat_count(model) * sizeof(float));
}

uint64_t footprint_bf16_bytes(const struct model *model)
{
    return footprint_region_bytes(flat_count(model) * precision_bytes(PRECISION_BF16));
}

uint64_t footprint_saved_bytes(const struct model *model, enum layer_kind kind,
                               struct layer_precision_mode mode,
                               const struct micro_batch_shape *shape)
{
    uint64_t bytes = footprint_region_bytes(layer_saved_bytes(model, kind, mode, shape));
    if (kind != LAYER_EMBEDDING)
        bytes += footprint_region_bytes(boundary_bytes(model, shape));
    return bytes;
}

uint64_t footprint_scratch_bytes(const struct model *model, enum layer_kind kind,
                                 struct layer_precision_mode mode,
                                 const struct micro_batch_shape *shape)
{
    return footprint_region_bytes(layer_scratch_bytes(model, kind, mode, shape));
}

uint64_t footprint_shared_bytes(const struct model *model, const struct micro_batch_shape *shape)
{
    uint64_t tokens = (uint64_t)shape->sequences * (uint64_t)shape->seq_length;
    return footprint_region_bytes(boundary_bytes(model, shape)) +
           2 * footprint_region_bytes(tokens * sizeof(int32_t));
}

void plan_footprint(const struct plan *plan, struct footprint *out)
{
    const struct model *model = &plan->model;
    const struct micro_batch_shape shape = plan_shape(plan);
    uint64_t state_bytes = footprint_state_bytes(model);
    uint64_t saved_bytes = footprint_shared_bytes(model, &shape);
    uint64_t scratch_bytes = 0;
    bool any_bf16 = false;
    for (size_t i = 0; i < plan->layer_count; i++) {
        enum layer_kind kind = model_layer(model, i).kind;
        const struct layer_precision_mode mode = {.precision = plan->layers[i].precision,
                                                  .recompute = plan->layers[i].recompute};
        uint64_t layer_scratch = footprint_scratch_bytes(model, kind, mode, &shape);
        saved_bytes += footprint_saved_bytes(model, kind, mode, &shape);
        if (layer_scratch > scratch_bytes)
            scratch_bytes = layer_scratch;
        any_bf16 = any_bf16 || mode.precision == PRECISION_BF16;
    }
    *out = (struct footprint){
        .term_bytes = {
            [MEMORY_PARAMETERS] = state_bytes + (any_bf16 ? footprint_bf16_bytes(model) : 0),
            [MEMORY_GRADIENTS] = state_bytes,
            [MEMORY_OPTIMIZER] = 2 * state_bytes,
            [MEMORY_ACTIVATIONS] = saved_bytes,
            [MEMORY_SCRATCH] = scratch_bytes,
        }};
}

uint64_t footprint_total_bytes(const struct footprint *footprint)
{
    uint64_t bytes = 0;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        bytes += footprint->term_bytes[term];
    return bytes;
}
