#include "cli/validate_text.h"

#include "base/units.h"
#include "cli/cli.h"
#include "traces/figures.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { REASONS_MAX = 64, SHARE_BYTES = 24 };

static const char *share_text(double share, bool is_signed, char buffer[SHARE_BYTES])
{
    if (isnan(share))
        (void)snprintf(buffer, SHARE_BYTES, "-");
    else
        (void)snprintf(buffer, SHARE_BYTES, is_signed ? "%+.1f %%" : "%.1f %%", 100 * share);
    return buffer;
}

/* ---- for people ---- */

static void print_figure(enum figure_kind kind, struct quantity predicted, struct quantity measured,
                         struct text *out)
{
    char left[FIGURE_TEXT_BYTES], right[FIGURE_TEXT_BYTES], error[SHARE_BYTES];
    text_printf(out, "  %10s", figure_value(kind, predicted, left));
    if (measured.provenance != PROVENANCE_ABSENT)
        text_printf(out, " for %10s %9s", figure_value(kind, measured, right),
                    share_text(case_error(predicted, measured), true, error));
    else
        text_printf(out, "%25s", "");
}

static void print_run(const struct run_case *row, const struct case_result *result,
                      struct text *out)
{
    text_printf(out, "  line %4zu", row->line);
    if (row->skipped[0] == '\0') {
        print_figure(FIGURE_SECONDS, result->time_s, row->step_s, out);
        print_figure(FIGURE_BYTES, result->memory_bytes, row->memory_bytes, out);
        if (row->energy_j.provenance != PROVENANCE_ABSENT)
            print_figure(FIGURE_JOULES, result->energy_j, row->energy_j, out);
        text_printf(out, "  %-13s  ",
                    result->fits         ? row->out_of_memory ? "fits: WRONG" : "fits"
                    : row->out_of_memory ? "out of memory"
                                         : "does not fit: WRONG");
    } else {
        text_append(out, "  skipped: ");
        figure_clean(row->skipped, out);
        text_append(out, "  ");
    }
    figure_clean(row->name, out);
    text_append(out, "\n");
}

static void print_runs(const struct case_table *table, struct text *out)
{
    figure_clean(table->cases.name, out);
    text_append(out, table->summary.energy.count > 0
                         ? ": predicted for measured, step time, memory and energy\n"
                         : ": predicted for measured, step time and memory\n");
    for (size_t i = 0; i < table->cases.count; i++)
        print_run(&table->cases.rows[i], &table->results[i], out);
    text_append(out, "\n");
}

static int widest_name(const struct validation *validation)
{
    size_t widest = strlen("file");
    for (size_t i = 0; i < validation->count; i++) {
        size_t bytes = strlen(validation->tables[i].cases.name);
        widest = bytes > widest ? bytes : widest;
    }
    return (int)widest;
}

/* Energy has columns only where some run's was measured: of most published runs it was not. */
static bool has_energy(const struct validation *validation)
{
    for (size_t i = 0; i < validation->count; i++)
        if (validation->tables[i].summary.energy.count > 0)
            return true;
    return false;
}

static void print_errors(const struct case_errors *errors, int width, struct text *out)
{
    char mean[SHARE_BYTES], worst[SHARE_BYTES];
    text_printf(out, " %*s %10s", width, share_text(errors->mean_absolute, false, mean),
                share_text(errors->worst, true, worst));
}

static void print_file(const struct case_table *table, int width, bool shows_energy,
                       struct text *out)
{
    const struct case_summary *summary = &table->summary;
    struct text name = {0};
    figure_clean(table->cases.name, &name);
    text_printf(out, "%-*s %5zu %8zu", width, name.data != NULL ? name.data : "", summary->rows,
                summary->skipped);
    print_errors(&summary->time, 10, out);
    print_errors(&summary->memory, 8, out);
    if (shows_energy)
        print_errors(&summary->energy, 8, out);
    text_printf(out, "   %zu of %zu\n", summary->agreed, summary->judged);
    text_free(&name);
}

static void print_reasons(const struct case_table *table, struct text *out)
{
    struct case_reason reasons[REASONS_MAX];
    size_t count = case_reasons(&table->cases, reasons, REASONS_MAX);
    for (size_t i = 0; i < count; i++) {
        text_printf(out, "  %4zu %s of ", reasons[i].rows, reasons[i].rows == 1 ? "row " : "rows");
        figure_clean(table->cases.name, out);
        text_printf(out, " (line %zu%s): ", reasons[i].first_line,
                    reasons[i].rows > 1 ? ", ..." : "");
        figure_clean(reasons[i].text, out);
        text_append(out, "\n");
    }
}

static void print_fit(const struct fit_report *fit, struct text *out)
{
    text_printf(out, "fitted %zu shares to %zu runs of %zu %s\n", fit->shares, fit->rows,
                fit->tables, fit->tables == 1 ? "file" : "files, each of which counts the same");
    text_printf(out, "  error of step time before    %5.1f %%\n", 100 * fit->error_before);
    text_printf(out, "                     after     %5.1f %%\n", 100 * fit->error_after);
    text_printf(out,
                "                     held out  %5.1f %%  of each of %zu parts of the runs, under "
                "shares fitted without it\n\n",
                100 * fit->error_held_out, fit->folds);
}

void validation_print(const struct validation *validation, struct text *out)
{
    int width = widest_name(validation);
    bool shows_energy = has_energy(validation);
    size_t skipped = 0;
    if (validation->fit.folds > 0)
        print_fit(&validation->fit, out);
    for (size_t i = 0; validation->shows_all && i < validation->count; i++)
        print_runs(&validation->tables[i], out);
    text_printf(out, "%-*s %5s %8s %10s %10s %8s %10s", width, "file", "rows", "skipped",
                "step time", "worst", "memory", "worst");
    if (shows_energy)
        text_printf(out, " %8s %10s", "energy", "worst");
    text_append(out, "   fits or not, right\n");
    for (size_t i = 0; i < validation->count; i++) {
        print_file(&validation->tables[i], width, shows_energy, out);
        skipped += validation->tables[i].summary.skipped;
    }
    if (skipped > 0)
        text_append(out, "\nskipped:\n");
    for (size_t i = 0; i < validation->count; i++)
        print_reasons(&validation->tables[i], out);
    text_printf(out,
                "\nstep time, memory%s: mean of |predicted / measured - 1|; worst: the largest, "
                "with its sign\n",
                shows_energy ? ", energy" : "");
}

/* ---- as JSON ---- */

static void write_run(const struct run_case *row, const struct case_result *result,
                      struct jout *out)
{
    bool is_skipped = row->skipped[0] != '\0';
    jout_begin_object(out, NULL);
    jout_int(out, "line", (int64_t)row->line);
    jout_string(out, "name", row->name);
    jout_string(out, "skipped", is_skipped ? row->skipped : NULL);
    const struct quantity absent = quantity_absent();
    write_quantity("predicted_s", is_skipped ? &absent : &result->time_s, out);
    write_quantity("measured_s", &row->step_s, out);
    write_quantity("predicted_bytes", is_skipped ? &absent : &result->memory_bytes, out);
    write_quantity("measured_bytes", &row->memory_bytes, out);
    write_quantity("predicted_j", is_skipped ? &absent : &result->energy_j, out);
    write_quantity("measured_j", &row->energy_j, out);
    if (is_skipped)
        jout_null(out, "fits");
    else
        jout_bool(out, "fits", result->fits);
    jout_bool(out, "out_of_memory", row->out_of_memory);
    jout_end(out);
}

struct error_keys {
    const char *runs, *mape, *bias, *worst, *worst_line;
};

static void write_errors(const struct case_errors *errors, const struct run_cases *cases,
                         const struct error_keys *keys, struct jout *out)
{
    jout_int(out, keys->runs, (int64_t)errors->count);
    jout_real(out, keys->mape, errors->mean_absolute);
    jout_real(out, keys->bias, errors->mean);
    jout_real(out, keys->worst, fabs(errors->worst));
    if (errors->count > 0)
        jout_int(out, keys->worst_line, (int64_t)cases->rows[errors->worst_index].line);
    else
        jout_null(out, keys->worst_line);
}

static void write_reasons(const struct run_cases *cases, struct jout *out)
{
    struct case_reason reasons[REASONS_MAX];
    size_t count = case_reasons(cases, reasons, REASONS_MAX);
    jout_begin_array(out, "skipped_reasons");
    for (size_t i = 0; i < count; i++) {
        jout_begin_object(out, NULL);
        jout_string(out, "reason", reasons[i].text);
        jout_int(out, "rows", (int64_t)reasons[i].rows);
        jout_int(out, "first_line", (int64_t)reasons[i].first_line);
        jout_end(out);
    }
    jout_end(out);
}

static void write_file(const struct case_table *table, const char *path, bool shows_all,
                       struct jout *out)
{
    static const struct error_keys time_keys = {"time_runs", "time_mape", "time_bias", "time_worst",
                                                "time_worst_line"};
    static const struct error_keys memory_keys = {"memory_runs", "memory_mape", "memory_bias",
                                                  "memory_worst", "memory_worst_line"};
    static const struct error_keys energy_keys = {"energy_runs", "energy_mape", "energy_bias",
                                                  "energy_worst", "energy_worst_line"};
    const struct case_summary *summary = &table->summary;
    jout_begin_object(out, NULL);
    jout_string(out, "name", table->cases.name);
    jout_string(out, "path", path);
    jout_int(out, "rows", (int64_t)summary->rows);
    jout_int(out, "skipped", (int64_t)summary->skipped);
    write_errors(&summary->time, &table->cases, &time_keys, out);
    write_errors(&summary->memory, &table->cases, &memory_keys, out);
    write_errors(&summary->energy, &table->cases, &energy_keys, out);
    jout_real(out, "oom_agree", case_agreement(summary));
    jout_int(out, "oom_rows", (int64_t)summary->failed);
    jout_int(out, "oom_missed", (int64_t)summary->missed);
    jout_int(out, "oom_refused", (int64_t)summary->refused);
    write_reasons(&table->cases, out);
    if (shows_all) {
        jout_begin_array(out, "runs");
        for (size_t i = 0; i < table->cases.count; i++)
            write_run(&table->cases.rows[i], &table->results[i], out);
        jout_end(out);
    }
    jout_end(out);
}

void validation_write(const struct validation *validation, struct jout *out)
{
    const struct fit_report *fit = &validation->fit;
    jout_begin_array(out, "files");
    for (size_t i = 0; i < validation->count; i++)
        write_file(&validation->tables[i], validation->paths[i], validation->shows_all, out);
    jout_end(out);
    if (fit->folds == 0)
        return;
    jout_begin_object(out, "fit");
    jout_int(out, "runs", (int64_t)fit->rows);
    jout_int(out, "files", (int64_t)fit->tables);
    jout_int(out, "shares", (int64_t)fit->shares);
    jout_int(out, "folds", (int64_t)fit->folds);
    jout_real(out, "error_before", fit->error_before);
    jout_real(out, "error_after", fit->error_after);
    jout_real(out, "error_held_out", fit->error_held_out);
    jout_end(out);
}
