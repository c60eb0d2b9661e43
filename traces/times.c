#include "traces/times.h"
#include "ir/mesh.h"
#include <math.h>
#include <stdlib.h>

/* Rows of `cells`: the layers, the stages' whole steps, the whole step of all ranks. */
static size_t stage_row(const struct plan *plan, int stage)
{
    return plan->layer_count + (size_t)stage;
}

static size_t all_row(const struct plan *plan)
{
    return plan->layer_count + (size_t)plan->pipeline;
}

bool times_is_of_layer(enum phase phase)
{
    return phase != PHASE_PIPELINE && phase != PHASE_OTHER;
}

void times_close(struct times *times)
{
    free(times->cells);
    free(times->has_rank);
    free(times->stage_ranks);
    *times = (struct times){0};
}

static enum status check_time(const struct run_record *record, const struct layer_time *time,
                              struct error *err)
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
    if (time->layer == EVENT_NO_LAYER || !times_is_of_layer(time->phase))
        return STATUS_OK;
    int stage = mesh_layer_stage(plan, (size_t)time->layer);
    if (stage != mesh_stage_of(plan, time->rank))
        return error_set(err, STATUS_CORRUPT,
                         "run %lld: rank %d has a recorded time of layer %d, but its plan has that "
                         "on stage %d, of other ranks",
                         (long long)record->info.id, (int)time->rank, (int)time->layer, stage);
    return STATUS_OK;
}

static void add_to(struct time_cell *cell, const struct layer_time *time)
{
    cell->mean_s += time->mean_s;
    cell->deviation_s += time->deviation_s;
}

static void widen(struct times *times, const struct layer_time *time)
{
    struct rank_spread *spread = &times->spread[time->phase];
    bool is_first = !times->spread_seen[time->phase];
    times->spread_seen[time->phase] = true;
    spread->minimum_s = is_first ? time->mean_s : fmin(spread->minimum_s, time->mean_s);
    spread->maximum_s = fmax(spread->maximum_s, time->mean_s);
}

static void add_time(struct times *times, const struct layer_time *time)
{
    const struct plan *plan = times->plan;
    int stage = mesh_stage_of(plan, time->rank);
    if (!times->has_rank[time->rank]) {
        times->has_rank[time->rank] = true;
        times->stage_ranks[stage]++;
        times->rank_count++;
    }
    if (time->layer == EVENT_NO_LAYER) {
        add_to(&times->cells[stage_row(plan, stage)][time->phase], time);
        add_to(&times->cells[all_row(plan)][time->phase], time);
        widen(times, time);
    } else if (times_is_of_layer(time->phase)) {
        add_to(&times->cells[time->layer][time->phase], time);
        times->by_layer[time->phase] = true;
    }
}

/* Sums over ranks become means. */
static void divide(struct times *times, size_t row, size_t ranks)
{
    for (int phase = 0; phase < PHASE_COUNT && ranks > 0; phase++) {
        times->cells[row][phase].mean_s /= (double)ranks;
        times->cells[row][phase].deviation_s /= (double)ranks;
    }
}

static enum status fill(struct times *times, const struct run_record *record, struct error *err)
{
    const struct plan *plan = times->plan;
    for (size_t i = 0; i < record->layer_time_count; i++) {
        TRY(check_time(record, &record->layer_times[i], err));
        add_time(times, &record->layer_times[i]);
    }
    for (size_t i = 0; i < plan->layer_count; i++)
        divide(times, i, times->stage_ranks[mesh_layer_stage(plan, i)]);
    for (int stage = 0; stage < plan->pipeline; stage++)
        divide(times, stage_row(plan, stage), times->stage_ranks[stage]);
    divide(times, all_row(plan), times->rank_count);
    return STATUS_OK;
}

enum status times_open(struct times *out, const struct run_record *record, struct error *err)
{
    const struct plan *plan = &record->plan;
    size_t rows = all_row(plan) + 1;
    struct times times = {.plan = plan};
    times.cells = calloc(rows, sizeof(times.cells[0]));
    times.has_rank = calloc((size_t)plan->ranks, sizeof(times.has_rank[0]));
    times.stage_ranks = calloc((size_t)plan->pipeline, sizeof(times.stage_ranks[0]));
    enum status status = STATUS_OK;
    if (!times.cells || !times.has_rank || !times.stage_ranks)
        status = error_memory(err, rows * sizeof(times.cells[0]), "times by layer");
    else
        status = fill(&times, record, err);
    if (status != STATUS_OK) {
        times_close(&times);
        return status;
    }
    *out = times;
    return STATUS_OK;
}

static struct quantity quantity_at(const struct times *times, size_t row, enum phase phase)
{
    const struct time_cell *cell = &times->cells[row][phase];
    return (struct quantity){cell->mean_s, cell->deviation_s, PROVENANCE_MEASURED};
}

struct quantity times_of_layer(const struct times *times, size_t layer, enum phase phase)
{
    int stage = mesh_layer_stage(times->plan, layer);
    if (times->stage_ranks[stage] == 0 || !times->by_layer[phase])
        return quantity_absent();
    return quantity_at(times, layer, phase);
}

struct quantity times_of_stage(const struct times *times, int stage, enum phase phase)
{
    if (times->stage_ranks[stage] == 0)
        return quantity_absent();
    return quantity_at(times, stage_row(times->plan, stage), phase);
}

struct quantity times_of_all(const struct times *times, enum phase phase)
{
    if (times->rank_count == 0)
        return quantity_absent();
    return quantity_at(times, all_row(times->plan), phase);
}

double times_rank_seconds(const struct times *times)
{
    double seconds = 0;
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        seconds += times->cells[all_row(times->plan)][phase].mean_s;
    return seconds * (double)times->rank_count;
}

int times_critical_stage(const struct times *times)
{
    int critical = -1;
    double most_s = -1;
    for (int stage = 0; stage < times->plan->pipeline; stage++) {
        double work_s = 0;
        for (int phase = 0; phase < PHASE_COUNT; phase++)
            if (times_is_of_layer((enum phase)phase))
                work_s += times->cells[stage_row(times->plan, stage)][phase].mean_s;
        if (times->stage_ranks[stage] > 0 && work_s > most_s) {
            critical = stage;
            most_s = work_s;
        }
    }
    return critical;
}
