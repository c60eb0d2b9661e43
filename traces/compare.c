#include "traces/compare.h"
#include "base/stats.h"
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

/* Recorded times of all ranks: one row a layer, and one for the whole step behind them. */
struct time_table {
    struct {
        double mean_s, deviation_s; /* sums over ranks until time_table_finish, then means */
    } (*cells)[PHASE_COUNT];        /* [layer_count + 1] */
    bool by_layer[PHASE_COUNT];     /* was the phase recorded for any layer? */
    bool *ranks;                    /* [plan.ranks]: has recorded times */
    size_t rank_count;
    struct rank_spread spread[PHASE_COUNT];
    bool spread_seen[PHASE_COUNT];
};

static void time_table_free(struct time_table *table)
{
    free(table->cells);
    free(table->ranks);
}

static enum status time_table_add(struct time_table *table, const struct run_record *record,
                                  const struct layer_time *time, struct error *err)
{
    const struct plan *plan = &record->plan;
    if (time->rank < 0 || time->rank >= plan->ranks)
        return error_set(err, STATUS_CORRUPT,
                         "run %lld: a recorded time is of rank %d, but its plan has ranks 0 to %d",
                         (long long)record->info.id, (int)time->rank, plan->ranks - 1);
    if (time->layer < EVENT_NO_LAYER || time->layer >= (int64_t)plan->layer_count)
        return error_set(err, STATUS_CORRUPT,
                         "run %lld: a recorded time is of layer %d, but its plan has layers 0 to "
                         "%zu",
                         (long long)record->info.id, (int)time->layer, plan->layer_count - 1);
    bool is_whole = time->layer == EVENT_NO_LAYER;
    size_t row = is_whole ? plan->layer_count : (size_t)time->layer;
    table->cells[row][time->phase].mean_s += time->mean_s;
    table->cells[row][time->phase].deviation_s += time->deviation_s;
    struct rank_spread *spread = &table->spread[time->phase];
    if (is_whole) {
        bool is_first = !table->spread_seen[time->phase];
        table->spread_seen[time->phase] = true;
        spread->minimum_s = is_first ? time->mean_s : fmin(spread->minimum_s, time->mean_s);
        spread->maximum_s = fmax(spread->maximum_s, time->mean_s);
    } else {
        table->by_layer[time->phase] = true;
    }
    table->rank_count += table->ranks[time->rank] ? 0 : 1;
    table->ranks[time->rank] = true;
    return STATUS_OK;
}

static enum status time_table_fill(struct time_table *table, const struct run_record *record,
                                   struct error *err)
{
    const struct plan *plan = &record->plan;
    size_t rows = plan->layer_count + 1;
    table->cells = calloc(rows, sizeof(table->cells[0]));
    table->ranks = calloc((size_t)plan->ranks + 1, sizeof(table->ranks[0]));
    if (!table->cells || !table->ranks)
        return error_memory(err, rows * sizeof(table->cells[0]), "times by layer");
    for (size_t i = 0; i < record->layer_time_count; i++)
        TRY(time_table_add(table, record, &record->layer_times[i], err));
    for (size_t row = 0; row < rows && table->rank_count > 0; row++) {
        for (int phase = 0; phase < PHASE_COUNT; phase++) {
            table->cells[row][phase].mean_s /= (double)table->rank_count;
            table->cells[row][phase].deviation_s /= (double)table->rank_count;
        }
    }
    return STATUS_OK;
}

/* A phase that no row names took no time, once anything was recorded. */
static struct quantity time_of(const struct time_table *table, size_t row, int phase)
{
    if (table->rank_count == 0)
        return quantity_absent();
    return measured(table->cells[row][phase].mean_s, table->cells[row][phase].deviation_s);
}

/* The step's energy times a share of its time. */
static struct quantity apportion(struct quantity energy_j, struct quantity part_s, double whole_s)
{
    if (part_s.provenance == PROVENANCE_ABSENT || !(whole_s > 0))
        return quantity_absent();
    struct quantity share = quantity_scale(energy_j, part_s.value / whole_s);
    if (share.provenance < PROVENANCE_MODELLED)
        share.provenance = PROVENANCE_MODELLED;
    return share;
}

static double whole_step_s(const struct time_table *table, size_t layer_count)
{
    double whole_s = 0;
    for (int phase = 0; phase < PHASE_COUNT && table->rank_count > 0; phase++)
        whole_s += table->cells[layer_count][phase].mean_s;
    return whole_s;
}

static void compare_phases(const struct run_record *record, const struct time_table *table,
                           struct run_comparison *out)
{
    const struct plan *plan = &record->plan;
    double whole_s = whole_step_s(table, plan->layer_count);
    out->rank_count = table->rank_count;
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        struct quantity time_s = time_of(table, plan->layer_count, phase);
        out->phase_s[phase] =
            compare(predicted(plan, plan->prediction.phase_time_s[phase]), time_s);
        out->phase_energy_j[phase] =
            compare(predicted(plan, plan->prediction.phase_energy_j[phase]),
                    apportion(out->energy_j.measured, time_s, whole_s));
        out->phase_spread[phase] = table->spread[phase];
    }
}

static bool is_forward_of(const struct event *event, int64_t layer)
{
    return event->stream == STREAM_COMPUTE && event->phase == PHASE_FORWARD &&
           event->layer == layer;
}

/* By how much the bytes alive grew from the forward pass of the layer before to that of this one,
 * in the first micro-batch that was recorded; absent without events. */
static struct quantity kept_bytes(const struct run_record *record, size_t index)
{
    const struct event *end = record->events + record->event_count, *after = record->events;
    while (after < end && !is_forward_of(after, (int64_t)index))
        after++;
    if (after == end)
        return quantity_absent();
    if (index == 0)
        return measured((double)after->live_bytes, 0);
    for (const struct event *before = record->events; before < end; before++) {
        if (is_forward_of(before, (int64_t)index - 1) && before->step == after->step &&
            before->rank == after->rank && before->micro_batch == after->micro_batch)
            return measured((double)after->live_bytes - (double)before->live_bytes, 0);
    }
    return quantity_absent();
}

static void compare_layer(const struct run_record *record, const struct time_table *table,
                          struct quantity step_energy_j, size_t index, struct layer_comparison *out)
{
    const struct plan *plan = &record->plan;
    bool any = false;
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        any = any || table->by_layer[phase];
    struct quantity predicted_s = measured(0, 0), predicted_j = measured(0, 0);
    struct quantity measured_s = any ? measured(0, 0) : quantity_absent();
    *out = (struct layer_comparison){
        .layer = model_layer(&plan->model, index),
        .strategy = plan->layers[index],
    };
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        struct quantity time_s = quantity_absent(), energy_j = quantity_absent();
        if (has_prediction(plan)) {
            time_s = plan->prediction.layers[index].time_s[phase];
            energy_j = plan->prediction.layers[index].energy_j[phase];
        }
        bool is_recorded = table->by_layer[phase];
        struct quantity known_s = is_recorded ? time_of(table, index, phase) : quantity_absent();
        out->phase_s[phase] = compare(time_s, known_s);
        if (any ? !is_recorded : phase == PHASE_OTHER)
            continue;
        predicted_s = quantity_add(predicted_s, time_s);
        predicted_j = quantity_add(predicted_j, energy_j);
        measured_s = quantity_add(measured_s, known_s);
    }
    double whole_s = whole_step_s(table, plan->layer_count);
    out->total_s = compare(predicted_s, measured_s);
    out->energy_j = compare(predicted_j, apportion(step_energy_j, measured_s, whole_s));
    struct quantity predicted_bytes = quantity_absent();
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
        event->stream >= STREAM_COUNT || event->end_ns < event->start_ns)
        return error_set(
            err, STATUS_CORRUPT,
            "run %lld: event %zu (rank %d, layer %d, phase %d, stream %d, %lld ns) does "
            "not fit its plan of %d ranks and %zu layers",
            (long long)record->info.id, index, (int)event->rank, (int)event->layer,
            (int)event->phase, (int)event->stream, (long long)(event->end_ns - event->start_ns),
            plan->ranks, plan->layer_count);
    return STATUS_OK;
}

enum status compare_run(const struct run_record *record, struct run_comparison *out,
                        struct error *err)
{
    struct run_comparison result = {.layer_count = record->plan.layer_count};
    struct time_table table = {0};
    for (size_t i = 0; i < record->event_count; i++)
        TRY(check_event(record, i, err));
    enum status status = compare_step(record, &result, err);
    if (status != STATUS_OK)
        return status;
    status = time_table_fill(&table, record, err);
    if (status != STATUS_OK)
        goto free_table;
    result.layers = calloc(result.layer_count + 1, sizeof(result.layers[0]));
    if (!result.layers) {
        status = error_memory(err, result.layer_count * sizeof(result.layers[0]), "a comparison");
        goto free_table;
    }
    compare_memory(record, &result);
    compare_phases(record, &table, &result);
    for (size_t i = 0; i < result.layer_count; i++)
        compare_layer(record, &table, result.energy_j.measured, i, &result.layers[i]);
    *out = result;
free_table:
    time_table_free(&table);
    return status;
}

void run_comparison_clear(struct run_comparison *comparison)
{
    free(comparison->layers);
    *comparison = (struct run_comparison){0};
}
