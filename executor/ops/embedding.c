/* The embedding: rows of the token table plus, for gpt2, rows of the position table. */
#include "executor/ops/convert.h"
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

/* A token may stand in the batch many times: all of them are added in the order of the batch. */
static void add_tokens(const struct layer_call *call, const struct layer_dims *d, float *table,
                       const float *gradient, struct span columns)
{
    for (size_t t = 0; t < d->tokens; t++) {
        size_t row = 0;
        if (token_row(d, call->tokens[t], &row))
            add(table + row * d->hidden + columns.begin, gradient + t * d->hidden + columns.begin,
                columns.end - columns.begin);
    }
}

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };

static size_t digit_of(int32_t token, unsigned shift)
{
    return (size_t)token >> shift & (DIGITS - 1);
}

/* The places of the batch [tokens] sorted by their tokens, those of a token in the order of the
 * batch: a radix sort from the least digit on. */
static const int32_t *order_by_token(const struct layer_call *call, size_t tokens)
{
    int32_t *order = call->slots[SLOT_ORDER], *sorted = order + tokens;
    for (size_t t = 0; t < tokens; t++)
        order[t] = (int32_t)t;
    for (unsigned shift = 0; call->model->vocab >> shift > 0; shift += DIGIT_BITS) {
        size_t begin[DIGITS + 1] = {0};
        for (size_t t = 0; t < tokens; t++)
            begin[digit_of(call->tokens[t], shift) + 1]++;
        for (size_t digit = 0; digit < DIGITS; digit++)
            begin[digit + 1] += begin[digit];
        for (size_t t = 0; t < tokens; t++)
            sorted[begin[digit_of(call->tokens[order[t]], shift)]++] = order[t];
        int32_t *swap = order;
        order = sorted;
        sorted = swap;
    }
    return order;
}

/* In bf16 all of a token's are added up in fp32 before they are added to its row, so that it is
 * rounded once, however often the token stands there. */
static void add_tokens_bf16(const struct layer_call *call, const struct layer_dims *d,
                            uint16_t *table, const float *gradient, const int32_t *order,
                            struct span columns)
{
    for (size_t first = 0, end = 0; first < d->tokens; first = end) {
        int32_t token = call->tokens[order[first]];
        size_t row = 0, length = 0;
        while (end < d->tokens && call->tokens[order[end]] == token)
            end++;
        if (!token_row(d, token, &row))
            continue;
        for (size_t column = columns.begin; column < columns.end; column += length) {
            float sum[CONVERT_CHUNK] = {0};
            length = columns.end - column < CONVERT_CHUNK ? columns.end - column : CONVERT_CHUNK;
            for (size_t t = first; t < end; t++)
                add(sum, gradient + (size_t)order[t] * d->hidden + column, length);
            convert_add_bf16(sum, table + row * d->hidden + column, length);
        }
    }
}

/* Each thread works on its own columns of all tokens. */
static void token_gradient(struct device *device, const struct layer_call *call,
                           const struct layer_view *view, const float *gradient)
{
    const struct layer_dims *d = &view->dims;
    void *table = view->gradients[ROLE_TOKEN_EMBEDDING];
    bool is_narrow = call->gradient_precision == PRECISION_BF16;
    const int32_t *order = is_narrow ? order_by_token(call, d->tokens) : NULL;
    if (!call->accumulate_matrices && !call->table_is_written)
        device_zero(device, table,
                    d->vocab * d->hidden * precision_bytes(call->gradient_precision));
#pragma omp parallel num_threads(device->threads)
    {
        struct span columns = span_of_thread(d->hidden, 16);
        if (is_narrow)
            add_tokens_bf16(call, d, table, gradient, order, columns);
        else
            add_tokens(call, d, table, gradient, columns);
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
