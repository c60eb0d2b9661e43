/* The embedding: rows of the token table plus, for gpt2, rows of the position table. */
#include "executor/ops/internal.h"
#include "executor/ops/parts.h"
#include "executor/ops/vector.h"

CLONES
static void add(float *to, const float *from, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        to[i] += from[i];
}

/* Is the token's row in this part of the table? */
static bool token_row(const struct layer_dims *d, int32_t token, size_t *row)
{
    if ((size_t)token < d->vocab_first)
        return false;
    *row = (size_t)token - d->vocab_first;
    return *row < d->vocab_valid;
}

/* This rank's summand of all tokens' rows. The positions, which every rank has, enter it once. */
static void look_up(struct device *device, const struct layer_call *call,
                    const struct layer_view *view, float *out)
{
    const struct layer_dims *d = &view->dims;
    size_t tokens = d->tokens, hidden = d->hidden, length = d->length;
    const float *table = view->parameters[ROLE_TOKEN_EMBEDDING];
    const float *positions =
        call->part.index == 0 ? view->parameters[ROLE_POSITION_EMBEDDING] : NULL;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++) {
        float *to = out + t * hidden;
        size_t row = 0;
        if (token_row(d, call->tokens[t], &row))
            memcpy(to, table + row * hidden, hidden * sizeof(float));
        else
            memset(to, 0, hidden * sizeof(float));
        if (positions != NULL)
            add(to, positions + t % length * hidden, hidden);
    }
}

enum status embedding_forward(struct device *device, const struct layer_call *call,
                              struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const struct layer_group *group = call->group;
    size_t stream_count = view.dims.stream * view.dims.hidden;
    if (call->part.sequence_parallel) {
        look_up(device, call, &view, call->slots[SLOT_GROUP]);
        return group->reduce_scatter(group->user, call->slots[SLOT_GROUP], call->output,
                                     stream_count, err);
    }
    look_up(device, call, &view, call->output);
    if (call->part.ways == 1)
        return STATUS_OK;
    return group->all_reduce_sum(group->user, call->output, stream_count, err);
}

/* A token may stand in the batch many times: each thread adds up its own columns of all of them, in
 * the order of the batch. */
static void token_gradient(struct device *device, const struct layer_call *call,
                           const struct layer_view *view, const float *gradient)
{
    const struct layer_dims *d = &view->dims;
    size_t tokens = d->tokens, hidden = d->hidden;
    float *table = view->gradients[ROLE_TOKEN_EMBEDDING];
    if (!call->accumulate_matrices && !call->table_is_written)
        device_zero(device, table, d->vocab * hidden * sizeof(float));
#pragma omp parallel num_threads(device->threads)
    {
        struct span columns = span_of_thread(hidden, 16);
        for (size_t t = 0; t < tokens; t++) {
            size_t row = 0;
            if (!token_row(d, call->tokens[t], &row))
                continue;
            add(table + row * hidden + columns.begin, gradient + t * hidden + columns.begin,
                columns.end - columns.begin);
        }
    }
}

static void position_gradient(struct device *device, const struct layer_call *call,
                              const struct layer_view *view, const float *gradient)
{
    size_t hidden = view->dims.hidden, length = view->dims.length;
    float *table = view->gradients[ROLE_POSITION_EMBEDDING];
    if (!call->accumulate_vectors) {
        size_t unused = (size_t)call->model->positions - length;
        device_zero(device, table + length * hidden, unused * hidden * sizeof(float));
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t position = 0; position < length; position++) {
        float *row = table + position * hidden;
        if (!call->accumulate_vectors)
            memset(row, 0, hidden * sizeof(float));
        for (size_t t = position; t < view->dims.tokens; t += length)
            add(row, gradient + t * hidden, hidden);
    }
}

enum status embedding_backward(struct device *device, const struct layer_call *call,
                               struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const float *gradient = NULL;
    TRY(part_gather_gradient(call, &view, &gradient, err));
    token_gradient(device, call, &view, gradient);
    if (view.gradients[ROLE_POSITION_EMBEDDING] != NULL)
        position_gradient(device, call, &view, gradient);
    return STATUS_OK;
}
