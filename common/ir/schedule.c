#include "ir/schedule.h"

#include "ir/names.h"
#include <assert.h>
#include <stdlib.h>

static const char *const schedules[SCHEDULE_COUNT] = {
    [SCHEDULE_GPIPE] = "gpipe",
    [SCHEDULE_1F1B] = "1f1b",
    [SCHEDULE_INTERLEAVED] = "interleaved",
    [SCHEDULE_ZB_H1] = "zb-h1",
};
const struct name_list schedule_names = {schedules, SCHEDULE_COUNT};

const char *schedule_name(enum schedule schedule)
{
    return name_of(&schedule_names, schedule);
}

bool schedule_parse(const char *name, enum schedule *out)
{
    unsigned value;
    if (!name_parse(&schedule_names, name, &value))
        return false;
    *out = (enum schedule)value;
    return true;
}

enum status schedule_check(const struct schedule_shape *shape, struct error *err)
{
    if ((unsigned)shape->kind >= SCHEDULE_COUNT)
        return error_set(err, STATUS_INVALID, "%u is not a schedule", (unsigned)shape->kind);
    const char *name = schedule_name(shape->kind);
    bool is_interleaved = shape->kind == SCHEDULE_INTERLEAVED;
    int least = is_interleaved ? 2 : 1;

    if (shape->stages < least)
        return error_set(err, STATUS_INVALID, "%s needs a pipeline of %d or more, not %d", name,
                         least, shape->stages);
    if (shape->chunks < least)
        return error_set(err, STATUS_INVALID, "%s needs %d or more virtual_stages, not %d", name,
                         least, shape->chunks);
    if (!is_interleaved && shape->chunks > 1)
        return error_set(err, STATUS_INVALID,
                         "%s has 1 virtual stage, not %d: only interleaved has more", name,
                         shape->chunks);
    if (shape->micro_batches < 1 || shape->micro_batches > INT32_MAX)
        return error_set(err, STATUS_INVALID, "%s needs 1 to 2^31 - 1 micro_batches, not %lld",
                         name, (long long)shape->micro_batches);
    if (is_interleaved && shape->micro_batches % shape->stages != 0)
        return error_set(err, STATUS_INVALID,
                         "%s needs micro_batches in multiples of pipeline %d, not %lld", name,
                         shape->stages, (long long)shape->micro_batches);
    return STATUS_OK;
}

/* ---- the order of one direction ---- */

/* Passes of one direction: every chunk, every micro-batch. */
static int64_t pass_count(const struct schedule_shape *shape)
{
    return shape->micro_batches * shape->chunks;
}

/* The `index`th forward pass of a stage. Chunks take turns in groups of p micro-batches: as the
 * last stage is done with the first one of the group, the first stage begins its next chunk. */
static struct schedule_action forward_at(const struct schedule_shape *shape, int64_t index)
{
    int64_t group = shape->chunks > 1 ? shape->stages : shape->micro_batches;
    int64_t turn = group * shape->chunks;
    return (struct schedule_action){
        .is_forward = true,
        .chunk = (int32_t)(index % turn / group),
        .micro_batch = (int32_t)(index / turn * group + index % group),
    };
}

/* Backward passes go the same way with the last chunk first. */
static struct schedule_action backward_at(const struct schedule_shape *shape, int64_t index)
{
    struct schedule_action action = forward_at(shape, index);
    action.is_forward = false;
    action.chunk = shape->chunks - 1 - action.chunk;
    return action;
}

/* How many forward passes a stage does before one backward pass follows each (Narayanan et al.
 * 2021, section 2.2). With chunks, a stage waits for its first gradient until the other chunks of
 * the first group are through, and for two passes of every stage behind it. */
static int64_t warm_up_count(const struct schedule_shape *shape, int stage)
{
    int64_t passes = pass_count(shape);
    int64_t behind = shape->stages - 1 - stage;
    int64_t wanted = passes;
    if (shape->kind == SCHEDULE_1F1B || shape->kind == SCHEDULE_ZB_H1)
        wanted = behind;
    else if (shape->kind == SCHEDULE_INTERLEAVED)
        wanted = 2 * behind + (int64_t)(shape->chunks - 1) * shape->stages;
    return wanted < passes ? wanted : passes;
}

/* The gradients of weights that follow the `index`th backward pass of zb-h1. */
static size_t add_weights(const struct schedule_shape *shape, int stage, int64_t index,
                          struct schedule_action *out)
{
    int64_t last = shape->micro_batches - 1, first = index - stage;
    int64_t end = index == last ? last : first;
    size_t count = 0;
    for (int64_t i = first < 0 ? 0 : first; i <= end; i++)
        out[count++] = (struct schedule_action){.is_weights = true, .micro_batch = (int32_t)i};
    return count;
}

enum status schedule_actions(const struct schedule_shape *shape, int stage,
                             struct schedule_action **out, size_t *count, struct error *err)
{
    assert(stage >= 0 && stage < shape->stages);
    int64_t passes = pass_count(shape), warm_up = warm_up_count(shape, stage);
    bool is_split = shape->kind == SCHEDULE_ZB_H1;
    size_t bytes = (is_split ? 3 : 2) * (size_t)passes * sizeof(struct schedule_action);
    struct schedule_action *actions = malloc(bytes);
    size_t at = 0;

    if (actions == NULL)
        return error_memory(err, bytes, "a schedule");
    for (int64_t i = 0; i < warm_up; i++)
        actions[at++] = forward_at(shape, i);
    for (int64_t i = 0; i < passes; i++) {
        if (warm_up + i < passes)
            actions[at++] = forward_at(shape, warm_up + i);
        actions[at++] = backward_at(shape, i);
        if (is_split)
            at += add_weights(shape, stage, i, &actions[at]);
    }
    *out = actions;
    *count = at;
    return STATUS_OK;
}

/* ---- memory ---- */

/* How many of the first `passes` passes are of the chunk whose turn comes after `before` others. */
static int64_t passes_of_chunk(const struct schedule_shape *shape, int64_t passes, int before)
{
    int64_t turn = (int64_t)shape->stages * shape->chunks;
    int64_t rest = passes % turn - (int64_t)before * shape->stages;
    rest = rest < 0 ? 0 : rest > shape->stages ? shape->stages : rest;
    return passes / turn * shape->stages + rest;
}

int64_t schedule_in_flight(const struct schedule_shape *shape, int stage, int chunk)
{
    assert(stage >= 0 && stage < shape->stages && chunk >= 0 && chunk < shape->chunks);
    int64_t m = shape->micro_batches, behind = shape->stages - stage;
    if (shape->kind == SCHEDULE_GPIPE)
        return m;
    if (shape->kind == SCHEDULE_1F1B || shape->kind == SCHEDULE_ZB_H1)
        return m < behind ? m : behind;

    /* The most are alive right after a forward pass, and after the warm-up all repeats itself once
     * every chunk had its turn. */
    int64_t warm_up = warm_up_count(shape, stage);
    int64_t steady = pass_count(shape) - warm_up;
    int64_t turn = (int64_t)shape->stages * shape->chunks;
    int64_t peak = passes_of_chunk(shape, warm_up, chunk);
    for (int64_t i = 0; i < steady && i < turn; i++) {
        int64_t alive = passes_of_chunk(shape, warm_up + i + 1, chunk) -
                        passes_of_chunk(shape, i, shape->chunks - 1 - chunk);
        peak = alive > peak ? alive : peak;
    }
    return peak;
}
