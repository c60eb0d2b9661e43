#include "costmodel/predict.h"
#include "costmodel/cost.h"
#include "ir/footprint.h"
#include <assert.h>
#include <stdlib.h>

double memory_quantile_bytes(struct quantity memory_bytes)
{
    return memory_bytes.value + MEMORY_QUANTILE_DEVIATIONS * memory_bytes.deviation;
}

static bool plan_has_bf16(const struct plan *plan)
{
    for (size_t i = 0; i < plan->layer_count; i++) {
        if (plan->layers[i].precision == PRECISION_BF16)
            return true;
    }
    return false;
}

/* One layer over a whole step: the accumulation of Narayanan et al. 2021 with one stage. */
static struct layer_prediction predict_layer(const struct plan *plan, const struct layer_cost *cost)
{
    double repeats = (double)plan->micro_batches, ranks = plan->ranks;
    struct layer_prediction out = {
        .time_s = {[PHASE_FORWARD] = quantity_scale(cost->forward_s, repeats),
                   [PHASE_BACKWARD] = quantity_scale(cost->backward_s, repeats),
                   [PHASE_GRAD_REDUCE] = cost->grad_reduce_s,
                   [PHASE_OPTIMIZER] = cost->optimizer_s},
        .energy_j = {[PHASE_FORWARD] = quantity_scale(cost->forward_j, repeats * ranks),
                     [PHASE_BACKWARD] = quantity_scale(cost->backward_j, repeats * ranks),
                     [PHASE_GRAD_REDUCE] = quantity_scale(cost->grad_reduce_j, ranks),
                     [PHASE_OPTIMIZER] = quantity_scale(cost->optimizer_j, ranks)},
        .saved_bytes = cost->saved_bytes,
        .scratch_bytes = cost->scratch_bytes,
        .static_bytes = cost->parameter_bytes + cost->gradient_bytes + cost->optimizer_bytes,
    };
    return out;
}

static enum status predict_layers(const struct profile *profile, const struct plan *plan,
                                  struct prediction *out, struct error *err)
{
    struct layer_work work = {.micro_batch = plan->micro_batch,
                              .placement = {plan->ranks, plan->threads},
                              .bf16_copy = plan_has_bf16(plan)};
    for (size_t i = 0; i < plan->layer_count; i++) {
        struct layer_cost cost;
        work.kind = model_layer(&plan->model, i).kind;
        work.mode = (struct layer_precision_mode){.precision = plan->layers[i].precision,
                                                  .recompute = plan->layers[i].recompute};
        TRY(cost_layer(profile, &plan->model, &work, &cost, err));
        out->layers[i] = predict_layer(plan, &cost);
        for (int phase = 0; phase < PHASE_OTHER; phase++) {
            out->phase_time_s[phase] =
                quantity_add(out->phase_time_s[phase], out->layers[i].time_s[phase]);
            out->phase_energy_j[phase] =
                quantity_add(out->phase_energy_j[phase], out->layers[i].energy_j[phase]);
        }
    }
    return STATUS_OK;
}

static void predict_memory(const struct plan *plan, const struct step_cost *step,
                           struct prediction *out)
{
    struct footprint footprint;
    plan_footprint(plan, &footprint);
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        out->memory_term_bytes[term] = (struct quantity){
            .value = (double)footprint.term_bytes[term], .provenance = PROVENANCE_MODELLED};
    out->memory_term_bytes[MEMORY_PROCESS] = step->process_bytes;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        out->memory_bytes = quantity_add(out->memory_bytes, out->memory_term_bytes[term]);
}

static enum status predict(const struct profile *profile, const struct plan *plan,
                           struct prediction *out, struct error *err)
{
    struct step_cost step;
    TRY(cost_step(profile, (struct placement){plan->ranks, plan->threads}, plan_has_bf16(plan),
                  &step, err));
    TRY(predict_layers(profile, plan, out, err));
    out->phase_time_s[PHASE_OTHER] = step.other_s;
    out->phase_energy_j[PHASE_OTHER] = step.other_j;
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        out->time_s = quantity_add(out->time_s, out->phase_time_s[phase]);
        out->energy_j = quantity_add(out->energy_j, out->phase_energy_j[phase]);
    }
    predict_memory(plan, &step, out);
    return STATUS_OK;
}

enum status predict_plan(const struct profile *profile, const struct plan *plan,
                         struct prediction *out, struct error *err)
{
    assert(plan->layer_count == model_layer_count(&plan->model));
    struct prediction prediction = {.layer_count = plan->layer_count};
    prediction.layers = calloc(plan->layer_count, sizeof(*prediction.layers));
    if (!prediction.layers)
        return error_memory(err, plan->layer_count * sizeof(*prediction.layers), "a prediction");
    enum status status = predict(profile, plan, &prediction, err);
    if (status != STATUS_OK) {
        prediction_clear(&prediction);
        return status;
    }
    prediction_clear(out);
    *out = prediction;
    return STATUS_OK;
}
