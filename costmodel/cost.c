#include "costmodel/cost.h"

#include "costmodel/terms.h"
#include "ir/footprint.h"
#include "ir/layer_work.h"
#include "ir/mesh.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>

static const char machine[] = "machine";

/* ---- figures ---- */

bool is_absent(struct quantity quantity)
{
    return quantity.provenance == PROVENANCE_ABSENT;
}

struct placement placement_of(const struct plan *plan)
{
    return (struct placement){.ranks = plan->ranks, .threads = plan->threads};
}

enum status refuse_missing(const char *what, const char *subject, struct placement placement,
                           struct error *err)
{
    return error_set(err, STATUS_INVALID,
                     "the profile has no %s of %s with %d rank%s of %d thread%s; measure it with: "
                     "temper profile --ranks %d --threads %d and the same model options",
                     what, subject, placement.ranks, placement.ranks == 1 ? "" : "s",
                     placement.threads, placement.threads == 1 ? "" : "s", placement.ranks,
                     placement.threads);
}

struct quantity machine_value(const struct profile *profile, struct placement placement,
                              enum metric metric)
{
    const struct series_key key = {.subject = machine, .metric = metric, .placement = placement};
    return profile_value(profile, &key);
}

struct quantity energy_at(struct quantity watts, struct quantity seconds)
{
    struct quantity energy = quantity_scale(watts, seconds.value);
    if (is_absent(energy) || is_absent(seconds))
        return quantity_absent();
    energy.deviation = hypot(energy.deviation, watts.value * seconds.deviation);
    if (energy.provenance < PROVENANCE_INTERPOLATED)
        energy.provenance = PROVENANCE_INTERPOLATED;
    if (energy.provenance < seconds.provenance)
        energy.provenance = seconds.provenance;
    return energy;
}

enum status collective_time(const struct profile *profile, const struct plan *plan,
                            enum collective collective, struct collective_group group,
                            uint64_t bytes, struct quantity *out, struct error *err)
{
    char subject[SUBJECT_BYTES];
    *out = cost_collective(profile, placement_of(plan), collective, group, bytes);
    if (!is_absent(*out))
        return STATUS_OK;
    return refuse_missing("time", collective_subject(collective, group, subject),
                          placement_of(plan), err);
}

void terms_add(const struct layer_terms *terms, enum cost_pass pass, enum phase phase,
               struct quantity seconds)
{
    struct placement placement = placement_of(terms->plan);
    struct quantity *time_s = &terms->cost->time_s[pass][phase];
    struct quantity *energy_j = &terms->cost->energy_j[pass][phase];
    if (seconds.value == 0)
        return;
    struct quantity watts = machine_value(terms->profile, placement, METRIC_ACTIVE_W);
    struct quantity joules = quantity_scale(energy_at(watts, seconds), 1.0 / placement.ranks);
    *time_s = quantity_add(*time_s, seconds);
    *energy_j = quantity_add(*energy_j, joules);
}

/* ---- compute ---- */

void part_subject(const struct plan *plan, size_t layer, struct part_subject *out)
{
    const struct layer_strategy *strategy = &plan->layers[layer];
    const struct layer_part part = mesh_part(plan, layer, 0);
    layer_part_key(&plan->model, &part, out->key);
    out->sequences = mesh_shape(plan, layer).sequences;
    out->series = (struct series_key){.subject = out->key,
                                      .precision = strategy->precision,
                                      .recompute = strategy->recompute,
                                      .attention = strategy->attention,
                                      .placement = placement_of(plan)};
}

static enum status refuse_layer(const struct plan *plan, size_t layer, const char *what,
                                struct error *err)
{
    char key[LAYER_KEY_BYTES], subject[LAYER_KEY_BYTES + 64];
    const struct layer_part part = mesh_part(plan, layer, 0);
    const struct layer_strategy *strategy = &plan->layers[layer];
    (void)snprintf(subject, sizeof(subject), "'%s' in %s, recompute %s%s",
                   layer_part_key(&plan->model, &part, key), precision_name(strategy->precision),
                   recompute_name(strategy->recompute),
                   strategy->attention == ATTENTION_TILED ? ", in tiles" : "");
    return refuse_missing(what, subject, placement_of(plan), err);
}

static enum status compute_terms(const struct layer_terms *terms, struct error *err)
{
    const struct {
        enum metric seconds, joules;
        enum cost_pass pass;
        enum phase phase;
    } passes[] = {
        {METRIC_FORWARD_S, METRIC_FORWARD_J, COST_FORWARD, PHASE_FORWARD},
        {METRIC_BACKWARD_S, METRIC_BACKWARD_J, COST_BACKWARD, PHASE_BACKWARD},
    };
    struct part_subject subject;
    part_subject(terms->plan, terms->layer, &subject);
    struct series_key *key = &subject.series;
    for (size_t i = 0; i < sizeof(passes) / sizeof(*passes); i++) {
        struct quantity *time_s = &terms->cost->time_s[passes[i].pass][passes[i].phase];
        key->metric = passes[i].seconds;
        *time_s = profile_at_micro_batch(terms->profile, key, subject.sequences);
        if (is_absent(*time_s))
            return refuse_layer(terms->plan, terms->layer, "times", err);
        key->metric = passes[i].joules;
        terms->cost->energy_j[passes[i].pass][passes[i].phase] =
            profile_at_micro_batch(terms->profile, key, subject.sequences);
    }
    return STATUS_OK;
}

/* ---- optimizer ---- */

/* bf16 and fp16 move the same bytes: the one stands for the other where only that was measured. */
static struct quantity update_value(const struct profile *profile, struct series_key key)
{
    struct quantity value = profile_value(profile, &key);
    if (!is_absent(value) || key.precision == PRECISION_FP32)
        return value;
    key.precision = key.precision == PRECISION_BF16 ? PRECISION_FP16 : PRECISION_BF16;
    value = profile_value(profile, &key);
    if (!is_absent(value) && value.provenance < PROVENANCE_INTERPOLATED)
        value.provenance = PROVENANCE_INTERPOLATED;
    return value;
}

/* Of the whole state of one part. */
static enum status whole_update(const struct profile *profile, const struct plan *plan,
                                size_t layer, struct quantity *seconds, struct quantity *joules,
                                struct error *err)
{
    struct part_subject subject;
    part_subject(plan, layer, &subject);
    subject.series.recompute = RECOMPUTE_NONE;
    subject.series.attention = ATTENTION_PLAIN;
    subject.series.metric = METRIC_OPTIMIZER_J;
    *joules = update_value(profile, subject.series);
    subject.series.metric = METRIC_OPTIMIZER_S;
    *seconds = update_value(profile, subject.series);
    return is_absent(*seconds) ? refuse_layer(plan, layer, "optimizer time", err) : STATUS_OK;
}

static uint64_t matrix_count(const struct layer_state *state)
{
    return state->partition.count;
}

struct quantity traffic_time(struct quantity whole_update_s, const struct layer_state *state,
                             uint64_t count, int bytes)
{
    double whole = (double)(matrix_count(state) + state->vectors) * UPDATE_BYTES;
    struct quantity seconds =
        quantity_scale(whole_update_s, whole > 0 ? (double)count * bytes / whole : 0);
    seconds.provenance = PROVENANCE_MODELLED;
    return seconds;
}

/* An update is measured with gradients in fp32; what it takes with others goes by the bytes. */
static double update_bytes_share(const struct plan *plan, size_t layer,
                                 const struct layer_state *state)
{
    const struct layer_part part = mesh_part(plan, layer, 0);
    enum precision precision = plan->layers[layer].precision;
    double measured = layer_update_work(&plan->model, &part, precision, PRECISION_FP32).bytes;
    struct layer_work work =
        layer_update_work(&plan->model, &part, precision, state->gradient_precision);
    return measured > 0 ? work.bytes / measured : 1;
}

/* The share of the state that this rank updates: ZeRO's block of the matrices, all vectors. */
static void update_terms(const struct layer_terms *terms, const struct layer_state *state,
                         struct quantity whole_s, struct quantity whole_j)
{
    uint64_t whole = matrix_count(state) + state->vectors;
    uint64_t held = partition_share(&state->partition) + state->vectors;
    double share = held < whole ? (double)held / (double)whole : 1;
    share *= update_bytes_share(terms->plan, terms->layer, state);
    terms->cost->time_s[COST_STEP][PHASE_OPTIMIZER] = quantity_scale(whole_s, share);
    terms->cost->energy_j[COST_STEP][PHASE_OPTIMIZER] = quantity_scale(whole_j, share);
}

bool reads_tied_table(const struct plan *plan, size_t layer)
{
    const struct layer_part part = mesh_part(plan, layer, 0);
    return part.kind == LAYER_HEAD && plan->model.tied_head && !part.owns_table;
}

/* ---- a layer ---- */

static void byte_terms(const struct layer_terms *terms, const struct layer_state *state)
{
    const struct plan *plan = terms->plan;
    const struct layer_strategy *strategy = &plan->layers[terms->layer];
    const struct layer_part part = mesh_part(plan, terms->layer, 0);
    const struct micro_batch_shape shape = mesh_shape(plan, terms->layer);
    const struct layer_precision_mode mode = strategy_mode(strategy);
    struct layer_cost *cost = terms->cost;
    struct layer_state owned = *state;
    if (part.kind == LAYER_EMBEDDING)
        owned.table_16 = 0;
    if (reads_tied_table(plan, terms->layer)) {
        struct layer_state table;
        layer_state_of(plan, 0, &table);
        owned.table_16 = table.table_16;
    }
    cost->parameter_bytes = layer_state_parameter_bytes(&owned);
    cost->gradient_bytes = layer_state_gradient_bytes(&owned);
    cost->optimizer_bytes = layer_state_optimizer_bytes(&owned);
    cost->inflight_bytes = footprint_saved_bytes(&plan->model, &part, mode, &shape);
    cost->scratch_bytes = footprint_scratch_bytes(plan, terms->layer);
}

enum status cost_layer(const struct profile *profile, const struct plan *plan, size_t layer,
                       struct layer_cost *out, struct error *err)
{
    assert(layer < plan->layer_count);
    struct layer_cost cost = {0};
    const struct layer_terms terms = {profile, plan, layer, &cost};
    struct quantity update_s, update_j, table_update_s = {.value = 0}, table_update_j;
    struct layer_state state;
    layer_state_of(plan, layer, &state);
    TRY(compute_terms(&terms, err));
    TRY(whole_update(profile, plan, layer, &update_s, &update_j, err));
    if (reads_tied_table(plan, layer))
        TRY(whole_update(profile, plan, 0, &table_update_s, &table_update_j, err));
    update_terms(&terms, &state, update_s, update_j);
    TRY(tensor_terms(&terms, err));
    TRY(data_terms(&terms, update_s, table_update_s, err));
    byte_terms(&terms, &state);
    *out = cost;
    return STATUS_OK;
}

struct quantity layer_cost_time(const struct layer_cost *cost, enum cost_pass pass)
{
    struct quantity seconds = {.value = 0};
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        seconds = quantity_add(seconds, cost->time_s[pass][phase]);
    return seconds;
}

struct layer_price layer_cost_price(const struct plan *plan, const struct layer_cost *cost)
{
    const double repeats[COST_PASS_COUNT] = {
        [COST_FORWARD] = (double)plan->micro_batches,
        [COST_BACKWARD] = (double)plan->micro_batches,
        [COST_STEP] = 1,
    };
    struct quantity joules = {.value = 0};
    for (int pass = 0; pass < COST_PASS_COUNT; pass++) {
        for (int phase = 0; phase < PHASE_COUNT; phase++)
            joules = quantity_add(joules, quantity_scale(cost->energy_j[pass][phase],
                                                         repeats[pass] * mesh_stage_ranks(plan)));
    }
    const struct quantity *step_s = cost->time_s[COST_STEP];
    return (struct layer_price){
        .tau_s =
            layer_cost_time(cost, COST_FORWARD).value + layer_cost_time(cost, COST_BACKWARD).value,
        .gamma_s = step_s[PHASE_GRAD_REDUCE].value + step_s[PHASE_TENSOR].value,
        .update_s = step_s[PHASE_OPTIMIZER].value + step_s[PHASE_PARAM_GATHER].value,
        .energy_j = is_absent(joules) ? NAN : joules.value,
        .static_bytes = cost->parameter_bytes + cost->gradient_bytes + cost->optimizer_bytes,
        .inflight_bytes = cost->inflight_bytes,
        .scratch_bytes = cost->scratch_bytes,
    };
}

/* ---- beside the layers ---- */

static enum precision lowest_precision(const struct plan *plan)
{
    enum precision lowest = PRECISION_FP32;
    for (size_t i = 0; i < plan->layer_count; i++) {
        if (plan->layers[i].precision != PRECISION_FP32)
            lowest = plan->layers[i].precision;
    }
    return lowest;
}

/* A process that has used 16-bit kernels holds more; where that was not measured, fp32's figure is
 * the nearest. */
static struct quantity process_bytes(const struct profile *profile, const struct plan *plan)
{
    struct series_key key = {.subject = machine,
                             .metric = METRIC_PROCESS_BYTES,
                             .precision = lowest_precision(plan),
                             .placement = placement_of(plan)};
    struct quantity bytes = profile_value(profile, &key);
    if (!is_absent(bytes) || key.precision == PRECISION_FP32)
        return bytes;
    key.precision = PRECISION_FP32;
    bytes = profile_value(profile, &key);
    if (!is_absent(bytes))
        bytes.provenance = PROVENANCE_INTERPOLATED;
    return bytes;
}

enum status cost_step(const struct profile *profile, const struct plan *plan, struct step_cost *out,
                      struct error *err)
{
    enum { RING_BUFFERS = 2 };
    struct placement placement = placement_of(plan);
    struct step_cost cost = {
        .other_s = machine_value(profile, placement, METRIC_STEP_OVERHEAD_S),
        .process_bytes = process_bytes(profile, plan),
        .idle_watts = machine_value(profile, placement, METRIC_IDLE_W),
        .active_watts = machine_value(profile, placement, METRIC_ACTIVE_W),
        .stream_bytes = (uint64_t)footprint_stream_count(plan) *
                        footprint_region_bytes(footprint_stream_bytes(plan)),
    };
    int rings = footprint_ring_count(plan);
    if (rings > 0)
        cost.ring_bytes =
            (uint64_t)rings * RING_BUFFERS * footprint_region_bytes(footprint_ring_bytes(plan));
    if (is_absent(cost.other_s))
        return refuse_missing("step overhead", "the machine", placement, err);
    if (is_absent(cost.process_bytes))
        return refuse_missing("process memory", "the machine", placement, err);
    cost.other_j = energy_at(cost.active_watts, cost.other_s);
    *out = cost;
    return STATUS_OK;
}
