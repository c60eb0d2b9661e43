/* The head: logits = norm(input) W^T, and the loss. */
#include "executor/ops/internal.h"
#include "executor/ops/linear.h"
#include "executor/ops/loss.h"
#include "executor/ops/norm.h"

static struct linear head_linear(const struct layer_view *view, const struct layer_call *call)
{
    return linear_of(view, call, ROLE_HEAD_WEIGHT, view->dims.hidden, view->dims.vocab);
}

static struct loss loss_of(const struct layer_view *view, const struct layer_call *call)
{
    return (struct loss){
        .tokens = view->dims.tokens,
        .vocab = view->dims.vocab,
        .logits = call->slots[SLOT_LOGITS],
        .targets = call->targets,
        .log_sums = (float *)call->slots[SLOT_NORM_STATS] + 2 * view->dims.tokens,
    };
}

enum status head_forward(struct device *device, const struct layer_call *call, double *loss_sum,
                         struct error *err)
{
    struct layer_view view = layer_view_of(call);
    struct norm norm = norm_of(&view, call);
    norm_forward(device, &norm, call->slots[SLOT_NORM_OUT]);
    struct linear linear = head_linear(&view, call);
    TRY(linear_forward(device, &linear, call->slots[SLOT_NORM_OUT], NULL, call->slots[SLOT_LOGITS],
                       PRECISION_FP32, err));
    if (call->targets == NULL)
        return STATUS_OK;
    struct loss loss = loss_of(&view, call);
    double sum = loss_forward(device, &loss);
    if (loss_sum != NULL)
        *loss_sum = sum;
    return STATUS_OK;
}

enum status head_backward(struct device *device, const struct layer_call *call, struct error *err)
{
    struct layer_view view = layer_view_of(call);
    size_t tokens = view.dims.tokens, hidden = view.dims.hidden;
    void *logits_gradient = call->slots[view.dims.bf16 ? SLOT_GRAD_B : SLOT_LOGITS];
    float *norm_gradient = call->slots[SLOT_GRAD_A];
    struct loss loss = loss_of(&view, call);
    loss_backward(device, &loss, call->loss_scale, view.dims.bf16 ? logits_gradient : NULL);

    struct linear linear = head_linear(&view, call);
    TRY(linear_backward_input(device, &linear, logits_gradient, norm_gradient, PRECISION_FP32,
                              err));
    TRY(linear_backward_weight(device, &linear, call->slots[SLOT_NORM_OUT], logits_gradient,
                               view.gradients[ROLE_HEAD_WEIGHT], call->accumulate, err));

    struct norm norm = norm_of(&view, call);
    norm_backward_weight(device, &norm, norm_gradient, view.gradients[ROLE_NORM_WEIGHT],
                         view.gradients[ROLE_NORM_BIAS], call->accumulate);
    device_zero(device, call->gradient, tokens * hidden * sizeof(float));
    norm_backward_input(device, &norm, norm_gradient, call->gradient);
    return STATUS_OK;
}
