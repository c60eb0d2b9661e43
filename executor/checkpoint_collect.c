#include "executor/checkpoint_collect.h"

#include "ir/mesh.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Elements of a message: large enough for the link, small beside a tensor. */
enum { MESSAGE_COUNT = 256 * 1024 };

enum status collector_open(struct collector *out, const struct memory_layout *layout,
                           struct comm *comm, const struct checkpoint_split *split,
                           struct error *err)
{
    size_t places = (size_t)mesh_stage_ranks(layout->plan);
    uint64_t largest = 0;
    for (size_t i = 0; i < split->count; i++)
        if (split->tensors[i].rank == layout->rank && split->tensors[i].place.count > largest)
            largest = split->tensors[i].place.count;
    *out = (struct collector){.layout = layout, .comm = comm, .layer = SIZE_MAX};
    out->holdings = calloc(places, sizeof(*out->holdings));
    out->whole = largest > 0 ? malloc(largest * sizeof(float)) : NULL;
    out->message = malloc(MESSAGE_COUNT * sizeof(float));
    if (out->holdings && out->message && (out->whole || largest == 0))
        return STATUS_OK;
    collector_close(out);
    return error_memory(err, (largest + MESSAGE_COUNT) * sizeof(float), "a tensor to be saved");
}

void collector_close(struct collector *collector)
{
    free(collector->holdings);
    free(collector->whole);
    free(collector->message);
    *collector = (struct collector){0};
}

static void look_at_layer(struct collector *collector, size_t layer)
{
    const struct plan *plan = collector->layout->plan;
    if (collector->layer == layer)
        return;
    for (int place = 0; place < mesh_stage_ranks(plan); place++)
        holding_at(plan, layer, place, &collector->holdings[place]);
    collector->layer = layer;
}

/* Of the ranks that own the same elements one gives them: the writer itself if it can, else the
 * first. */
static bool gives(const struct collector *collector, size_t tensor, int place, int writer)
{
    int share = collector->holdings[place].tensors[tensor].share;
    if (share == collector->holdings[writer].tensors[tensor].share)
        return place == writer;
    for (int before = 0; before < place; before++)
        if (collector->holdings[before].tensors[tensor].share == share)
            return false;
    return true;
}

/* The next runs of a walk, together at most one message; a run can be cut. */
struct packing {
    struct shard_walk walk;
    struct shard_run run; /* what is left of it */
};

/* The next stretch of at most `room` elements; false when the walk is over. */
static bool packing_next(struct packing *packing, uint64_t room, struct shard_run *out)
{
    if (packing->run.count == 0 && !shard_run_next(&packing->walk, &packing->run))
        return false;
    struct shard_run *rest = &packing->run;
    *out = *rest;
    out->count = rest->count < room ? rest->count : room;
    rest->whole += out->count;
    rest->part += out->count;
    rest->shard += out->count;
    rest->count -= out->count;
    return true;
}

static void copy_own(struct collector *collector, const struct local_layer *layer,
                     struct packing *packing, enum tensor_array array, bool is_vector)
{
    struct shard_run run;
    while (packing_next(packing, UINT64_MAX, &run))
        shard_read(collector->layout, layer, array, is_vector, &run, collector->whole + run.whole);
}

static enum status send_own(struct collector *collector, const struct local_layer *layer,
                            struct packing *packing, enum tensor_array array, bool is_vector,
                            int to, struct error *err)
{
    for (;;) {
        uint64_t used = 0;
        struct shard_run run;
        while (used < MESSAGE_COUNT && packing_next(packing, MESSAGE_COUNT - used, &run)) {
            shard_read(collector->layout, layer, array, is_vector, &run, collector->message + used);
            used += run.count;
        }
        if (used == 0)
            return STATUS_OK;
        TRY(comm_send(collector->comm, collector->message, used * sizeof(float), to, err));
    }
}

/* The sender's walk, taken here a second time, says how much comes and where it belongs. */
static enum status receive(struct collector *collector, struct packing *packing, int from,
                           struct error *err)
{
    for (;;) {
        struct packing ahead = *packing;
        struct shard_run run;
        uint64_t count = 0, used = 0;
        while (count < MESSAGE_COUNT && packing_next(&ahead, MESSAGE_COUNT - count, &run))
            count += run.count;
        if (count == 0)
            return STATUS_OK;
        TRY(comm_receive(collector->comm, collector->message, count * sizeof(float), from, err));
        while (used < count && packing_next(packing, count - used, &run)) {
            memcpy(collector->whole + run.whole, collector->message + used,
                   run.count * sizeof(float));
            used += run.count;
        }
    }
}

enum status collector_gather(struct collector *collector, const struct split_tensor *tensor,
                             enum tensor_array array, struct error *err)
{
    const struct memory_layout *layout = collector->layout;
    const struct plan *plan = layout->plan;
    size_t index = 0;
    assert(layout->stage == tensor->stage);
    look_at_layer(collector, tensor->place.layer);
    const struct holding *own = &collector->holdings[layout->place];
    bool is_there = holding_find(own, tensor->place.role, &index);
    assert(is_there);
    (void)is_there;
    const struct local_layer *layer = layout_layer(layout, tensor->place.layer);
    bool is_vector = own->tensors[index].tensor.whole.stays_whole;
    int writer = mesh_place_of(plan, tensor->rank);
    for (int place = 0; place < mesh_stage_ranks(plan); place++) {
        if (!gives(collector, index, place, writer))
            continue;
        struct packing packing = {.walk = shard_runs(&collector->holdings[place], index, true)};
        if (place == layout->place && place == writer)
            copy_own(collector, layer, &packing, array, is_vector);
        else if (place == layout->place)
            TRY(send_own(collector, layer, &packing, array, is_vector, tensor->rank, err));
        else if (layout->place == writer)
            TRY(receive(collector, &packing, mesh_rank_at(plan, tensor->stage, place), err));
    }
    return STATUS_OK;
}
