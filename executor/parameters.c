#include "executor/parameters.h"

#include "base/clock.h"
#include "executor/ops/update.h"
#include <assert.h>
#include <stdlib.h>

enum status parameters_open(struct parameters *out, struct memory_layout *layout,
                            const struct groups *groups, struct journal *journal, struct error *err)
{
    size_t count = layout->layer_count;
    struct gathering *gatherings = calloc(count, sizeof *gatherings);
    if (gatherings == NULL)
        return error_memory(err, count * sizeof *gatherings, "gathered parameters");
    *out = (struct parameters){
        .layout = layout, .groups = groups, .journal = journal, .gatherings = gatherings};
    return STATUS_OK;
}

void parameters_close(struct parameters *parameters)
{
    free(parameters->gatherings);
    parameters->gatherings = NULL;
}

static bool is_16_bit(enum precision precision)
{
    return precision != PRECISION_FP32;
}

static struct comm *data_group(const struct parameters *parameters, const struct local_layer *layer)
{
    return groups_of(parameters->groups, layer->strategy.tensor_parallel)->data;
}

/* Of a tied head that owns no table: the embedding, which does. */
static const struct local_layer *table_of(const struct parameters *parameters,
                                          const struct local_layer *layer)
{
    bool reads = layer->part.kind == LAYER_HEAD && !layer->part.owns_table &&
                 parameters->layout->plan->model.tied_head;
    return reads ? layout_layer(parameters->layout, 0) : NULL;
}

/* Whose matrices stand in the layer's transient buffer, in which element size. */
struct gathered {
    const struct local_layer *source;
    size_t element_bytes;
};

static struct gathered gathered_of(const struct parameters *parameters,
                                   const struct local_layer *layer)
{
    const struct local_layer *table = table_of(parameters, layer);
    if (table != NULL)
        return (struct gathered){table, sizeof(float)};
    return (struct gathered){layer, layer->state.shard_16 > 0 ? sizeof(uint16_t) : sizeof(float)};
}

/* This rank's blocks of the shard to their places in the whole. */
static void place_blocks(struct device *device, const struct gathered *what, char *whole)
{
    const struct local_layer *source = what->source;
    const struct partition *partition = &source->state.partition;
    for (size_t i = 0; i < partition_piece_count(partition); i++) {
        struct partition_piece piece = partition_piece_at(partition, i);
        uint64_t at = piece.first + (uint64_t)source->block * piece.block;
        uint64_t in_shard = piece.first / (uint64_t)partition->ways;
        const char *from = what->element_bytes == sizeof(float) ? (const char *)source->shard_fp32
                                                                : (const char *)source->shard_16;
        device_copy(device, whole + at * what->element_bytes, from + in_shard * what->element_bytes,
                    piece.block * what->element_bytes);
    }
}

static enum status start_gathering(struct parameters *parameters, size_t local, char *buffer,
                                   struct error *err)
{
    const struct local_layer *layer = &parameters->layout->layers[local];
    struct gathering *gathering = &parameters->gatherings[local];
    struct gathered what = gathered_of(parameters, layer);
    gathering->start_ns = clock_ns();
    gathering->bytes = what.source->state.partition.count * what.element_bytes;
    place_blocks(parameters->layout->device, &what, buffer);
    TRY(comm_all_gather_start(data_group(parameters, layer), buffer,
                              what.source->state.partition.count, what.element_bytes,
                              &gathering->request, err));
    gathering->buffer = buffer;
    return STATUS_OK;
}

static bool is_transient(const struct local_layer *layer)
{
    return layer->state.gather_bytes > 0;
}

static char *next_ring_buffer(struct parameters *parameters)
{
    parameters->next_buffer ^= 1;
    return parameters->layout->parameter_ring.buffers[parameters->next_buffer];
}

enum status parameters_prefetch(struct parameters *parameters, size_t local, struct error *err)
{
    const struct local_layer *layer = &parameters->layout->layers[local];
    if (!is_transient(layer) || layer->own_parameters != NULL ||
        parameters->gatherings[local].buffer != NULL)
        return STATUS_OK;
    return start_gathering(parameters, local, next_ring_buffer(parameters), err);
}

/* Wait for the layer's gathering or publishing. */
static enum status finish(struct parameters *parameters, size_t local, struct error *err)
{
    struct gathering *gathering = &parameters->gatherings[local];
    const struct local_layer *layer = &parameters->layout->layers[local];
    if (gathering->request == NULL)
        return STATUS_OK;
    int64_t wait_ns = clock_ns();
    struct comm_request *request = gathering->request;
    gathering->request = NULL;
    TRY(comm_wait(data_group(parameters, layer), request, err));
    journal_communication(parameters->journal, PHASE_PARAM_GATHER, (int32_t)layer->index,
                          gathering->start_ns, wait_ns, gathering->bytes);
    return STATUS_OK;
}

/* Behind a gathered fp32 table its 16-bit copy, for a head that computes in that. */
static const uint16_t *cast_gathered_table(struct parameters *parameters,
                                           const struct local_layer *head, char *buffer)
{
    const struct local_layer *table = layout_layer(parameters->layout, 0);
    const struct model *model = &parameters->layout->plan->model;
    uint64_t whole_bytes = table->state.partition.count * sizeof(float);
    uint16_t *copy = (uint16_t *)(void *)(buffer + whole_bytes);
    /* Without what only makes the table divisible: there is no room for that. */
    uint64_t count = (uint64_t)part_vocab_rows(model, &table->part) * (uint64_t)model->hidden;
    ops_cast_16(parameters->layout->device, (const float *)(const void *)buffer, copy, count,
                head->strategy.precision);
    return copy;
}

static struct parameter_view transient_view(struct parameters *parameters,
                                            const struct local_layer *layer, char *buffer)
{
    bool uses_16 = is_16_bit(layer->strategy.precision);
    const float *whole = (const float *)(const void *)buffer;
    if (table_of(parameters, layer) != NULL)
        return (struct parameter_view){
            .table = uses_16 ? NULL : whole,
            .table_16 = uses_16 ? cast_gathered_table(parameters, layer, buffer) : NULL,
        };
    if (layer->state.shard_16 > 0)
        return (struct parameter_view){.matrices_16 = (const uint16_t *)(const void *)buffer};
    return (struct parameter_view){.matrices = whole};
}

static struct parameter_view resident_view(const struct parameters *parameters,
                                           const struct local_layer *layer)
{
    const struct local_layer *table = table_of(parameters, layer);
    struct parameter_view view = {.matrices = layer->whole_fp32, .matrices_16 = layer->whole_16};
    if (table != NULL && is_16_bit(layer->strategy.precision))
        view.table_16 = table->table_16;
    else if (table != NULL)
        view.table = table->whole_fp32;
    return view;
}

enum status parameters_use(struct parameters *parameters, size_t local, struct parameter_view *out,
                           struct error *err)
{
    const struct local_layer *layer = &parameters->layout->layers[local];
    struct gathering *gathering = &parameters->gatherings[local];
    if (!is_transient(layer)) {
        *out = resident_view(parameters, layer);
        return STATUS_OK;
    }
    if (gathering->buffer == NULL)
        TRY(start_gathering(parameters, local,
                            layer->own_parameters != NULL ? layer->own_parameters
                                                          : next_ring_buffer(parameters),
                            err));
    TRY(finish(parameters, local, err));
    *out = transient_view(parameters, layer, gathering->buffer);
    return STATUS_OK;
}

void parameters_release(struct parameters *parameters, size_t local)
{
    assert(parameters->gatherings[local].request == NULL);
    parameters->gatherings[local].buffer = NULL;
}

/* ---- after an update ---- */

/* The 16-bit form of this rank's blocks, where the layer keeps one. */
static void cast_blocks(struct parameters *parameters, const struct local_layer *layer)
{
    const struct partition *partition = &layer->state.partition;
    struct device *device = parameters->layout->device;
    if (layer->shard_16 != NULL)
        ops_cast_16(device, layer->shard_fp32, layer->shard_16, layer->state.shard_16,
                    layer->strategy.precision);
    for (size_t i = 0; layer->whole_16 != NULL && i < partition_piece_count(partition); i++) {
        struct partition_piece piece = partition_piece_at(partition, i);
        uint64_t at = piece.first + (uint64_t)layer->block * piece.block;
        ops_cast_16(device, layer_master(layer, i), layer->whole_16 + at, piece.block,
                    layer->strategy.precision);
    }
}

enum status parameters_publish(struct parameters *parameters, size_t local, bool cast,
                               struct error *err)
{
    const struct local_layer *layer = &parameters->layout->layers[local];
    struct gathering *gathering = &parameters->gatherings[local];
    uint64_t count = layer->state.partition.count;
    void *whole = layer->whole_16 != NULL ? (void *)layer->whole_16 : (void *)layer->whole_fp32;
    size_t element_bytes = layer->whole_16 != NULL ? sizeof(uint16_t) : sizeof(float);
    if (cast)
        cast_blocks(parameters, layer);
    if (layer->state.partition.ways == 1 || whole == NULL)
        return STATUS_OK;
    gathering->start_ns = clock_ns();
    gathering->bytes = count * element_bytes;
    return comm_all_gather_start(data_group(parameters, layer), whole, count, element_bytes,
                                 &gathering->request, err);
}

enum status parameters_publish_finish(struct parameters *parameters, struct error *err)
{
    struct memory_layout *layout = parameters->layout;
    for (size_t i = 0; i < layout->layer_count; i++) {
        const struct local_layer *layer = &layout->layers[i];
        TRY(finish(parameters, i, err));
        if (layer->table_16 == NULL)
            continue;
        const struct plan *plan = layout->plan;
        ops_cast_16(layout->device, layer->whole_fp32, layer->table_16, layer->state.table_16,
                    plan->layers[plan->layer_count - 1].precision);
    }
    return STATUS_OK;
}
