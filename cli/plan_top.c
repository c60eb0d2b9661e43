#include "cli/plan_top.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/plan_tell.h"
#include "costmodel/predict.h"
#include "planner/top.h"

#include <math.h>
#include <stdio.h>

static void append_row(const struct top *top, size_t index, double risk, struct text *out)
{
    const struct plan *plan = &top->plans[index];
    const struct prediction *prediction = &plan->prediction;
    char time[UNIT_TEXT_BYTES], memory[UNIT_TEXT_BYTES], energy[UNIT_TEXT_BYTES];
    double best = top->plans[0].objective.value;
    bool is_absent = prediction->energy_j.provenance == PROVENANCE_ABSENT;
    text_printf(out, "  %4zu  %10.6g  %+7.2f  %6.3g  %10s  %12s  %10s   ", index + 1,
                plan->objective.value, 100 * (plan->objective.value - best) / best,
                100 * plan->objective.gap, format_seconds(prediction->time_s.value, time),
                format_bytes(memory_held_bytes(prediction->memory_bytes, risk), memory),
                plan_energy_cell(is_absent ? NAN : prediction->energy_j.value, energy));
    plan_shape_cells(plan, out);
    text_append(out, "\n");
}

static void append_table(const struct top *top, size_t most, double risk, struct text *out)
{
    char seconds[UNIT_TEXT_BYTES], memory[PERCENTILE_BYTES];
    const struct plan_objective *terms = &top->plans[0].objective;
    text_printf(out, "the best plans that differ in what the ranks do: %zu\n\n", top->count);
    text_printf(out, "  plan   objective  + best%%  gap %%         time  %12s      energy   %s\n",
                plan_percentile_head(risk, memory), plan_shape_head);
    for (size_t i = 0; i < top->count; i++)
        append_row(top, i, risk, out);
    text_printf(out, "\nobjective = %g T + %g M + %g E, %s\n", terms->weight_time,
                terms->weight_memory, terms->weight_energy,
                terms->raw ? "in s, GiB, J" : "each as a multiple of its best alone");
    text_append(out, "each is the best of all plans of its ranks, degrees, schedule, micro-batch "
                     "and threads; gap: of all plans that are not of a row found before it\n");
    if (top->is_stopped)
        text_append(out, "stopped: further plans were not searched\n");
    else if (top->is_all && top->count < most)
        text_append(out, "there are no others that fit\n");
    text_printf(out, "search: %llu candidates, %llu columns, %s\n",
                (unsigned long long)top->statistics.candidates,
                (unsigned long long)top->statistics.columns,
                format_seconds(top->statistics.seconds, seconds));
}

static enum status tell_text(const struct top *top, size_t most, double risk, struct error *err)
{
    struct text table = {0};
    append_table(top, most, risk, &table);
    enum status status = text_check(&table, err);
    if (status == STATUS_OK)
        fputs(table.data, stdout);
    text_free(&table);
    return status;
}

static enum status tell_json(const struct top *top, struct error *err)
{
    struct jout *out = jout_new();
    enum status status = STATUS_OK;
    jout_bool(out, "all", top->is_all);
    jout_bool(out, "stopped", top->is_stopped);
    plan_tell_statistics_json(&top->statistics, out);
    jout_begin_array(out, "plans");
    for (size_t i = 0; status == STATUS_OK && i < top->count; i++) {
        jout_begin_object(out, NULL);
        status = plan_tell_json(&top->plans[i], out, err);
        jout_end(out);
    }
    jout_end(out);
    return plan_tell_done(out, status, err);
}

static enum status write_plans(const struct top *top, const char *path, struct error *err)
{
    char numbered[NUMBERED_PATH_BYTES];
    for (size_t i = 0; path && i < top->count; i++) {
        TRY(plan_numbered_path(path, i + 1, numbered, err));
        TRY(plan_save(&top->plans[i], numbered, err));
    }
    return STATUS_OK;
}

enum status plan_top(const struct planner_request *request, const struct plan_top_options *options,
                     struct error *err)
{
    struct top top = {0};
    enum status status = top_find(request, (size_t)options->most, &top, err);
    console_progress_end();
    if (status == STATUS_INFEASIBLE)
        return plan_tell_infeasible(&top.infeasibility, options->json, err);
    TRY(status);
    status = write_plans(&top, options->output, err);
    if (status == STATUS_OK)
        status = options->json ? tell_json(&top, err)
                               : tell_text(&top, (size_t)options->most, request->risk, err);
    top_clear(&top);
    return status;
}
