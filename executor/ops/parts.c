#include "executor/ops/parts.h"

#include "executor/ops/norm.h"
#include "executor/ops/update.h"

/* Of the rank's tokens. */
static void *norm_out_of(const struct layer_call *call)
{
    if (call->slots[SLOT_NORM_OUT] != NULL)
        return call->slots[SLOT_NORM_OUT];
    return call->slots[call->part.kind == LAYER_MLP ? SLOT_GRAD_C : SLOT_GRAD_A];
}

static enum status gather_normed(const struct layer_call *call, const struct layer_view *view,
                                 const void *normed, const void **out, struct error *err)
{
    const struct layer_dims *d = &view->dims;
    *out = normed;
    if (!call->part.sequence_parallel)
        return STATUS_OK;
    *out = call->slots[SLOT_GATHER];
    return call->group->all_gather(call->group->user, normed, call->slots[SLOT_GATHER],
                                   d->stream * d->hidden * precision_bytes(d->precision), err);
}

enum status part_norm(struct device *device, const struct layer_call *call,
                      const struct layer_view *view, const void **out, struct error *err)
{
    struct norm norm = norm_of(view, call);
    void *normed = norm_out_of(call);
    norm_forward(device, &norm, normed);
    return gather_normed(call, view, normed, out, err);
}

enum status part_norm_again(struct device *device, const struct layer_call *call,
                            const struct layer_view *view, const void **out, struct error *err)
{
    struct norm norm = norm_of(view, call);
    void *normed = norm_out_of(call);
    if (call->mode.recompute == RECOMPUTE_SELECTIVE)
        norm_forward_again(device, &norm, normed);
    return gather_normed(call, view, normed, out, err);
}

static enum status scattered_output(struct device *device, const struct layer_call *call,
                                    const struct layer_view *view, const struct linear *linear,
                                    const void *x, const float *bias, struct error *err)
{
    const struct layer_dims *d = &view->dims;
    float *products = call->slots[SLOT_GROUP];
    TRY(linear_forward(device, linear, x, NULL, products, PRECISION_FP32, err));
    TRY(call->group->reduce_scatter(call->group->user, products, call->output,
                                    d->stream * d->hidden, err));
    rows_add_onto(device, call->input, bias, call->output, d->stream, d->hidden);
    return STATUS_OK;
}

enum status part_output(struct device *device, const struct layer_call *call,
                        const struct layer_view *view, const struct linear *linear, const void *x,
                        const float *bias, struct error *err)
{
    const struct layer_dims *d = &view->dims;
    if (call->part.sequence_parallel)
        return scattered_output(device, call, view, linear, x, bias, err);
    /* What is not split enters the sum once. */
    if (call->part.index > 0) {
        TRY(linear_forward(device, linear, x, NULL, call->output, PRECISION_FP32, err));
    } else {
        rows_add(device, call->input, bias, call->output, d->tokens, d->hidden);
        TRY(linear_forward_add(device, linear, x, call->output, err));
    }
    if (call->part.ways == 1)
        return STATUS_OK;
    return call->group->all_reduce_sum(call->group->user, call->output, d->tokens * d->hidden, err);
}

enum status part_gather_gradient(const struct layer_call *call, const struct layer_view *view,
                                 const float **out, struct error *err)
{
    *out = call->gradient;
    if (!call->part.sequence_parallel)
        return STATUS_OK;
    *out = call->slots[SLOT_GROUP];
    return call->group->all_gather(call->group->user, call->gradient, call->slots[SLOT_GROUP],
                                   view->dims.stream * view->dims.hidden * sizeof(float), err);
}

enum status part_incoming(struct device *device, const struct layer_call *call,
                          const struct layer_view *view, enum tensor_role bias, const void **out,
                          struct error *err)
{
    const struct layer_dims *d = &view->dims;
    const float *gradient = NULL;
    TRY(part_gather_gradient(call, view, &gradient, err));
    *out = gradient;
    if (d->is_16) {
        ops_cast_16(device, gradient, call->slots[SLOT_GRAD_C], d->tokens * d->hidden,
                    d->precision);
        *out = call->slots[SLOT_GRAD_C];
    }
    if (view->gradients[bias] != NULL) {
        columns_sum(device, gradient, PRECISION_FP32, view->gradients[bias], d->tokens, d->hidden,
                    call->accumulate_vectors);
    }
    return STATUS_OK;
}

enum status part_norm_backward(struct device *device, const struct layer_call *call,
                               const struct layer_view *view, float *out_gradient,
                               struct error *err)
{
    const struct layer_dims *d = &view->dims;
    const struct layer_group *group = call->group;
    const float *whole = out_gradient;
    if (call->part.sequence_parallel) {
        whole = call->slots[SLOT_GROUP];
        TRY(group->reduce_scatter(group->user, out_gradient, call->slots[SLOT_GROUP],
                                  d->stream * d->hidden, err));
    } else if (call->part.ways > 1) {
        TRY(group->all_reduce_sum(group->user, out_gradient, d->tokens * d->hidden, err));
    }
    struct norm norm = norm_of(view, call);
    norm_backward_weight(device, &norm, whole, view->gradients[ROLE_NORM_WEIGHT],
                         view->gradients[ROLE_NORM_BIAS], call->accumulate_vectors);
    norm_backward_input(device, &norm, whole, call->gradient);
    return STATUS_OK;
}
