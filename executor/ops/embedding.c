/* The embedding: rows of the token table plus, for gpt2, rows of the position table. */
#include "executor/ops/internal.h"
#include "executor/ops/vector.h"

OPS_CLONES
static void add(float *to, const float *from, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        to[i] += from[i];
}

enum status embedding_forward(struct device *device, const struct layer_call *call)
{
    struct layer_view view = layer_view_of(call);
    size_t tokens = view.dims.tokens, hidden = view.dims.hidden, length = view.dims.length;
    const float *table = view.parameters[ROLE_TOKEN_EMBEDDING];
    const float *positions = view.parameters[ROLE_POSITION_EMBEDDING];
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++) {
        float *out = call->output + t * hidden;
        memcpy(out, table + (size_t)call->tokens[t] * hidden, hidden * sizeof(float));
        if (positions != NULL)
            add(out, positions + t % length * hidden, hidden);
    }
    return STATUS_OK;
}

/* A token may stand in the batch many times: each thread adds up its own columns of all of them, in
 * the order of the batch. */
static void token_gradient(struct device *device, const struct layer_call *call,
                           const struct layer_view *view)
{
    size_t tokens = view->dims.tokens, hidden = view->dims.hidden;
    float *table = view->gradients[ROLE_TOKEN_EMBEDDING];
    /* A tied head's backward pass came first and has written the whole table. */
    if (!call->accumulate && !call->model->tied_head)
        device_zero(device, table, view->dims.vocab * hidden * sizeof(float));
#pragma omp parallel num_threads(device->threads)
    {
        struct span columns = span_of_thread(hidden, 16);
        for (size_t t = 0; t < tokens; t++) {
            add(table + (size_t)call->tokens[t] * hidden + columns.begin,
                call->gradient + t * hidden + columns.begin, columns.end - columns.begin);
        }
    }
}

static void position_gradient(struct device *device, const struct layer_call *call,
                              const struct layer_view *view)
{
    size_t hidden = view->dims.hidden, length = view->dims.length;
    float *table = view->gradients[ROLE_POSITION_EMBEDDING];
    if (!call->accumulate) {
        size_t unused = (size_t)call->model->positions - length;
        device_zero(device, table + length * hidden, unused * hidden * sizeof(float));
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t position = 0; position < length; position++) {
        float *row = table + position * hidden;
        if (!call->accumulate)
            memset(row, 0, hidden * sizeof(float));
        for (size_t t = position; t < view->dims.tokens; t += length)
            add(row, call->gradient + t * hidden, hidden);
    }
}

enum status embedding_backward(struct device *device, const struct layer_call *call)
{
    struct layer_view view = layer_view_of(call);
    token_gradient(device, call, &view);
    if (view.gradients[ROLE_POSITION_EMBEDDING] != NULL)
        position_gradient(device, call, &view);
    return STATUS_OK;
}
