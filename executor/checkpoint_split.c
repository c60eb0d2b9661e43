#include "executor/checkpoint_split.h"

#include "ir/mesh.h"
#include <stdio.h>
#include <stdlib.h>

const char *const checkpoint_prefixes[ARRAY_COUNT] = {
    [ARRAY_PARAMETERS] = "",
    [ARRAY_FIRST_MOMENT] = "first_moment.",
    [ARRAY_SECOND_MOMENT] = "second_moment.",
};

struct by_size {
    uint64_t count;
    size_t index;
};

static int compare_largest_first(const void *a, const void *b)
{
    const struct by_size *left = a, *right = b;
    if (left->count != right->count)
        return left->count > right->count ? -1 : 1;
    return (left->index > right->index) - (left->index < right->index);
}

static int least_loaded(const uint64_t *loads, const struct plan *plan, int stage)
{
    int least = mesh_rank_at(plan, stage, 0);
    for (int place = 1; place < mesh_stage_ranks(plan); place++) {
        int rank = mesh_rank_at(plan, stage, place);
        if (loads[rank] < loads[least])
            least = rank;
    }
    return least;
}

static enum status assign_ranks(struct checkpoint_split *split, const struct plan *plan,
                                struct error *err)
{
    struct by_size *order = calloc(split->count, sizeof(*order));
    uint64_t *loads = calloc((size_t)plan->ranks, sizeof(*loads));
    enum status status = STATUS_OK;
    if (!order || !loads)
        status = error_memory(err, split->count * sizeof(*order), "the checkpoint's files");
    for (size_t i = 0; status == STATUS_OK && i < split->count; i++)
        order[i] = (struct by_size){split->tensors[i].place.count, i};
    if (status == STATUS_OK)
        qsort(order, split->count, sizeof(*order), compare_largest_first);
    for (size_t i = 0; status == STATUS_OK && i < split->count; i++) {
        struct split_tensor *tensor = &split->tensors[order[i].index];
        tensor->rank = least_loaded(loads, plan, tensor->stage);
        loads[tensor->rank] += order[i].count;
        split->files[tensor->rank] = 1;
    }
    free(order);
    free(loads);
    return status;
}

enum status checkpoint_split_make(struct checkpoint_split *out, const struct plan *plan,
                                  struct error *err)
{
    struct tensor_place *places = NULL;
    struct checkpoint_split split = {.ranks = plan->ranks};
    TRY(tensor_places(&plan->model, &places, &split.count, err));
    split.tensors = calloc(split.count, sizeof(*split.tensors));
    split.files = calloc((size_t)plan->ranks, sizeof(*split.files));
    enum status status = STATUS_OK;
    if (!split.tensors || !split.files)
        status = error_memory(err, split.count * sizeof(*split.tensors), "the checkpoint's files");
    for (size_t i = 0; status == STATUS_OK && i < split.count; i++)
        split.tensors[i] = (struct split_tensor){.place = places[i],
                                                 .stage = mesh_layer_stage(plan, places[i].layer)};
    free(places);
    if (status == STATUS_OK)
        status = assign_ranks(&split, plan, err);
    if (status != STATUS_OK) {
        checkpoint_split_clear(&split);
        return status;
    }
    for (int rank = 0; rank < split.ranks; rank++)
        if (split.files[rank] > 0)
            split.files[rank] = ++split.file_count;
    *out = split;
    return STATUS_OK;
}

void checkpoint_split_clear(struct checkpoint_split *split)
{
    free(split->tensors);
    free(split->files);
    *split = (struct checkpoint_split){0};
}

void checkpoint_shard_name(char name[CHECKPOINT_FILE_BYTES], const char *stem, int file,
                           int file_count)
{
    if (file_count == 1)
        (void)snprintf(name, CHECKPOINT_FILE_BYTES, "%s.safetensors", stem);
    else
        (void)snprintf(name, CHECKPOINT_FILE_BYTES, "%s-%05d-of-%05d.safetensors", stem, file,
                       file_count);
}
