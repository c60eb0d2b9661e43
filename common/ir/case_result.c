#include "ir/case_result.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

double case_error(struct quantity predicted, struct quantity measured)
{
    if (predicted.provenance == PROVENANCE_ABSENT || measured.provenance == PROVENANCE_ABSENT ||
        !(measured.value > 0))
        return NAN;
    return predicted.value / measured.value - 1;
}

static void add_error(struct case_errors *errors, double error, size_t index)
{
    if (isnan(error))
        return;
    if (errors->count == 0)
        *errors = (struct case_errors){.worst = error, .worst_index = index};
    errors->count++;
    errors->mean_absolute += fabs(error);
    errors->mean += error;
    if (fabs(error) > fabs(errors->worst)) {
        errors->worst = error;
        errors->worst_index = index;
    }
}

static void finish_errors(struct case_errors *errors)
{
    double count = (double)errors->count;
    errors->mean_absolute = errors->count > 0 ? errors->mean_absolute / count : NAN;
    errors->mean = errors->count > 0 ? errors->mean / count : NAN;
    errors->worst = errors->count > 0 ? errors->worst : NAN;
}

static void judge(struct case_summary *summary, const struct run_case *row,
                  const struct case_result *result)
{
    summary->judged++;
    summary->agreed += row->out_of_memory != result->fits ? 1 : 0;
    summary->failed += row->out_of_memory ? 1 : 0;
    summary->missed += row->out_of_memory && result->fits ? 1 : 0;
    summary->refused += !row->out_of_memory && !result->fits ? 1 : 0;
}

struct case_summary case_summarise(const struct run_cases *cases, const struct case_result *results)
{
    struct case_summary summary = {.rows = cases->count};
    for (size_t i = 0; i < cases->count; i++) {
        const struct run_case *row = &cases->rows[i];
        if (row->skipped[0] != '\0') {
            summary.skipped++;
            continue;
        }
        add_error(&summary.time, case_error(results[i].time_s, row->step_s), i);
        add_error(&summary.memory, case_error(results[i].memory_bytes, row->memory_bytes), i);
        add_error(&summary.energy, case_error(results[i].energy_j, row->energy_j), i);
        judge(&summary, row, &results[i]);
    }
    finish_errors(&summary.time);
    finish_errors(&summary.memory);
    finish_errors(&summary.energy);
    return summary;
}

double case_agreement(const struct case_summary *summary)
{
    return summary->judged > 0 ? (double)summary->agreed / (double)summary->judged : NAN;
}

enum status case_table_load(struct case_table *out, const char *path,
                            const struct cluster *described, struct error *err)
{
    struct case_table table = {0};
    TRY(run_cases_load(&table.cases, path, described, err));
    size_t count = table.cases.count;
    if (count > 0) {
        table.results = calloc(count, sizeof(table.results[0]));
        if (table.results == NULL) {
            run_cases_free(&table.cases);
            return error_memory(err, count * sizeof(table.results[0]), "predictions of runs");
        }
    }
    *out = table;
    return STATUS_OK;
}

void case_table_free(struct case_table *table)
{
    run_cases_free(&table->cases);
    free(table->results);
    *table = (struct case_table){0};
}

size_t case_reasons(const struct run_cases *cases, struct case_reason *out, size_t capacity)
{
    size_t count = 0;
    assert(capacity > 0);
    for (size_t i = 0; i < cases->count; i++) {
        const struct run_case *row = &cases->rows[i];
        size_t at = 0;
        if (row->skipped[0] == '\0')
            continue;
        while (at < count && strcmp(out[at].text, row->skipped) != 0)
            at++;
        if (at == count && count < capacity)
            out[count++] = (struct case_reason){.text = row->skipped, .first_line = row->line};
        else if (at == count)
            out[--at].text = "other reasons";
        out[at].rows++;
    }
    return count;
}
