#include "executor/reduction.h"

#include "base/clock.h"
#include "executor/ops/update.h"
#include <stdlib.h>

static const size_t RING_FREE = SIZE_MAX;

enum status reduction_open(struct reduction *out, struct memory_layout *layout,
                           const struct groups *groups, struct journal *journal, struct error *err)
{
    size_t count = layout->layer_count;
    struct layer_reduction *layers = calloc(count, sizeof *layers);
    if (layers == NULL)
        return error_memory(err, count * sizeof *layers, "gradient reductions");
    *out = (struct reduction){
        .layout = layout,
        .groups = groups,
        .journal = journal,
        .layers = layers,
        .ring_user = {RING_FREE, RING_FREE},
    };
    return STATUS_OK;
}

void reduction_close(struct reduction *reduction)
{
    free(reduction->layers);
    reduction->layers = NULL;
}

static struct comm *data_group(const struct reduction *reduction, const struct local_layer *layer)
{
    return groups_of(reduction->groups, layer->strategy.tensor_parallel)->data;
}

static enum status all_reduce(struct comm *group, void *data, uint64_t count,
                              enum precision precision, struct comm_request **out,
                              struct error *err)
{
    return precision == PRECISION_BF16 ? comm_all_reduce_bf16_start(group, data, count, out, err)
                                       : comm_all_reduce_start(group, data, count, out, err);
}

static enum status scatter(struct comm *group, void *data, uint64_t count, enum precision precision,
                           struct comm_request **out, struct error *err)
{
    return precision == PRECISION_BF16
               ? comm_reduce_scatter_bf16_start(group, data, count, out, err)
               : comm_reduce_scatter_start(group, data, count, out, err);
}

/* The layer whose matrices' gradient this layer's backward writes: its own, or, of a tied head that
 * owns no table, the embedding's. Index of a local layer. */
static size_t target_of(const struct reduction *reduction, size_t local)
{
    const struct memory_layout *layout = reduction->layout;
    const struct layer_part *part = &layout->layers[local].part;
    bool writes_table =
        part->kind == LAYER_HEAD && !part->owns_table && layout->plan->model.tied_head;
    return writes_table ? 0 : local; /* the embedding is the first layer of the first stage */
}

static bool is_transient(const struct local_layer *layer)
{
    return layer->state.gradient_bytes > 0;
}

/* Of an array of the layer's gradients. */
static void *element_at(const struct local_layer *layer, void *gradients, uint64_t element)
{
    return (char *)gradients + element * precision_bytes(layer->state.gradient_precision);
}

void *reduction_block(const struct local_layer *layer, size_t piece)
{
    uint64_t first = partition_piece_at(&layer->state.partition, piece).first;
    if (is_transient(layer))
        first /= (uint64_t)layer->state.partition.ways;
    return element_at(layer, layer->gradients, first);
}

/* ---- ending ---- */

/* The scattered sum of a transient gradient goes to the shard. */
static void add_to_shard(const struct reduction *reduction, size_t local)
{
    const struct layer_reduction *under_way = &reduction->layers[local];
    const struct local_layer *target = &reduction->layout->layers[target_of(reduction, local)];
    const struct partition *partition = &target->state.partition;
    for (size_t i = 0; i < partition_piece_count(partition); i++) {
        struct partition_piece piece = partition_piece_at(partition, i);
        ops_accumulate(reduction->layout->device,
                       element_at(target, under_way->transient, piece.first),
                       reduction_block(target, i), target->state.gradient_precision, piece.block,
                       under_way->adds);
    }
}

static enum status end_matrices(struct reduction *reduction, size_t local, struct error *err)
{
    struct layer_reduction *under_way = &reduction->layers[local];
    size_t target_index = target_of(reduction, local);
    const struct local_layer *target = &reduction->layout->layers[target_index];
    struct comm_request *request = under_way->matrices;
    if (request == NULL)
        return STATUS_OK;
    int64_t wait_ns = clock_ns();
    under_way->matrices = NULL;
    TRY(comm_wait(data_group(reduction, target), request, err));
    journal_communication(
        reduction->journal, PHASE_GRAD_REDUCE, (int32_t)reduction->layout->layers[local].index,
        under_way->matrices_start_ns, wait_ns,
        target->state.partition.count * precision_bytes(target->state.gradient_precision));
    if (under_way->transient != NULL)
        add_to_shard(reduction, local);
    under_way->transient = NULL;
    return STATUS_OK;
}

static enum status end_vectors(struct reduction *reduction, size_t local, struct error *err)
{
    struct layer_reduction *under_way = &reduction->layers[local];
    const struct local_layer *layer = &reduction->layout->layers[local];
    struct comm_request *request = under_way->vectors;
    if (request == NULL)
        return STATUS_OK;
    int64_t wait_ns = clock_ns();
    under_way->vectors = NULL;
    TRY(comm_wait(data_group(reduction, layer), request, err));
    journal_communication(reduction->journal, PHASE_GRAD_REDUCE, (int32_t)layer->index,
                          under_way->vectors_start_ns, wait_ns,
                          layer->state.vectors * sizeof(float));
    return STATUS_OK;
}

/* ---- starting ---- */

static enum status ring_buffer(struct reduction *reduction, size_t local, void **out,
                               struct error *err)
{
    reduction->next_buffer ^= 1;
    size_t *user = &reduction->ring_user[reduction->next_buffer];
    if (*user != RING_FREE)
        TRY(end_matrices(reduction, *user, err));
    *user = local;
    *out = reduction->layout->gradient_ring.buffers[reduction->next_buffer];
    return STATUS_OK;
}

enum status reduction_prepare(struct reduction *reduction, size_t local, int64_t micro_batch,
                              struct gradient_view *out, struct error *err)
{
    const struct memory_layout *layout = reduction->layout;
    const struct local_layer *layer = &layout->layers[local];
    const struct local_layer *target = &layout->layers[target_of(reduction, local)];
    void *matrices = target->gradients;
    if (is_transient(layer)) {
        /* A chunk of one or two layers comes back to a layer before its ring buffer is wanted. */
        TRY(end_matrices(reduction, local, err));
        matrices = layer->own_gradient;
        if (matrices == NULL)
            TRY(ring_buffer(reduction, local, &matrices, err));
        reduction->layers[local].transient = matrices;
    }
    bool shares_table = layer->part.kind == LAYER_EMBEDDING && layout->plan->model.tied_head &&
                        layout->plan->pipeline == 1;
    *out = (struct gradient_view){
        .matrices = target == layer ? matrices : NULL,
        .table = target == layer ? NULL : matrices,
        .vectors = layer->vector_gradients,
        .accumulate_matrices = micro_batch > 0 && !is_transient(layer),
        .accumulate_vectors = micro_batch > 0,
        .table_is_written = shares_table && !is_transient(layer),
    };
    return STATUS_OK;
}

/* Every micro-batch's whole gradient is scattered. Of a buffer of the layer's own the wait is now:
 * the next layer's scratch is at the same place. */
static enum status start_transient(struct reduction *reduction, size_t local, int64_t micro_batch,
                                   struct error *err)
{
    struct layer_reduction *under_way = &reduction->layers[local];
    size_t target_index = target_of(reduction, local);
    const struct local_layer *layer = &reduction->layout->layers[local];
    const struct local_layer *target = &reduction->layout->layers[target_index];
    bool head_was_first = layer->part.kind == LAYER_EMBEDDING &&
                          reduction->layout->plan->model.tied_head &&
                          reduction->layout->plan->pipeline == 1;
    under_way->adds = micro_batch > 0 || head_was_first;
    under_way->matrices_start_ns = clock_ns();
    TRY(scatter(data_group(reduction, target), under_way->transient, target->state.partition.count,
                target->state.gradient_precision, &under_way->matrices, err));
    return layer->own_gradient != NULL ? end_matrices(reduction, local, err) : STATUS_OK;
}

static enum status start_matrices(struct reduction *reduction, size_t local, struct error *err)
{
    const struct local_layer *layer = &reduction->layout->layers[local];
    struct layer_reduction *under_way = &reduction->layers[local];
    struct comm *data = data_group(reduction, layer);
    uint64_t count = layer->state.partition.count;
    enum precision precision = layer->state.gradient_precision;
    if (count == 0 || comm_size(data) == 1)
        return STATUS_OK;
    under_way->matrices_start_ns = clock_ns();
    if (layer->state.partition.ways > 1)
        return scatter(data, layer->gradients, count, precision, &under_way->matrices, err);
    return all_reduce(data, layer->gradients, count, precision, &under_way->matrices, err);
}

/* Under sequence parallelism the norm's gradients are sums over the tensor-parallel ranks, too. */
static enum status start_vectors(struct reduction *reduction, size_t local, struct error *err)
{
    const struct local_layer *layer = &reduction->layout->layers[local];
    struct layer_reduction *under_way = &reduction->layers[local];
    const struct degree_groups *groups =
        groups_of(reduction->groups, layer->strategy.tensor_parallel);
    uint64_t partial = layer_part_counts(&reduction->layout->plan->model, &layer->part).partial;
    if (layer->part.sequence_parallel && partial > 0) {
        int64_t start_ns = clock_ns();
        TRY(comm_all_reduce_sum(groups->tensor, layer->vector_gradients, partial, err));
        journal_communication(reduction->journal, PHASE_TENSOR, (int32_t)layer->index, start_ns,
                              start_ns, partial * sizeof(float));
    }
    if (layer->state.vectors == 0 || comm_size(groups->data) == 1)
        return STATUS_OK;
    under_way->vectors_start_ns = clock_ns();
    return comm_all_reduce_start(groups->data, layer->vector_gradients, layer->state.vectors,
                                 &under_way->vectors, err);
}

enum status reduction_start(struct reduction *reduction, size_t local, int64_t micro_batch,
                            bool is_last, struct error *err)
{
    const struct local_layer *layer = &reduction->layout->layers[local];
    if (is_transient(layer))
        TRY(start_transient(reduction, local, micro_batch, err));
    else if (is_last)
        TRY(start_matrices(reduction, local, err));
    if (is_last)
        TRY(start_vectors(reduction, local, err));
    comm_poll(reduction->groups->world);
    return STATUS_OK;
}

/* ---- the end of the backward passes ---- */

static enum status add_copies(struct comm *table, void *data, uint64_t count,
                              enum precision precision, struct error *err)
{
    struct comm_request *request = NULL;
    TRY(all_reduce(table, data, count, precision, &request, err));
    return comm_wait(table, request, err);
}

/* First and last stage each have a copy of a tied table and half of its gradient. */
static enum status add_tied_copies(struct reduction *reduction, struct error *err)
{
    const struct memory_layout *layout = reduction->layout;
    bool is_first = layout->stage == 0;
    const struct local_layer *layer = &layout->layers[is_first ? 0 : layout->layer_count - 1];
    const struct partition *partition = &layer->state.partition;
    enum precision precision = layer->state.gradient_precision;
    int64_t start_ns = clock_ns();
    uint64_t bytes = 0;
    /* Unsharded blocks are neighbours. */
    size_t calls = partition->ways == 1 ? 1 : partition_piece_count(partition);
    for (size_t i = 0; i < calls; i++) {
        uint64_t count =
            partition->ways == 1 ? partition->count : partition_piece_at(partition, i).block;
        TRY(add_copies(reduction->groups->table, reduction_block(layer, i), count, precision, err));
        bytes += count * precision_bytes(precision);
    }
    journal_communication(reduction->journal, PHASE_GRAD_REDUCE, (int32_t)layer->index, start_ns,
                          start_ns, bytes);
    return STATUS_OK;
}

enum status reduction_finish(struct reduction *reduction, struct error *err)
{
    for (size_t i = reduction->layout->layer_count; i-- > 0;) {
        TRY(end_matrices(reduction, i, err));
        TRY(end_vectors(reduction, i, err));
    }
    for (int i = 0; i < 2; i++)
        reduction->ring_user[i] = RING_FREE;
    return reduction->groups->table != NULL ? add_tied_copies(reduction, err) : STATUS_OK;
}
