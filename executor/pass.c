#include "executor/pass.h"

#include "base/clock.h"
#include "executor/ops/layer.h"
#include <string.h>

void pass_record(const struct pass *pass, enum event_stream stream, int32_t layer, enum phase phase,
                 int64_t start_ns, uint64_t bytes)
{
    if (pass->sink.record == NULL)
        return;
    struct event event = {
        .start_ns = start_ns,
        .end_ns = clock_ns(),
        .step = pass->step,
        .rank = pass->rank,
        .layer = layer,
        .micro_batch = pass->micro_batch,
        .stream = (uint8_t)stream,
        .phase = (uint8_t)phase,
        .live_bytes = bytes,
    };
    pass->sink.record(pass->sink.user, &event);
}

static struct layer_call call_of(const struct pass *pass, size_t index)
{
    const struct layout *layout = pass->layout;
    const struct model *model = &pass->plan->model;
    const struct layer_place *place = &layout->layers[index];
    const struct layer_strategy *strategy = &pass->plan->layers[index];
    struct layer_call call = {
        .model = model,
        .kind = model_layer(model, index).kind,
        .mode = {.precision = strategy->precision, .recompute = strategy->recompute},
        .shape = pass->shape,
        .parameters = layout->parameters + place->first,
        .gradients = layout->gradients == NULL ? NULL : layout->gradients + place->first,
        .accumulate = pass->accumulate,
        .tokens = layout->tokens,
        .targets = layout->targets,
        .loss_scale = pass->loss_scale,
        .input = place->input,
        .output = index + 1 < layout->layer_count ? layout->layers[index + 1].input : NULL,
        .gradient = layout->gradient,
    };
    if (strategy->precision == PRECISION_BF16)
        call.parameters_bf16 = layout->parameters_bf16 + place->first;
    if (model->tied_head) {
        /* The token embedding is the first tensor of the first layer. */
        call.tied_parameters = layout->parameters;
        call.tied_gradients = layout->gradients;
        call.tied_parameters_bf16 =
            strategy->precision == PRECISION_BF16 ? layout->parameters_bf16 : NULL;
    }
    memcpy(call.slots, place->slots, sizeof call.slots);
    return call;
}

/* What a layer's forward leaves alive until its backward: its saved buffers and its input. */
static uint64_t kept_bytes(const struct pass *pass, const struct layer_call *call)
{
    uint64_t boundary = call->input == NULL ? 0 : boundary_bytes(call->model, &pass->shape);
    return boundary + layer_saved_bytes(call->model, call->kind, call->mode, &pass->shape);
}

enum status pass_forward(struct pass *pass, double *loss_sum, struct error *err)
{
    struct device *device = pass->layout->device;
    pass->live_bytes = 0;
    for (size_t i = 0; i < pass->layout->layer_count; i++) {
        struct layer_call call = call_of(pass, i);
        int64_t start_ns = clock_ns();
        TRY(layer_forward(device, &call, call.kind == LAYER_HEAD ? loss_sum : NULL, err));
        pass->live_bytes += kept_bytes(pass, &call);
        pass_record(pass, STREAM_COMPUTE, (int32_t)i, PHASE_FORWARD, start_ns, pass->live_bytes);
    }
    return STATUS_OK;
}

enum status pass_backward(struct pass *pass, struct error *err)
{
    struct device *device = pass->layout->device;
    for (size_t i = pass->layout->layer_count; i-- > 0;) {
        struct layer_call call = call_of(pass, i);
        int64_t start_ns = clock_ns();
        TRY(layer_backward(device, &call, err));
        pass->live_bytes -= kept_bytes(pass, &call);
        pass_record(pass, STREAM_COMPUTE, (int32_t)i, PHASE_BACKWARD, start_ns, pass->live_bytes);
        if (pass->layer_done != NULL)
            TRY(pass->layer_done(pass->layer_done_user, i, err));
    }
    return STATUS_OK;
}
