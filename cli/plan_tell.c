#include "cli/plan_tell.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum status plan_tell_json(const struct plan *plan, struct jout *out, struct error *err)
{
    const struct prediction *prediction = &plan->prediction;
    struct text plan_text = {0};
    /* With everything pinned the searched space is this one plan, so it is the best of it. */
    bool is_gap = plan->status == PLAN_GAP;
    jout_string(out, "status", plan_status_name(is_gap ? PLAN_GAP : PLAN_OPTIMAL));
    jout_bool(out, "searched", plan->status != PLAN_PREDICTED);
    jout_real(out, "objective", plan->objective.value);
    jout_real(out, "bound", plan->objective.bound);
    jout_real(out, "gap", plan->objective.gap);
    jout_real(out, "time_s", prediction->time_s.value);
    jout_real(out, "memory_bytes", prediction->memory_bytes.value);
    write_energy(&prediction->energy_j, out);
    enum status status = plan_write_json(plan, &plan_text, err);
    if (status == STATUS_OK)
        jout_raw(out, "plan", plan_text.data);
    text_free(&plan_text);
    return status;
}

enum status plan_tell_done(struct jout *out, enum status status, struct error *err)
{
    struct text dropped = {0};
    struct error ignored;
    if (status == STATUS_OK)
        return console_json(out, err);
    (void)jout_finish(out, 0, &dropped, &ignored);
    text_free(&dropped);
    return status;
}

void plan_tell_statistics_json(const struct search_statistics *statistics, struct jout *out)
{
    jout_begin_object(out, "search");
    jout_int(out, "candidates", (int64_t)statistics->candidates);
    jout_int(out, "bounded_away", (int64_t)statistics->bounded_away);
    jout_int(out, "solved", (int64_t)statistics->solved);
    jout_int(out, "columns", (int64_t)statistics->columns);
    jout_real(out, "seconds", statistics->seconds);
    jout_end(out);
}

void plan_tell_statistics(const struct search_statistics *statistics)
{
    char seconds[UNIT_TEXT_BYTES];
    printf("search: %llu candidates, %llu bounded away, %llu solved, %llu columns, %s\n",
           (unsigned long long)statistics->candidates, (unsigned long long)statistics->bounded_away,
           (unsigned long long)statistics->solved, (unsigned long long)statistics->columns,
           format_seconds(statistics->seconds, seconds));
}

static enum status infeasible_json(const struct infeasibility *why, struct error *err)
{
    struct jout *out = jout_new();
    jout_string(out, "status", "infeasible");
    jout_null(out, "objective");
    jout_null(out, "bound");
    jout_null(out, "gap");
    jout_null(out, "time_s");
    jout_null(out, "memory_bytes");
    jout_null(out, "energy_j");
    jout_string(out, "energy_provenance", provenance_name(PROVENANCE_ABSENT));
    jout_string(out, "constraint", why->constraint);
    jout_int(out, "missing_bytes", (int64_t)why->missing_bytes);
    jout_int(out, "leanest_bytes", (int64_t)why->leanest_bytes);
    jout_string(out, "relaxation", why->relaxation);
    jout_null(out, "plan");
    return console_json(out, err);
}

enum status plan_tell_infeasible(const struct infeasibility *why, bool json, struct error *err)
{
    char missing[UNIT_TEXT_BYTES];
    struct error json_err = {0};
    if (json && infeasible_json(why, &json_err) != STATUS_OK) {
        *err = json_err;
        return err->status;
    }
    if (why->missing_bytes > 0)
        return error_set(
            err, STATUS_INFEASIBLE, "no feasible plan: %s; %s missing. Cheapest relaxation: %s",
            why->constraint, format_bytes((double)why->missing_bytes, missing), why->relaxation);
    return error_set(err, STATUS_INFEASIBLE, "no feasible plan: %s. Cheapest relaxation: %s",
                     why->constraint, why->relaxation);
}

const char plan_shape_head[] =
    "ranks  data  tensor  pipeline  schedule        micro-batch  threads";

void plan_shape_cells(const struct plan *plan, struct text *out)
{
    char schedule[32] = "-";
    if (plan->virtual_stages > 1)
        (void)snprintf(schedule, sizeof(schedule), "%s x %d", schedule_name(plan->schedule),
                       plan->virtual_stages);
    else if (plan->pipeline > 1)
        (void)snprintf(schedule, sizeof(schedule), "%s", schedule_name(plan->schedule));
    text_printf(out, "%5d  %4d  %6d  %8d  %-14s  %11lld  %7d", plan->ranks, plan->data_parallel,
                plan->tensor_parallel, plan->pipeline, schedule, (long long)plan->micro_batch,
                plan->threads);
}

const char *plan_percentile_head(double risk, char buffer[PERCENTILE_BYTES])
{
    (void)snprintf(buffer, PERCENTILE_BYTES, "memory (p%.6g)",
                   100 * (1 - (risk > 0 ? risk : MEMORY_PROCESS)));
    return buffer;
}

const char *plan_energy_cell(double energy_j, char buffer[UNIT_TEXT_BYTES])
{
    return isnan(energy_j) ? "absent" : format_joules(energy_j, buffer);
}

enum status plan_numbered_path(const char *path, size_t number, char out[NUMBERED_PATH_BYTES],
                               struct error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    const char *end = dot && dot > name ? dot : path + strlen(path);
    int written =
        snprintf(out, NUMBERED_PATH_BYTES, "%.*s-%zu%s", (int)(end - path), path, number, end);
    if (written < 0 || written >= NUMBERED_PATH_BYTES)
        return error_set(err, STATUS_USAGE, "option --output: the path has more than %d bytes",
                         NUMBERED_PATH_BYTES - 32);
    return STATUS_OK;
}
