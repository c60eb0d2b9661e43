#include "executor/shards.h"

#include "ir/mesh.h"
#include "ir/state.h"
#include <assert.h>

struct holder {
    const struct model *model;
    struct layer_part part;
    struct partition partition;
    int data_index;
};

static void describe_tensor(const struct holder *holder, int block, struct held_tensor *held)
{
    const struct tensor_spec *whole = &held->tensor.whole;
    bool is_sharded = !whole->stays_whole && holder->partition.ways > 1;
    int parts_before = held->tensor.is_split ? holder->part.index : 0;
    held->is_copy = holder->part.owns_table && whole->role == ROLE_HEAD_WEIGHT;
    held->share = is_sharded ? parts_before * holder->partition.ways + block : parts_before;
    held->speaks = !held->is_copy && (held->tensor.is_split || holder->part.index == 0) &&
                   (is_sharded || holder->data_index == 0);
}

static void describe_holding(const struct holder *holder, struct holding *out)
{
    struct tensor_part tensors[LAYER_TENSORS_MAX];
    uint64_t first[2] = {0, 0}; /* of matrices and vectors */
    *out = (struct holding){.partition = holder->partition};
    out->tensor_count = layer_part_tensors(holder->model, &holder->part, tensors);
    out->block = holder->partition.ways > 1 ? holder->data_index : 0;
    for (size_t i = 0; i < out->tensor_count; i++) {
        struct held_tensor *held = &out->tensors[i];
        uint64_t *array_first = &first[tensors[i].whole.stays_whole];
        held->tensor = tensors[i];
        held->first = *array_first;
        *array_first += tensor_part_count(&tensors[i]);
        describe_tensor(holder, out->block, held);
    }
}

void holding_of(const struct model *model, const struct local_layer *layer, struct holding *out)
{
    const struct holder holder = {model, layer->part, layer->state.partition, layer->data_index};
    describe_holding(&holder, out);
}

void holding_at(const struct plan *plan, size_t layer, int place, struct holding *out)
{
    struct layer_state state;
    layer_state_of(plan, layer, &state);
    const struct holder holder = {&plan->model, mesh_part(plan, layer, place), state.partition,
                                  mesh_data_index(plan, layer, place)};
    describe_holding(&holder, out);
}

bool holding_find(const struct holding *holding, enum tensor_role role, size_t *tensor)
{
    for (size_t i = 0; i < holding->tensor_count; i++)
        if (holding->tensors[i].tensor.whole.role == role) {
            *tensor = i;
            return true;
        }
    return false;
}

/* ---- what the rank owns of the matrices ---- */

struct owned {
    uint64_t part, shard, count;
    size_t piece;
};

static size_t piece_with(const struct partition *partition, uint64_t element)
{
    size_t low = 0, high = partition_piece_count(partition);
    while (low + 1 < high) {
        size_t middle = low + (high - low) / 2;
        if (partition_piece_at(partition, middle).first <= element)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The first neighbours in [first, end) of the matrices that the rank owns. */
static bool find_owned(const struct holding *holding, uint64_t first, uint64_t end,
                       struct owned *out)
{
    const struct partition *partition = &holding->partition;
    if (partition->ways == 1) {
        *out = (struct owned){.part = first, .shard = first, .count = end - first};
        return first < end;
    }
    size_t pieces = partition_piece_count(partition);
    for (size_t i = piece_with(partition, first); i < pieces; i++) {
        struct partition_piece piece = partition_piece_at(partition, i);
        uint64_t block_first = piece.first + (uint64_t)holding->block * piece.block;
        uint64_t block_end = block_first + piece.block;
        uint64_t from = first > block_first ? first : block_first;
        if (from >= end)
            return false;
        if (from >= block_end)
            continue;
        *out = (struct owned){
            .part = from,
            .shard = piece.first / (uint64_t)partition->ways + (from - block_first),
            .count = (end < block_end ? end : block_end) - from,
            .piece = i,
        };
        return true;
    }
    return false;
}

/* ---- runs ---- */

struct shard_walk shard_runs(const struct holding *holding, size_t tensor, bool owned_only)
{
    assert(tensor < holding->tensor_count);
    return (struct shard_walk){
        .holding = holding, .held = &holding->tensors[tensor], .owned_only = owned_only};
}

/* Are the slice's rows neighbours of each other on both sides, so that they are as one? */
static bool rows_join(const struct tensor_part *tensor, const struct tensor_slice *slice)
{
    return slice->cols == tensor->cols && slice->cols == tensor->whole.cols;
}

/* What is left of the row that the walk stands in. */
static struct shard_run rest_of_row(const struct shard_walk *walk, const struct tensor_slice *slice)
{
    const struct tensor_part *tensor = &walk->held->tensor;
    int64_t rows = rows_join(tensor, slice) ? slice->rows : 1;
    int64_t whole = (slice->row + walk->row) * tensor->whole.cols + slice->col;
    int64_t local = (slice->local_row + walk->row) * tensor->cols + slice->local_col;
    return (struct shard_run){
        .whole = (uint64_t)whole + walk->column,
        .part = walk->held->first + (uint64_t)local + walk->column,
        .count = (uint64_t)(rows * slice->cols) - walk->column,
    };
}

static void next_row(struct shard_walk *walk, const struct tensor_slice *slice)
{
    walk->column = 0;
    walk->row = rows_join(&walk->held->tensor, slice) ? slice->rows : walk->row + 1;
    if (walk->row >= slice->rows) {
        walk->row = 0;
        walk->slice++;
    }
}

bool shard_run_next(struct shard_walk *walk, struct shard_run *out)
{
    const struct tensor_part *tensor = &walk->held->tensor;
    bool is_sharded = walk->owned_only && !tensor->whole.stays_whole;
    while (walk->slice < tensor->slice_count) {
        const struct tensor_slice *slice = &tensor->slices[walk->slice];
        struct shard_run run = rest_of_row(walk, slice);
        struct owned owned = {.part = run.part, .shard = run.part, .count = run.count};
        bool is_found = slice->rows > 0 && run.count > 0;
        if (is_found && is_sharded)
            is_found = find_owned(walk->holding, run.part, run.part + run.count, &owned);
        if (!is_found) {
            next_row(walk, slice);
            continue;
        }
        uint64_t skipped = owned.part - run.part;
        *out = (struct shard_run){run.whole + skipped, owned.part, owned.shard, owned.count};
        walk->column += skipped + owned.count;
        return true;
    }
    return false;
}

/* ---- segments ---- */

struct segment_walk shard_segments(const struct holding *holding)
{
    return (struct segment_walk){.holding = holding};
}

static bool are_alike(const struct held_tensor *a, const struct held_tensor *b)
{
    return a->tensor.whole.stays_whole == b->tensor.whole.stays_whole &&
           a->tensor.whole.decays == b->tensor.whole.decays && a->speaks == b->speaks;
}

bool shard_segment_next(struct segment_walk *walk, struct shard_segment *out)
{
    const struct holding *holding = walk->holding;
    while (walk->tensor < holding->tensor_count) {
        /* Tensors that are alike make one range; they are neighbours in their array. */
        const struct held_tensor *held = &holding->tensors[walk->tensor];
        size_t next = walk->tensor;
        uint64_t end = held->first;
        while (next < holding->tensor_count && are_alike(held, &holding->tensors[next]))
            end += tensor_part_count(&holding->tensors[next++].tensor);
        uint64_t first = held->first + walk->done;
        bool is_vector = held->tensor.whole.stays_whole;
        struct owned owned = {.part = first, .shard = first, .count = end - first};
        bool is_found = first < end;
        if (is_found && !is_vector)
            is_found = find_owned(holding, first, end, &owned);
        if (!is_found) {
            walk->tensor = next;
            walk->done = 0;
            continue;
        }
        *out = (struct shard_segment){
            .is_vector = is_vector,
            .part = owned.part,
            .shard = owned.shard,
            .count = owned.count,
            .piece = owned.piece,
            .decays = held->tensor.whole.decays,
            .speaks = held->speaks,
        };
        walk->done = owned.part + owned.count - held->first;
        return true;
    }
    return false;
}
