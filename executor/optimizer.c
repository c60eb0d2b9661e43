#include "executor/optimizer.h"

#include "base/clock.h"
#include "executor/ops/update.h"
#include <math.h>

double learning_rate_at(const struct optimizer_options *options, int64_t step)
{
    if (step < options->warmup_steps)
        return options->learning_rate * (double)(step + 1) / (double)(options->warmup_steps + 1);
    if (step >= options->decay_steps)
        return options->min_learning_rate;
    double progress = (double)(step - options->warmup_steps) /
                      (double)(options->decay_steps - options->warmup_steps);
    double share = 0.5 * (1.0 + cos(M_PI * progress));
    return options->min_learning_rate +
           share * (options->learning_rate - options->min_learning_rate);
}

double optimizer_gradient_norm(const struct pass *pass)
{
    const struct layout *layout = pass->layout;
    double sum = 0;
    for (size_t i = 0; i < layout->layer_count; i++) {
        int64_t start_ns = clock_ns();
        const struct layer_place *place = &layout->layers[i];
        sum += ops_sum_squares(layout->device, layout->gradients + place->first, place->count);
        pass_record(pass, STREAM_COMPUTE, (int32_t)i, PHASE_OPTIMIZER, start_ns, 0);
    }
    return sqrt(sum);
}

/* One span of a layer's tensors that all decay or all do not. */
struct span {
    uint64_t first, count; /* elements of the flat arrays */
    bool decays;
};

static void update_span(const struct layout *layout, const struct span *span,
                        struct adamw_call call)
{
    call.parameters = layout->parameters + span->first;
    call.gradients = layout->gradients + span->first;
    call.first_moment = layout->first_moment + span->first;
    call.second_moment = layout->second_moment + span->first;
    if (layout->parameters_bf16 != NULL)
        call.parameters_bf16 = layout->parameters_bf16 + span->first;
    call.count = span->count;
    if (!span->decays)
        call.weight_decay = 0;
    if (call.count > 0)
        ops_adamw(layout->device, &call);
}

static void update_layer(const struct pass *pass, size_t index, const struct adamw_call *call)
{
    const struct model *model = &pass->plan->model;
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    size_t count = layer_tensors(model, model_layer(model, index).kind, tensors);
    struct span span = {.first = pass->layout->layers[index].first, .decays = tensors[0].decays};
    for (size_t k = 0; k < count; k++) {
        if (tensors[k].decays != span.decays) {
            update_span(pass->layout, &span, *call);
            span = (struct span){.first = span.first + span.count, .decays = tensors[k].decays};
        }
        span.count += tensor_count(&tensors[k]);
    }
    update_span(pass->layout, &span, *call);
}

void optimizer_update(const struct pass *pass, const struct optimizer_options *options,
                      double learning_rate, double gradient_norm, int64_t time)
{
    struct adamw_call call = {
        .learning_rate = learning_rate,
        .beta1 = options->beta1,
        .beta2 = options->beta2,
        .epsilon = options->epsilon,
        .weight_decay = options->weight_decay,
        .time = time,
        .grad_scale = 1.0,
    };
    if (options->clip_norm > 0 && gradient_norm > options->clip_norm)
        call.grad_scale = options->clip_norm / gradient_norm;
    for (size_t i = 0; i < pass->layout->layer_count; i++) {
        int64_t start_ns = clock_ns();
        update_layer(pass, i, &call);
        pass_record(pass, STREAM_COMPUTE, (int32_t)i, PHASE_OPTIMIZER, start_ns, 0);
    }
}
