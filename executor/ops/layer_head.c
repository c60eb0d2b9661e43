/* The head: logits = norm(input) W^T, and the loss, a chunk of tokens at a time. */
#include "executor/ops/internal.h"
#include "executor/ops/linear.h"
#include "executor/ops/loss.h"
#include "executor/ops/parts.h"

/* One chunk of tokens on its way through the head. */
struct head_chunk {
    struct span tokens;
    const void *normed; /* [tokens, hidden] */
    struct linear linear;
    struct loss loss;
};

static struct head_chunk chunk_of(const struct layer_view *view, const struct layer_call *call,
                                  const void *normed, struct span tokens)
{
    const struct layer_dims *d = &view->dims;
    size_t count = tokens.end - tokens.begin;
    size_t row_bytes = d->hidden * (size_t)precision_bytes(d->precision);
    struct head_chunk chunk = {
        .tokens = tokens,
        .normed = (const char *)normed + tokens.begin * row_bytes,
        .linear = linear_of(view, call, ROLE_HEAD_WEIGHT, d->hidden, d->vocab),
        .loss = {.tokens = count,
                 .vocab = d->vocab,
                 .valid = d->vocab_valid,
                 .first = d->vocab_first,
                 .group = call->part.ways > 1 ? call->group : NULL,
                 .logits = call->slots[SLOT_LOGITS],
                 .targets = call->targets != NULL ? call->targets + tokens.begin : NULL,
                 .rows = loss_rows_at(call->slots[SLOT_LOSS], count)},
    };
    chunk.linear.tokens = count;
    return chunk;
}

static enum status make_logits(struct device *device, const struct head_chunk *chunk,
                               struct error *err)
{
    return linear_forward(device, &chunk->linear, chunk->normed, NULL, chunk->loss.logits,
                          PRECISION_FP32, err);
}

static struct span span_of_chunk(const struct layer_dims *d, size_t begin)
{
    return (struct span){begin, d->tokens - begin < d->chunk ? d->tokens : begin + d->chunk};
}

enum status head_forward(struct device *device, const struct layer_call *call, double *loss_sum,
                         struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const void *normed = NULL;
    double sum = 0.0;
    if (loss_sum == NULL)
        return STATUS_OK;
    TRY(part_norm(device, call, &view, &normed, err));
    for (size_t begin = 0; begin < view.dims.tokens; begin += view.dims.chunk) {
        struct head_chunk chunk = chunk_of(&view, call, normed, span_of_chunk(&view.dims, begin));
        TRY(make_logits(device, &chunk, err));
        TRY(loss_forward(device, &chunk.loss, &sum, err));
    }
    *loss_sum = sum;
    return STATUS_OK;
}

enum status head_logits(struct device *device, const struct layer_call *call, struct span tokens,
                        struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const void *normed = NULL;
    TRY(part_norm(device, call, &view, &normed, err));
    struct head_chunk chunk = chunk_of(&view, call, normed, tokens);
    return make_logits(device, &chunk, err);
}

/* Logits, loss and gradients of one chunk, which adds to `sum` and to the weight's gradient, if
 * that is not to be overwritten, and writes its own rows of the gradient by the norm's output. */
static enum status backward_chunk(struct device *device, const struct layer_call *call,
                                  const struct layer_view *view, const struct head_chunk *chunk,
                                  double *sum, struct error *err)
{
    const struct layer_dims *d = &view->dims;
    void *logits_gradient = call->slots[d->is_16 ? SLOT_GRAD_B : SLOT_LOGITS];
    float *norm_gradient = (float *)call->slots[SLOT_GRAD_A] + chunk->tokens.begin * d->hidden;
    bool accumulates = call->accumulate_matrices || chunk->tokens.begin > 0;
    TRY(make_logits(device, chunk, err));
    const struct loss_gradient gradient = {call->loss_scale, d->precision, logits_gradient};
    TRY(loss_backward(device, &chunk->loss, &gradient, sum, err));
    layer_poll(call);
    TRY(linear_backward_input(device, &chunk->linear, logits_gradient, norm_gradient,
                              PRECISION_FP32, err));
    return linear_backward_weight(device, &chunk->linear, chunk->normed, logits_gradient,
                                  view->gradients[ROLE_HEAD_WEIGHT], accumulates, err);
}

enum status head_backward(struct device *device, const struct layer_call *call, double *loss_sum,
                          struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const struct layer_dims *d = &view.dims;
    const void *normed = NULL;
    double sum = 0.0;
    TRY(part_norm(device, call, &view, &normed, err));
    for (size_t begin = 0; begin < d->tokens; begin += d->chunk) {
        struct head_chunk chunk = chunk_of(&view, call, normed, span_of_chunk(d, begin));
        TRY(backward_chunk(device, call, &view, &chunk, &sum, err));
    }
    if (loss_sum != NULL)
        *loss_sum = sum;
    device_zero(device, call->gradient, d->stream * d->hidden * sizeof(float));
    return part_norm_backward(device, call, &view, call->slots[SLOT_GRAD_A], err);
}
