#include "costmodel/predict.h"
#include "base/stats.h"
#include "costmodel/cost.h"
#include "costmodel/simulate.h"
#include "ir/footprint.h"
#include "ir/mesh.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

double memory_quantile_bytes(struct quantity memory_bytes)
{
    return memory_bytes.value + MEMORY_QUANTILE_DEVIATIONS * memory_bytes.deviation;
}

double memory_held_bytes(struct quantity memory_bytes, double risk)
{
    bool is_usual = risk <= 0 || risk == MEMORY_RISK || memory_bytes.deviation <= 0;
    double deviations = is_usual ? MEMORY_QUANTILE_DEVIATIONS : normal_deviations(risk);
    return memory_bytes.value + deviations * memory_bytes.deviation;
}

/* No layer's: the stage waits, or the step is prepared. */
static bool is_layer_phase(int phase)
{
    return phase != PHASE_PIPELINE && phase != PHASE_OTHER;
}

/* ---- the layers ---- */

static void add_to(struct layer_cost *cost, enum cost_pass pass, struct quantity seconds,
                   struct quantity joules)
{
    struct quantity *time_s = &cost->time_s[pass][PHASE_TENSOR];
    struct quantity *energy_j = &cost->energy_j[pass][PHASE_TENSOR];
    if (seconds.value == 0)
        return;
    *time_s = quantity_add(*time_s, seconds);
    *energy_j = quantity_add(*energy_j, joules);
}

/* Within a stage the layer that is left gives what the next one reads; between stages each side
 * spreads what it received. */
static enum status add_reshards(const struct profile *profile, const struct plan *plan,
                                struct layer_cost *costs, struct error *err)
{
    for (size_t i = 0; i + 1 < plan->layer_count; i++) {
        const struct layer_strategy *from = &plan->layers[i], *to = &plan->layers[i + 1];
        bool is_boundary = from->stage != to->stage;
        struct reshard_cost reshard;
        TRY(cost_reshard(profile, plan, from, to, &reshard, err));
        add_to(&costs[is_boundary ? i + 1 : i], COST_FORWARD, reshard.forward_s, reshard.forward_j);
        add_to(&costs[is_boundary ? i : i + 1], COST_BACKWARD, reshard.backward_s,
               reshard.backward_j);
    }
    return STATUS_OK;
}

static struct quantity over_step(const struct plan *plan,
                                 const struct quantity terms[COST_PASS_COUNT][PHASE_COUNT],
                                 int phase)
{
    struct quantity each = quantity_add(terms[COST_FORWARD][phase], terms[COST_BACKWARD][phase]);
    return quantity_add(quantity_scale(each, (double)plan->micro_batches), terms[COST_STEP][phase]);
}

static struct layer_prediction predict_layer(const struct plan *plan, const struct layer_cost *cost)
{
    struct layer_prediction out = {
        .saved_bytes = cost->inflight_bytes,
        .scratch_bytes = cost->scratch_bytes,
        .static_bytes = cost->parameter_bytes + cost->gradient_bytes + cost->optimizer_bytes,
    };
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        out.time_s[phase] = over_step(plan, cost->time_s, phase);
        out.energy_j[phase] =
            quantity_scale(over_step(plan, cost->energy_j, phase), mesh_stage_ranks(plan));
    }
    return out;
}

static enum status predict_layers(const struct profile *profile, const struct plan *plan,
                                  struct layer_cost *costs, struct prediction *out,
                                  struct error *err)
{
    for (size_t i = 0; i < plan->layer_count; i++)
        TRY(cost_layer(profile, plan, i, &costs[i], err));
    TRY(add_reshards(profile, plan, costs, err));
    for (size_t i = 0; i < plan->layer_count; i++)
        out->layers[i] = predict_layer(plan, &costs[i]);
    return STATUS_OK;
}

/* ---- the stages ---- */

/* All times of one stage of the plan, of its virtual stages, and what follows from them; arrays
 * stand one behind the other in `forward_s`, which is owned. */
struct stages {
    double *forward_s, *backward_s;                   /* [virtual stages] */
    double *forward_transfer_s, *backward_transfer_s; /* [virtual stages], the last unused */
    double *work_s;   /* [stages]: all that its layers take in a step */
    double *end_s;    /* [stages]: of its last backward pass */
    double *reduce_s; /* [stages]: exposed synchronisation of gradients */
    double *update_s; /* [stages]: optimizer, gathering what it updated */
    double *wait_s;   /* [stages] */
};

static enum status stages_open(struct stages *out, const struct plan *plan, struct error *err)
{
    size_t stages = (size_t)plan->pipeline;
    size_t virtual_stages = stages * (size_t)plan->virtual_stages;
    size_t count = 4 * virtual_stages + 5 * stages;
    double *at = calloc(count, sizeof(*at));
    if (!at)
        return error_memory(err, count * sizeof(*at), "a prediction");
    double **const by_virtual_stage[] = {&out->forward_s, &out->backward_s,
                                         &out->forward_transfer_s, &out->backward_transfer_s};
    double **const by_stage[] = {&out->work_s, &out->end_s, &out->reduce_s, &out->update_s,
                                 &out->wait_s};
    for (size_t i = 0; i < 4; i++, at += virtual_stages)
        *by_virtual_stage[i] = at;
    for (size_t i = 0; i < 5; i++, at += stages)
        *by_stage[i] = at;
    return STATUS_OK;
}

static void sum_stages(const struct plan *plan, const struct layer_cost *costs,
                       const struct prediction *prediction, struct stages *stages)
{
    for (size_t i = 0; i < plan->layer_count; i++) {
        int virtual_stage = plan->layers[i].stage, stage = mesh_layer_stage(plan, i);
        const struct layer_price price = layer_cost_price(plan, &costs[i]);
        stages->forward_s[virtual_stage] += layer_cost_time(&costs[i], COST_FORWARD).value;
        stages->backward_s[virtual_stage] += layer_cost_time(&costs[i], COST_BACKWARD).value;
        stages->reduce_s[stage] += price.gamma_s;
        stages->update_s[stage] += price.update_s;
        for (int phase = 0; phase < PHASE_COUNT; phase++)
            stages->work_s[stage] += prediction->layers[i].time_s[phase].value;
    }
}

static enum status time_handovers(const struct profile *profile, const struct plan *plan,
                                  struct stages *stages, struct error *err)
{
    for (size_t i = 0; i + 1 < plan->layer_count; i++) {
        int virtual_stage = plan->layers[i].stage;
        struct handover_cost handover;
        if (plan->layers[i + 1].stage == virtual_stage)
            continue;
        TRY(cost_handover(profile, plan, virtual_stage, &plan->layers[i], &plan->layers[i + 1],
                          &handover, err));
        stages->forward_transfer_s[virtual_stage] = handover.forward_s.value;
        stages->backward_transfer_s[virtual_stage] = handover.backward_s.value;
    }
    return STATUS_OK;
}

static enum status time_stages(const struct profile *profile, const struct plan *plan,
                               struct stages *stages, struct error *err)
{
    const struct simulation_input input = {
        .shape = plan_schedule(plan),
        .forward_s = stages->forward_s,
        .backward_s = stages->backward_s,
        .forward_transfer_s = stages->forward_transfer_s,
        .backward_transfer_s = stages->backward_transfer_s,
    };
    struct simulation simulation;
    double reduced_s = 0, update_s = 0;
    if (plan->pipeline == 1)
        return STATUS_OK; /* nobody waits */
    TRY(time_handovers(profile, plan, stages, err));
    TRY(simulate(&input, &simulation, err));
    for (int i = 0; i < plan->pipeline; i++) {
        stages->end_s[i] = simulation.stages[i].end_s;
        reduced_s = fmax(reduced_s, stages->end_s[i] + stages->reduce_s[i]);
        update_s = fmax(update_s, stages->update_s[i]);
    }
    simulation_free(&simulation);
    for (int i = 0; i < plan->pipeline; i++)
        stages->wait_s[i] = fmax(0, reduced_s + update_s - stages->work_s[i]);
    return STATUS_OK;
}

static double stage_work_s(const struct plan *plan, const struct prediction *prediction, int stage)
{
    double seconds = 0;
    for (size_t i = 0; i < plan->layer_count; i++) {
        for (int phase = 0; mesh_layer_stage(plan, i) == stage && phase < PHASE_COUNT; phase++)
            seconds += prediction->layers[i].time_s[phase].value;
    }
    return seconds;
}

int predict_critical_stage(const struct plan *plan, const struct prediction *prediction)
{
    int critical = 0;
    double most_s = stage_work_s(plan, prediction, 0);
    for (int stage = 1; stage < plan->pipeline; stage++) {
        double work_s = stage_work_s(plan, prediction, stage);
        if (work_s > most_s) {
            critical = stage;
            most_s = work_s;
        }
    }
    return critical;
}

/* ---- the phases ---- */

static void sum_layers(const struct plan *plan, int critical, struct prediction *out)
{
    for (size_t i = 0; i < plan->layer_count; i++) {
        const struct layer_prediction *layer = &out->layers[i];
        bool is_critical = mesh_layer_stage(plan, i) == critical;
        for (int phase = 0; phase < PHASE_COUNT; phase++) {
            if (!is_layer_phase(phase))
                continue;
            out->phase_energy_j[phase] =
                quantity_add(out->phase_energy_j[phase], layer->energy_j[phase]);
            if (is_critical)
                out->phase_time_s[phase] =
                    quantity_add(out->phase_time_s[phase], layer->time_s[phase]);
        }
    }
}

/* What the stages wait for scales with what they do: so does its deviation. */
static void add_waits(const struct plan *plan, const struct stages *stages,
                      const struct step_cost *step, int critical, struct prediction *out)
{
    struct quantity work_s = {.value = 0};
    double all_s = 0;
    if (plan->pipeline == 1)
        return;
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        work_s = quantity_add(work_s, out->phase_time_s[phase]);
    double share = work_s.value > 0 ? work_s.deviation / work_s.value : 0;
    for (int i = 0; i < plan->pipeline; i++)
        all_s += stages->wait_s[i];
    /* Each of a stage's ranks has its share of the hosts' power. */
    double idle_s = all_s * mesh_stage_ranks(plan) / plan->ranks;
    out->phase_time_s[PHASE_PIPELINE] = (struct quantity){
        .value = stages->wait_s[critical],
        .deviation = stages->wait_s[critical] * share,
        .provenance = PROVENANCE_MODELLED,
    };
    struct quantity *joules = &out->phase_energy_j[PHASE_PIPELINE];
    *joules = quantity_scale(step->idle_watts, idle_s);
    if (joules->provenance == PROVENANCE_ABSENT)
        return;
    joules->deviation = hypot(joules->deviation, joules->value * share);
    joules->provenance = PROVENANCE_MODELLED;
}

static void predict_memory(const struct plan *plan, const struct step_cost *step,
                           struct prediction *out)
{
    struct footprint footprint;
    plan_footprint(plan, plan_fullest_stage(plan), &footprint);
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        out->memory_term_bytes[term] = (struct quantity){
            .value = (double)footprint.term_bytes[term], .provenance = PROVENANCE_MODELLED};
    out->memory_term_bytes[MEMORY_PROCESS] = step->process_bytes;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        out->memory_bytes = quantity_add(out->memory_bytes, out->memory_term_bytes[term]);
}

/* ---- the whole ---- */

static enum status predict(const struct profile *profile, const struct plan *plan,
                           struct layer_cost *costs, struct stages *stages, struct prediction *out,
                           struct error *err)
{
    struct step_cost step;
    TRY(cost_step(profile, plan, &step, err));
    TRY(predict_layers(profile, plan, costs, out, err));
    sum_stages(plan, costs, out, stages);
    TRY(time_stages(profile, plan, stages, err));
    int critical = predict_critical_stage(plan, out);
    sum_layers(plan, critical, out);
    add_waits(plan, stages, &step, critical, out);
    out->phase_time_s[PHASE_OTHER] = step.other_s;
    out->phase_energy_j[PHASE_OTHER] = step.other_j;
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        out->time_s = quantity_add(out->time_s, out->phase_time_s[phase]);
        out->energy_j = quantity_add(out->energy_j, out->phase_energy_j[phase]);
    }
    predict_memory(plan, &step, out);
    return STATUS_OK;
}

static enum status predict_in(const struct profile *profile, const struct plan *plan,
                              struct layer_cost *costs, struct prediction *out, struct error *err)
{
    struct stages stages;
    TRY(stages_open(&stages, plan, err));
    enum status status = predict(profile, plan, costs, &stages, out, err);
    free(stages.forward_s);
    return status;
}

enum status predict_plan(const struct profile *profile, const struct plan *plan,
                         struct prediction *out, struct error *err)
{
    size_t count = plan->layer_count;
    assert(count == model_layer_count(&plan->model));
    struct prediction prediction = {.layer_count = count};
    struct layer_cost *costs = calloc(count, sizeof(*costs));
    enum status status = STATUS_OK;
    prediction.layers = calloc(count, sizeof(*prediction.layers));
    if (!prediction.layers || !costs)
        status = error_memory(err, count * (sizeof(*prediction.layers) + sizeof(*costs)),
                              "a prediction");
    else
        status = predict_in(profile, plan, costs, &prediction, err);
    free(costs);
    if (status != STATUS_OK) {
        prediction_clear(&prediction);
        return status;
    }
    prediction_clear(out);
    *out = prediction;
    return STATUS_OK;
}
