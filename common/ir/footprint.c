#include "ir/footprint.h"

#include "ir/mesh.h"
#include <assert.h>
#include <stdbool.h>

enum { RING_BUFFERS = 2, PIPELINE_STREAMS = 8 };

uint64_t footprint_region_bytes(uint64_t bytes)
{
    uint64_t align = FOOTPRINT_ALIGN_BYTES;
    return (bytes + align - 1) / align * align;
}

/* ---- one layer ---- */

uint64_t footprint_saved_bytes(const struct model *model, const struct layer_part *part,
                               struct layer_precision_mode mode,
                               const struct micro_batch_shape *shape)
{
    uint64_t bytes = footprint_region_bytes(part_saved_bytes(model, part, mode, shape));
    uint64_t tokens = (uint64_t)shape->sequences * (uint64_t)shape->seq_length;
    if (part->kind != LAYER_EMBEDDING)
        bytes += footprint_region_bytes(part_boundary_bytes(model, part, shape));
    if (part->kind == LAYER_EMBEDDING || part->kind == LAYER_HEAD)
        bytes += footprint_region_bytes(tokens * sizeof(int32_t));
    return bytes;
}

uint64_t footprint_scratch_bytes(const struct plan *plan, size_t layer)
{
    struct layer_part part = mesh_part(plan, layer, 0);
    struct micro_batch_shape shape = mesh_shape(plan, layer);
    uint64_t bytes = footprint_region_bytes(
        part_scratch_bytes(&plan->model, &part, strategy_mode(&plan->layers[layer]), &shape));
    struct layer_state state;
    layer_state_of(plan, layer, &state);
    if (state.gather_bytes == 0 && state.gradient_bytes == 0)
        return bytes;

    bool is_block = part.kind == LAYER_ATTENTION || part.kind == LAYER_MLP;
    uint64_t ring_bytes = is_block ? footprint_ring_bytes(plan) : 0;
    if (state.gather_bytes > ring_bytes)
        bytes += footprint_region_bytes(state.gather_bytes);
    if (state.gradient_bytes > ring_bytes)
        bytes += footprint_region_bytes(state.gradient_bytes);
    return bytes;
}

/* ---- rings ---- */

uint64_t footprint_ring_bytes(const struct plan *plan)
{
    static const enum layer_kind kinds[] = {LAYER_ATTENTION, LAYER_MLP};
    uint64_t bytes = 0;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct layer_part part = layer_whole(kinds[i]);
        struct error ignored;
        part.ways = plan->tensor_parallel;
        /* T ranks cannot share this kind: each of its layers has a lower degree */
        if (layer_part_check(&plan->model, &part, &ignored) != STATUS_OK)
            continue;
        uint64_t count = layer_part_counts(&plan->model, &part).matrices;
        uint64_t fp32_bytes = partition_padded(count, plan->data_parallel) * sizeof(float);
        if (fp32_bytes > bytes)
            bytes = fp32_bytes;
    }
    return bytes;
}

int footprint_ring_count(const struct plan *plan)
{
    int highest = 0;
    for (size_t i = 0; i < plan->layer_count; i++)
        if (plan->layers[i].zero_stage > highest)
            highest = plan->layers[i].zero_stage;
    return highest < 2 ? 0 : highest - 1;
}

/* ---- streams ---- */

int footprint_stream_count(const struct plan *plan)
{
    if (plan->pipeline > 1)
        return PIPELINE_STREAMS;
    for (size_t i = 1; i < plan->layer_count; i++)
        if (strategy_spread(&plan->layers[i]) != strategy_spread(&plan->layers[0]))
            return 2;
    return 1;
}

uint64_t footprint_stream_bytes(const struct plan *plan)
{
    struct micro_batch_shape shape = plan_shape(plan);
    struct layer_part share = layer_whole(LAYER_MLP);
    share.ways = plan->tensor_parallel;
    share.sequence_parallel = true;
    for (size_t i = 0; i < plan->layer_count; i++)
        if (strategy_spread(&plan->layers[i]) > 1)
            share.sequence_parallel = false;
    return part_boundary_bytes(&plan->model, &share, &shape);
}

/* ---- a stage ---- */

void plan_footprint(const struct plan *plan, int stage, struct footprint *out)
{
    const struct schedule_shape schedule = plan_schedule(plan);
    uint64_t streams = (uint64_t)footprint_stream_count(plan);
    uint64_t rings = (uint64_t)footprint_ring_count(plan);
    uint64_t *terms = out->term_bytes;
    uint64_t scratch_bytes = 0;

    *out = (struct footprint){0};
    terms[MEMORY_ACTIVATIONS] = streams * footprint_region_bytes(footprint_stream_bytes(plan));
    for (size_t i = 0; i < plan->layer_count; i++) {
        if (mesh_layer_stage(plan, i) != stage)
            continue;
        struct layer_part part = mesh_part(plan, i, 0);
        struct micro_batch_shape shape = mesh_shape(plan, i);
        struct layer_state state;
        layer_state_of(plan, i, &state);
        terms[MEMORY_PARAMETERS] += layer_state_parameter_bytes(&state);
        terms[MEMORY_GRADIENTS] += layer_state_gradient_bytes(&state);
        terms[MEMORY_OPTIMIZER] += layer_state_optimizer_bytes(&state);
        int64_t in_flight = schedule_in_flight(&schedule, stage, mesh_layer_chunk(plan, i));
        terms[MEMORY_ACTIVATIONS] +=
            (uint64_t)in_flight *
            footprint_saved_bytes(&plan->model, &part, strategy_mode(&plan->layers[i]), &shape);
        uint64_t layer_scratch = footprint_scratch_bytes(plan, i);
        if (layer_scratch > scratch_bytes)
            scratch_bytes = layer_scratch;
    }
    terms[MEMORY_SCRATCH] = scratch_bytes;
    if (rings > 0)
        terms[MEMORY_SCRATCH] +=
            rings * RING_BUFFERS * footprint_region_bytes(footprint_ring_bytes(plan));
}

int plan_fullest_stage(const struct plan *plan)
{
    uint64_t most_bytes = 0;
    int fullest = 0;
    for (int stage = 0; stage < plan->pipeline; stage++) {
        struct footprint footprint;
        plan_footprint(plan, stage, &footprint);
        uint64_t bytes = footprint_total_bytes(&footprint);
        if (bytes > most_bytes) {
            most_bytes = bytes;
            fullest = stage;
        }
    }
    return fullest;
}

uint64_t footprint_total_bytes(const struct footprint *footprint)
{
    uint64_t bytes = 0;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        bytes += footprint->term_bytes[term];
    return bytes;
}
