#include "traces/compare.h"
#include "base/stats.h"
#include "ir/mesh.h"
#include <math.h>
#include <stdlib.h>

/* A figure that is no number is not known either. */
static struct quantity absent_unless_finite(struct quantity quantity)
{
    return isfinite(quantity.value) ? quantity : quantity_absent();
}

static struct comparison compare(struct quantity predicted, struct quantity measured)
{
    struct comparison result = {.predicted = absent_unless_finite(predicted),
                                .measured = absent_unless_finite(measured)};
    result.has_error = result.predicted.provenance != PROVENANCE_ABSENT &&
                       result.measured.provenance != PROVENANCE_ABSENT && measured.value != 0 &&
                       isfinite(predicted.value / measured.value);
    if (result.has_error)
        result.error = predicted.value / measured.value - 1;
    return result;
}

static struct quantity measured(double value, double deviation)
{
    return (struct quantity){value, deviation, PROVENANCE_MEASURED};
}

/* 0 stands for "not known" in a run's record. */
static struct quantity measured_bytes(int64_t bytes)
{
    return bytes > 0 ? measured((double)bytes, 0) : quantity_absent();
}

static bool has_prediction(const struct plan *plan)
{
    return plan->prediction.layers && plan->prediction.layer_count == plan->layer_count;
}

static struct quantity predicted(const struct plan *plan, struct quantity quantity)
{
    return has_prediction(plan) ? quantity : quantity_absent();
}

/* ---- the whole step ---- */

static enum status measure_step_time(const struct run_record *record, size_t warmup,
                                     struct quantity *out, struct error *err)
{
    size_t count = record->step_count - warmup, kept = 0;
    *out = quantity_absent();
    if (count == 0)
        return STATUS_OK;
    double *seconds = calloc(count, sizeof(*seconds));
    if (!seconds)
        return error_memory(err, count * sizeof(*seconds), "step times");
    struct stats stats = {0};
    for (size_t i = warmup; i < record->step_count; i++) {
        double value = record->steps[i].seconds;
        if (!isfinite(value) || value <= 0)
            continue;
        stats_add(&stats, value);
        seconds[kept++] = value;
    }
    if (kept > 0)
        *out = measured(stats_median(seconds, kept), stats_deviation(&stats));
    free(seconds);
    return STATUS_OK;
}

static struct quantity measure_step_energy(const struct run_record *record, size_t warmup)
{
    struct stats stats = {0};
    enum provenance worst = PROVENANCE_MEASURED;
    for (size_t i = warmup; i < record->step_count; i++) {
        struct quantity energy = record->steps[i].energy_j;
        if (energy.provenance == PROVENANCE_ABSENT || !isfinite(energy.value))
            continue;
        stats_add(&stats, energy.value);
        worst = energy.provenance > worst ? energy.provenance : worst;
    }
    if (stats.n == 0)
        return quantity_absent();
    return (struct quantity){stats.mean, stats_deviation(&stats), worst};
}

static struct quantity tokens_rate(double tokens, struct quantity seconds)
{
    if (seconds.provenance == PROVENANCE_ABSENT || !(seconds.value > 0) || !(tokens > 0))
        return quantity_absent();
    return (struct quantity){
        .value = tokens / seconds.value,
        .deviation = tokens / seconds.value * (seconds.deviation / seconds.value),
        .provenance = seconds.provenance,
    };
}

/* Model FLOPs (forward and twice that for backward, nothing for recomputation) of all ranks' step
 * over the step's time, as a share of the peak: Chowdhery et al. 2022, appendix B. */
static double matmul_share(const struct run_record *record, struct quantity step_time_s)
{
    const struct plan *plan = &record->plan;
    struct micro_batch_shape shape = plan_shape(plan);
    if (!(record->info.matmul_flops > 0) || step_time_s.provenance == PROVENANCE_ABSENT)
        return 0;
    double forward = 0;
    for (size_t i = 0; i < plan->layer_count; i++)
        forward += layer_forward_flops(&plan->model, model_layer(&plan->model, i).kind, &shape);
    double flops = 3 * forward * (double)plan->micro_batches * plan->data_parallel;
    return flops / step_time_s.value / record->info.matmul_flops;
}

static enum status compare_step(const struct run_record *record, struct run_comparison *out,
                                struct error *err)
{
    const struct plan *plan = &record->plan;
    size_t count = record->step_count;
    out->steps = count > 0 ? record->steps[count - 1].step + 1 : 0;
    out->warmup_steps = count > COMPARE_WARMUP_STEPS ? (size_t)COMPARE_WARMUP_STEPS
                        : count > 0                  ? count - 1
                                                     : 0;
    struct quantity time_s;
    TRY(measure_step_time(record, out->warmup_steps, &time_s, err));
    struct quantity predicted_s = predicted(plan, plan->prediction.time_s);
    out->step_time_s = compare(predicted_s, time_s);
    double planned_tokens = (double)plan->global_batch * (double)plan->model.seq_length;
    double tokens = count > 0 ? (double)record->steps[count - 1].tokens : planned_tokens;
    out->tokens_per_s =
        compare(tokens_rate(planned_tokens, predicted_s), tokens_rate(tokens, time_s));
    out->energy_j = compare(predicted(plan, plan->prediction.energy_j),
                            measure_step_energy(record, out->warmup_steps));
    out->matmul_share = matmul_share(record, time_s);
    out->final_loss = count > 0 ? record->steps[count - 1].loss : NAN;
    size_t evaluations = record->evaluation_count;
    out->validation_loss = evaluations > 0 ? record->evaluations[evaluations - 1].loss : NAN;
    return STATUS_OK;
}

/* ---- memory ---- */

static void compare_memory(const struct run_record *record, struct run_comparison *out)
{
    const struct plan *plan = &record->plan;
    const struct quantity *terms = plan->prediction.memory_term_bytes;
    struct quantity laid_out = measured(0, 0);
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        if (term != MEMORY_PROCESS)
            laid_out = quantity_add(laid_out, predicted(plan, terms[term]));
    int64_t peak = record->info.peak_bytes, layout = record->info.layout_bytes;
    out->peak_bytes = compare(predicted(plan, plan->prediction.memory_bytes), measured_bytes(peak));
    out->layout_bytes = compare(laid_out, measured_bytes(layout));
    bool as_predicted = out->layout_bytes.has_error && fabs(out->layout_bytes.error) < 1e-9;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        struct quantity known = quantity_absent();
        if (term == MEMORY_PROCESS && layout > 0)
            known = measured_bytes(peak - layout);
        else if (term != MEMORY_PROCESS && as_predicted)
            known = measured(terms[term].value, 0);
        out->memory_term_bytes[term] = compare(predicted(plan, terms[term]), known);
    }
}

/* ---- phases and layers ---- */

/* The step's energy times a share of the ranks' time. */
static struct quantity apportion(struct quantity energy_j, struct quantity part_s, double ranks,
                                 double rank_seconds)
{
    if (part_s.provenance == PROVENANCE_ABSENT || !(rank_seconds > 0))
        return quantity_absent();
    struct quantity share = quantity_scale(energy_j, part_s.value * ranks / rank_seconds);
    if (share.provenance < PROVENANCE_MODELLED)
        share.provenance = PROVENANCE_MODELLED;
    return share;
}

/* The stage whose phases the prediction gives (costmodel/predict.h): the one with most to do. */
static int predicted_stage(const struct plan *plan)
{
    int critical = -1;
    double most_s = -1;
    for (int stage = 0; stage < plan->pipeline && has_prediction(plan); stage++) {
        double work_s = 0;
        for (size_t i = 0; i < plan->layer_count; i++)
            for (int phase = 0; mesh_layer_stage(plan, i) == stage && phase < PHASE_COUNT; phase++)
                work_s += plan->prediction.layers[i].time_s[phase].value;
        if (work_s > most_s) {
            critical = stage;
            most_s = work_s;
        }
    }
    return critical;
}

static void compare_phases(const struct run_record *record, const struct times *times,
                           struct run_comparison *out)
{
    const struct plan *plan = &record->plan;
    double rank_seconds = times_rank_seconds(times), ranks = (double)times->rank_count;
    out->rank_count = times->rank_count;
    out->predicted_stage = predicted_stage(plan);
    out->measured_stage = times_critical_stage(times);
    for (int i = 0; i < PHASE_COUNT; i++) {
        enum phase phase = (enum phase)i;
        struct quantity time_s = quantity_absent();
        if (out->measured_stage >= 0)
            time_s = times_of_stage(times, out->measured_stage, phase);
        out->phase_s[i] = compare(predicted(plan, plan->prediction.phase_time_s[i]), time_s);
        out->phase_energy_j[i] = compare(
            predicted(plan, plan->prediction.phase_energy_j[i]),
            apportion(out->energy_j.measured, times_of_all(times, phase), ranks, rank_seconds));
        out->phase_spread[i] = times->spread[i];
    }
}

static bool is_pass(const struct event *event)
{
    return event->stream == STREAM_COMPUTE &&
           (event->phase == PHASE_FORWARD || event->phase == PHASE_BACKWARD);
}

/* By how much the bytes alive on a rank grew with the layer's first recorded forward pass, over
 * what they were after the pass before it, of whichever layer the rank has; absent without events.
 */
static struct quantity kept_bytes(const struct run_record *record, size_t index)
{
    const struct event *end = record->events + record->event_count, *after = record->events;
    while (after < end &&
           !(is_pass(after) && after->phase == PHASE_FORWARD && after->layer == (int64_t)index))
        after++;
    if (after == end)
        return quantity_absent();
    for (const struct event *before = after; before-- > record->events;) {
        if (is_pass(before) && before->step == after->step && before->rank == after->rank)
            return measured((double)after->live_bytes - (double)before->live_bytes, 0);
    }
    return measured((double)after->live_bytes, 0);
}

/* Phase by phase, and the sums over what both sides have. */
static void compare_layer_phases(const struct run_record *record, const struct times *times,
                                 size_t index, struct layer_comparison *out,
                                 struct quantity *predicted_j)
{
    const struct plan *plan = &record->plan;
    bool any = false;
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        any = any || times->by_layer[phase];
    struct quantity predicted_s = measured(0, 0);
    struct quantity measured_s = any ? measured(0, 0) : quantity_absent();
    *predicted_j = measured(0, 0);
    for (int i = 0; i < PHASE_COUNT; i++) {
        struct quantity time_s = quantity_absent(), energy_j = quantity_absent();
        if (!times_is_of_layer((enum phase)i)) {
            out->phase_s[i] = compare(time_s, time_s);
            continue;
        }
        if (has_prediction(plan)) {
            time_s = plan->prediction.layers[index].time_s[i];
            energy_j = plan->prediction.layers[index].energy_j[i];
        }
        struct quantity known_s = times_of_layer(times, index, (enum phase)i);
        out->phase_s[i] = compare(time_s, known_s);
        if (any && !times->by_layer[i])
            continue;
        predicted_s = quantity_add(predicted_s, time_s);
        *predicted_j = quantity_add(*predicted_j, energy_j);
        measured_s = quantity_add(measured_s, known_s);
    }
    out->total_s = compare(predicted_s, measured_s);
}

static void compare_layer(const struct run_record *record, const struct times *times,
                          struct quantity step_energy_j, size_t index, struct layer_comparison *out)
{
    const struct plan *plan = &record->plan;
    struct quantity predicted_j, predicted_bytes = quantity_absent();
    *out = (struct layer_comparison){
        .layer = model_layer(&plan->model, index),
        .strategy = plan->layers[index],
    };
    compare_layer_phases(record, times, index, out, &predicted_j);
    double ranks = (double)times->stage_ranks[mesh_layer_stage(plan, index)];
    out->energy_j = compare(predicted_j, apportion(step_energy_j, out->total_s.measured, ranks,
                                                   times_rank_seconds(times)));
    if (has_prediction(plan))
        predicted_bytes = (struct quantity){
            .value = (double)plan->prediction.layers[index].saved_bytes,
            .provenance = PROVENANCE_MODELLED,
        };
    out->kept_bytes = compare(predicted_bytes, kept_bytes(record, index));
}

/* Everything that draws or sums a run indexes by these without looking again. */
static enum status check_event(const struct run_record *record, size_t index, struct error *err)
{
    const struct event *event = &record->events[index];
    const struct plan *plan = &record->plan;
    if (event->rank < 0 || event->rank >= plan->ranks || event->layer < EVENT_NO_LAYER ||
        event->layer >= (int64_t)plan->layer_count || event->phase >= PHASE_COUNT ||
        event->stream >= STREAM_COUNT || event->end_ns < event->start_ns || event->waited_ns < 0 ||
        event->waited_ns > event->end_ns - event->start_ns)
        return error_set(
            err, STATUS_CORRUPT,
            "run %lld: event %zu (rank %d, layer %d, phase %d, stream %d, %lld ns) does "
            "not fit its plan of %d ranks and %zu layers",
            (long long)record->info.id, index, (int)event->rank, (int)event->layer,
            (int)event->phase, (int)event->stream, (long long)(event->end_ns - event->start_ns),
            plan->ranks, plan->layer_count);
    return STATUS_OK;
}

static enum status compare_layers(const struct run_record *record, struct run_comparison *out,
                                  struct error *err)
{
    struct times times;
    TRY(times_open(&times, record, err));
    compare_phases(record, &times, out);
    out->layers = calloc(out->layer_count, sizeof(out->layers[0]));
    for (size_t i = 0; out->layers && i < out->layer_count; i++)
        compare_layer(record, &times, out->energy_j.measured, i, &out->layers[i]);
    times_close(&times);
    if (!out->layers)
        return error_memory(err, out->layer_count * sizeof(out->layers[0]), "a comparison");
    return STATUS_OK;
}

enum status compare_run(const struct run_record *record, struct run_comparison *out,
                        struct error *err)
{
    struct run_comparison result = {.layer_count = record->plan.layer_count};
    for (size_t i = 0; i < record->event_count; i++)
        TRY(check_event(record, i, err));
    TRY(compare_step(record, &result, err));
    TRY(communication_measure(record, &result.communication, err));
    compare_memory(record, &result);
    TRY(compare_layers(record, &result, err));
    *out = result;
    return STATUS_OK;
}

void run_comparison_clear(struct run_comparison *comparison)
{
    free(comparison->layers);
    *comparison = (struct run_comparison){0};
}
