/* The head: logits = norm(input) W^T, and the loss. */
#include "executor/ops/internal.h"
#include "executor/ops/linear.h"
#include "executor/ops/loss.h"
#include "executor/ops/norm.h"
#include "executor/ops/parts.h"

static struct linear head_linear(const struct layer_view *view, const struct layer_call *call)
{
    return linear_of(view, call, ROLE_HEAD_WEIGHT, view->dims.hidden, view->dims.vocab);
}

static struct loss loss_of(const struct layer_view *view, const struct layer_call *call)
{
    return (struct loss){
        .tokens = view->dims.tokens,
        .vocab = view->dims.vocab,
        .valid = view->dims.vocab_valid,
        .first = view->dims.vocab_first,
        .group = call->part.ways > 1 ? call->group : NULL,
        .logits = call->slots[SLOT_LOGITS],
        .targets = call->targets,
        .log_sums = (float *)call->slots[SLOT_NORM_STATS] + 2 * view->dims.stream,
        .exchanged = call->slots[SLOT_LOSS],
    };
}

enum status head_forward(struct device *device, const struct layer_call *call, double *loss_sum,
                         struct error *err)
{
    struct layer_view view = layer_view_of(call);
    struct norm norm = norm_of(&view, call);
    const void *normed = NULL;
    norm_forward(device, &norm, call->slots[SLOT_NORM_OUT]);
    TRY(part_gather_normed(call, &view, &normed, err));
    struct linear linear = head_linear(&view, call);
    TRY(linear_forward(device, &linear, normed, NULL, call->slots[SLOT_LOGITS], PRECISION_FP32,
                       err));
    if (call->targets == NULL)
        return STATUS_OK;
    struct loss loss = loss_of(&view, call);
    double sum = 0.0;
    TRY(loss_forward(device, &loss, &sum, err));
    if (loss_sum != NULL)
        *loss_sum = sum;
    return STATUS_OK;
}

enum status head_backward(struct device *device, const struct layer_call *call, struct error *err)
{
    struct layer_view view = layer_view_of(call);
    const struct layer_dims *d = &view.dims;
    void *logits_gradient = call->slots[d->is_16 ? SLOT_GRAD_B : SLOT_LOGITS];
    float *norm_gradient = call->slots[SLOT_GRAD_A];
    const void *normed = NULL;
    TRY(part_gather_normed(call, &view, &normed, err));
    struct loss loss = loss_of(&view, call);
    loss_backward(device, &loss, call->loss_scale, logits_gradient, d->precision);
    layer_poll(call);

    struct linear linear = head_linear(&view, call);
    TRY(linear_backward_input(device, &linear, logits_gradient, norm_gradient, PRECISION_FP32,
                              err));
    TRY(linear_backward_weight(device, &linear, normed, logits_gradient,
                               view.gradients[ROLE_HEAD_WEIGHT], call->accumulate_matrices, err));
    device_zero(device, call->gradient, d->stream * d->hidden * sizeof(float));
    return part_norm_backward(device, call, &view, norm_gradient, err);
}
