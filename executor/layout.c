#include "executor/layout.h"

#include "ir/footprint.h"
#include "ir/mesh.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Hands out pieces of one region from its start, each rounded up as the footprint rounds it. */
struct carver {
    struct region region;
    uint64_t used_bytes;
};

static void *carve(struct carver *carver, uint64_t bytes)
{
    void *piece = carver->region.base + carver->used_bytes;
    carver->used_bytes += footprint_region_bytes(bytes);
    assert(carver->used_bytes <= carver->region.bytes); /* the footprint and the layout agree */
    return bytes == 0 ? NULL : piece;
}

static enum status allocate_regions(struct memory_layout *layout, const struct footprint *footprint,
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

/* ---- what stays between steps ---- */

static void place_parameters(struct memory_layout *layout)
{
    struct carver at = {.region = layout->regions[MEMORY_PARAMETERS]};
    for (size_t i = 0; i < layout->layer_count; i++) {
        struct local_layer *layer = &layout->layers[i];
        const struct layer_state *state = &layer->state;
        layer->whole_fp32 = carve(&at, state->whole_fp32 * sizeof(float));
        layer->whole_16 = carve(&at, state->whole_16 * sizeof(uint16_t));
        layer->shard_fp32 = carve(&at, state->shard_fp32 * sizeof(float));
        layer->shard_16 = carve(&at, state->shard_16 * sizeof(uint16_t));
        layer->table_16 = carve(&at, state->table_16 * sizeof(uint16_t));
        layer->vectors = carve(&at, state->vectors * sizeof(float));
    }
    assert(at.used_bytes == at.region.bytes);
}

static void place_training_state(struct memory_layout *layout)
{
    struct carver gradients = {.region = layout->regions[MEMORY_GRADIENTS]};
    struct carver moments = {.region = layout->regions[MEMORY_OPTIMIZER]};
    for (size_t i = 0; i < layout->layer_count; i++) {
        struct local_layer *layer = &layout->layers[i];
        uint64_t vector_bytes = layer->state.vectors * sizeof(float);
        uint64_t moment_bytes = layer->state.moments * sizeof(float);
        layer->gradients = carve(&gradients, layer->state.gradients *
                                                 precision_bytes(layer->state.gradient_precision));
        layer->vector_gradients = carve(&gradients, vector_bytes);
        layer->first_moment = carve(&moments, moment_bytes);
        layer->second_moment = carve(&moments, moment_bytes);
        layer->vector_first_moment = carve(&moments, vector_bytes);
        layer->vector_second_moment = carve(&moments, vector_bytes);
    }
    assert(gradients.used_bytes == gradients.region.bytes);
    assert(moments.used_bytes == moments.region.bytes);
}

/* ---- activations ---- */

static enum status place_flights(struct memory_layout *layout, struct local_layer *layer,
                                 struct carver *kept, struct error *err)
{
    const struct plan *plan = layout->plan;
    struct layer_precision_mode mode = strategy_mode(&layer->strategy);
    struct schedule_shape schedule = plan_schedule(plan);
    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    size_t count = layer_part_buffers(&plan->model, &layer->part, mode, &layer->shape, buffers);
    uint64_t token_bytes =
        (uint64_t)(layer->shape.sequences * layer->shape.seq_length) * sizeof(int32_t);
    layer->flight_count = schedule_in_flight(&schedule, layout->stage, layer->chunk);
    layer->flight_bytes = footprint_saved_bytes(&plan->model, &layer->part, mode, &layer->shape);
    layer->flights = calloc((size_t)layer->flight_count, sizeof *layer->flights);
    if (layer->flights == NULL)
        return error_memory(err, (size_t)layer->flight_count * sizeof *layer->flights,
                            "the memory layout");
    for (int64_t k = 0; k < layer->flight_count; k++) {
        struct flight *flight = &layer->flights[k];
        uint64_t start_bytes = kept->used_bytes, saved_bytes = 0;
        for (size_t i = 0; i < count; i++)
            if (buffers[i].life == BUFFER_SAVED)
                saved_bytes += buffers[i].bytes;
        char *saved = carve(kept, saved_bytes);
        for (size_t i = 0; i < count; i++) {
            if (buffers[i].life != BUFFER_SAVED)
                continue;
            flight->slots[buffers[i].slot] = saved;
            saved += buffers[i].bytes;
        }
        if (layer->part.kind != LAYER_EMBEDDING)
            flight->input =
                carve(kept, part_boundary_bytes(&plan->model, &layer->part, &layer->shape));
        if (layer->part.kind == LAYER_EMBEDDING)
            flight->tokens = carve(kept, token_bytes);
        if (layer->part.kind == LAYER_HEAD)
            flight->targets = carve(kept, token_bytes);
        assert(kept->used_bytes - start_bytes == layer->flight_bytes);
        (void)start_bytes;
    }
    return STATUS_OK;
}

/* Scratch starts at the region's first byte for every layer; what transient state does not fit the
 * rings stands behind it. */
static void place_scratch(struct memory_layout *layout, struct local_layer *layer, bool training)
{
    const struct plan *plan = layout->plan;
    struct layer_precision_mode mode = strategy_mode(&layer->strategy);
    struct carver scratch = {.region = layout->regions[MEMORY_SCRATCH]};
    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    size_t count = layer_part_buffers(&plan->model, &layer->part, mode, &layer->shape, buffers);
    uint64_t ring_bytes = footprint_ring_bytes(plan), scratch_bytes = 0;
    bool is_block = layer->part.kind == LAYER_ATTENTION || layer->part.kind == LAYER_MLP;
    for (size_t i = 0; i < count; i++) {
        if (buffers[i].life != BUFFER_SCRATCH)
            continue;
        for (int64_t k = 0; k < layer->flight_count; k++)
            layer->flights[k].slots[buffers[i].slot] = scratch.region.base + scratch_bytes;
        scratch_bytes += buffers[i].bytes;
    }
    (void)carve(&scratch, scratch_bytes);
    if (!is_block || layer->state.gather_bytes > ring_bytes)
        layer->own_parameters = carve(&scratch, layer->state.gather_bytes);
    if (training && (!is_block || layer->state.gradient_bytes > ring_bytes))
        layer->own_gradient = carve(&scratch, layer->state.gradient_bytes);
}

/* The rings take the end of the scratch region. */
static void place_rings(struct memory_layout *layout)
{
    struct ring *rings[] = {&layout->gradient_ring, &layout->parameter_ring};
    uint64_t bytes = footprint_ring_bytes(layout->plan);
    int count = footprint_ring_count(layout->plan);
    char *end = layout->regions[MEMORY_SCRATCH].base + layout->regions[MEMORY_SCRATCH].bytes;
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < 2; k++) {
            end -= footprint_region_bytes(bytes);
            rings[i]->buffers[k] = end;
        }
        rings[i]->bytes = bytes;
    }
}

static enum status place_activations(struct memory_layout *layout, bool training, struct error *err)
{
    struct carver kept = {.region = layout->regions[MEMORY_ACTIVATIONS]};
    layout->stream_count = footprint_stream_count(layout->plan);
    assert(layout->stream_count <= LAYOUT_STREAMS_MAX);
    for (int i = 0; i < layout->stream_count; i++)
        layout->streams[i] = carve(&kept, footprint_stream_bytes(layout->plan));
    for (size_t i = 0; i < layout->layer_count; i++) {
        TRY(place_flights(layout, &layout->layers[i], &kept, err));
        place_scratch(layout, &layout->layers[i], training);
    }
    assert(kept.used_bytes == kept.region.bytes);
    place_rings(layout);
    return STATUS_OK;
}

/* ---- the whole ---- */

static void describe_layer(const struct memory_layout *layout, size_t index,
                           struct local_layer *out)
{
    const struct plan *plan = layout->plan;
    *out = (struct local_layer){
        .index = index,
        .part = mesh_part(plan, index, layout->place),
        .strategy = plan->layers[index],
        .shape = mesh_shape(plan, index),
        .chunk = mesh_layer_chunk(plan, index),
        .data_index = mesh_data_index(plan, index, layout->place),
    };
    out->spread = strategy_spread(&out->strategy);
    layer_state_of(plan, index, &out->state);
    out->block = out->state.partition.ways > 1 ? out->data_index : 0;
}

static enum status list_layers(struct memory_layout *layout, struct error *err)
{
    const struct plan *plan = layout->plan;
    layout->layers = calloc(plan->layer_count, sizeof *layout->layers);
    if (layout->layers == NULL)
        return error_memory(err, plan->layer_count * sizeof *layout->layers, "the memory layout");
    for (size_t i = 0; i < plan->layer_count; i++)
        if (mesh_layer_stage(plan, i) == layout->stage)
            describe_layer(layout, i, &layout->layers[layout->layer_count++]);
    return STATUS_OK;
}

enum status layout_open(struct memory_layout *out, struct device *device, const struct plan *plan,
                        int rank, bool training, struct error *err)
{
    struct memory_layout layout = {.device = device,
                                   .plan = plan,
                                   .rank = rank,
                                   .stage = mesh_stage_of(plan, rank),
                                   .place = mesh_place_of(plan, rank)};
    struct footprint footprint;
    plan_footprint(plan, layout.stage, &footprint);
    enum status status = list_layers(&layout, err);
    if (status == STATUS_OK)
        status = allocate_regions(&layout, &footprint, training, err);
    if (status == STATUS_OK) {
        place_parameters(&layout);
        if (training)
            place_training_state(&layout);
        status = place_activations(&layout, training, err);
    }
    if (status != STATUS_OK) {
        layout_close(&layout);
        return status;
    }
    *out = layout;
    return STATUS_OK;
}

void layout_close(struct memory_layout *layout)
{
    for (size_t term = 0; term < MEMORY_TERM_COUNT; term++)
        device_free(layout->device, layout->regions[term].base, layout->regions[term].bytes);
    for (size_t i = 0; i < layout->layer_count; i++)
        free(layout->layers[i].flights);
    free(layout->layers);
    memset(layout, 0, sizeof *layout);
}

struct local_layer *layout_layer(const struct memory_layout *layout, size_t index)
{
    for (size_t i = 0; i < layout->layer_count; i++)
        if (layout->layers[i].index == index)
            return &layout->layers[i];
    return NULL;
}

struct flight *layer_flight(const struct local_layer *layer, int64_t micro_batch)
{
    return &layer->flights[micro_batch % layer->flight_count];
}

float *layer_master(const struct local_layer *layer, size_t piece)
{
    struct partition_piece at = partition_piece_at(&layer->state.partition, piece);
    if (layer->shard_fp32 != NULL)
        return layer->shard_fp32 + at.first / (uint64_t)layer->state.partition.ways;
    return layer->whole_fp32 + at.first + (uint64_t)layer->block * at.block;
}
