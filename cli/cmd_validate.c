#include "base/file.h"
#include "cli/cli.h"
#include "cli/validate_text.h"
#include "costmodel/case_cost.h"
#include "traces/page_cases.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct validate_options {
    const char *cluster, *fit, *output, *html;
    int64_t folds;
    bool all, json;
};

static const struct option_spec rows[] = {
    {.name = "cluster",
     .type = OPTION_STRING,
     .offset = offsetof(struct validate_options, cluster),
     .metavar = "FILE",
     .doc = "predict the runs of this cluster's device on its description, and skip the others "
            "(each device as built in)"},
    {.name = "all",
     .type = OPTION_FLAG,
     .offset = offsetof(struct validate_options, all),
     .doc = "list every run"},
    {.name = "html",
     .type = OPTION_STRING,
     .offset = offsetof(struct validate_options, html),
     .metavar = "FILE",
     .doc = "write one self-contained page with predicted against measured drawn"},
    JSON_OPTION_ROW(struct validate_options),
};
static const struct option_spec fit_rows[] = {
    {.name = "fit",
     .type = OPTION_STRING,
     .offset = offsetof(struct validate_options, fit),
     .metavar = "FILE",
     .doc = "fit the efficiency curves and link shares of this cluster file to the runs of its "
            "device"},
    {.name = "output",
     .letter = 'o',
     .type = OPTION_STRING,
     .offset = offsetof(struct validate_options, output),
     .metavar = "FILE",
     .doc = "where --fit writes the fitted cluster file"},
    {.name = "folds",
     .type = OPTION_INT,
     .offset = offsetof(struct validate_options, folds),
     .metavar = "K",
     .fallback = "5",
     .doc = "parts of the runs that --fit leaves out in turn, to say how good it is for runs that "
            "it has not seen",
     .minimum = 2,
     .maximum = FIT_FOLDS_MAX},
};
static const struct option_table groups[] = {
    {.rows = rows, .count = COUNT_OF(rows), .heading = "Options"},
    {.rows = fit_rows, .count = COUNT_OF(fit_rows), .heading = "Fitting"},
};
static const struct command_spec spec = {
    .name = "validate",
    .summary = "hold the cluster-scale cost model against measured training runs",
    .synopsis = "CASES.csv [MORE.csv ...] [options]",
    .description =
        "Reads tables of measured runs (docs/validate.md has the columns), predicts step time, "
        "memory and energy of each from its model, cluster and layout, and prints the mean and "
        "worst errors of each file and whether what ran out of memory was predicted to.\n"
        "A row that lacks a value is skipped with the reason, never guessed.",
    .groups = groups,
    .group_count = COUNT_OF(groups),
    .example = "temper validate runs.csv --all --html runs.html\n"
               "temper validate runs.csv --fit cluster.json -o fitted.json",
    .positional_minimum = 1,
    .positional_maximum = POSITIONALS_MAX,
};

static enum status check_options(const struct validate_options *options, struct error *err)
{
    if (options->fit != NULL && options->cluster != NULL)
        return error_set(err, STATUS_USAGE, "--fit and --cluster both name the cluster: give one");
    if ((options->fit != NULL) != (options->output != NULL))
        return error_set(err, STATUS_USAGE,
                         "--fit and --output go together: the cluster file to start from, and "
                         "where to write the fitted one");
    return STATUS_OK;
}

/* ---- fit ---- */

/* What the figures are from, and how many runs the shares are now from. */
static void note_fit(const struct fit_report *report, char source[CLUSTER_SOURCE_BYTES])
{
    char note[96];
    (void)snprintf(note, sizeof(note), "shares fitted to %zu runs, %zu-fold error %.1f %%",
                   report->rows, report->folds, 100 * report->error_held_out);
    size_t room = CLUSTER_SOURCE_BYTES - strlen(note) - 3, used = strlen(source);
    used = used < room ? used : room;
    (void)snprintf(source + used, CLUSTER_SOURCE_BYTES - used, "%s%s", used > 0 ? "; " : "", note);
}

static enum status write_cluster(const struct cluster *cluster, const char *path, struct error *err)
{
    struct text json = {0};
    enum status status = cluster_write_json(cluster, &json, err);
    if (status == STATUS_OK)
        status = text_check(&json, err);
    if (status == STATUS_OK)
        status = file_write(path, json.data, json.bytes, err);
    text_free(&json);
    return status;
}

static enum status fit(const struct validate_options *options, struct cluster *cluster,
                       struct validation *validation, struct error *err)
{
    struct reporter reporter = console_reporter();
    struct node_group *group = &cluster->groups[0];
    struct run_cases *cases = calloc(validation->count, sizeof(*cases));
    if (cases == NULL)
        return error_memory(err, validation->count * sizeof(*cases), "the tables of a fit");
    for (size_t i = 0; i < validation->count; i++)
        cases[i] = validation->tables[i].cases; /* the same rows */
    enum status status = fit_cluster(cluster, cases, validation->count, (size_t)options->folds,
                                     &reporter, &validation->fit, err);
    free(cases);
    if (status != STATUS_OK)
        return status;
    note_fit(&validation->fit, group->device.source);
    for (size_t i = 0; i < group->tier_count; i++)
        note_fit(&validation->fit, group->tiers[i].source);
    return write_cluster(cluster, options->output, err);
}

/* ---- tables ---- */

static enum status predict(struct case_table *table, struct error *err)
{
    TRY(cases_predict(&table->cases, table->results, err));
    table->summary = case_summarise(&table->cases, table->results);
    return STATUS_OK;
}

static enum status predict_all(const struct validation *validation, struct error *err)
{
    for (size_t i = 0; i < validation->count; i++)
        TRY(predict(&validation->tables[i], err));
    return STATUS_OK;
}

static enum status write_page(const struct validation *validation, const char *path,
                              struct error *err)
{
    struct text html = {0};
    enum status status = page_cases_write(validation->tables, validation->count, &html, err);
    if (status == STATUS_OK)
        status = file_write(path, html.data, html.bytes, err);
    text_free(&html);
    return status;
}

static enum status print(const struct validate_options *options,
                         const struct validation *validation, struct error *err)
{
    if (options->json) {
        struct jout *out = jout_new();
        validation_write(validation, out);
        jout_string(out, "html", options->html);
        return console_json(out, err);
    }
    struct text text = {0};
    validation_print(validation, &text);
    enum status status = text_check(&text, err);
    if (status == STATUS_OK)
        fputs(text.data, stdout);
    if (status == STATUS_OK && options->output != NULL)
        printf("\ncluster  %s\n", options->output);
    if (status == STATUS_OK && options->html != NULL)
        printf("\npage  %s\n", options->html);
    text_free(&text);
    return status;
}

/* `cluster` is what the tables were loaded on; NULL: built in. */
static enum status validate(const struct validate_options *options, struct cluster *cluster,
                            struct validation *validation, struct error *err)
{
    TRY(predict_all(validation, err)); /* also finds the rows that cannot be predicted */
    if (options->fit != NULL) {
        TRY(fit(options, cluster, validation, err));
        TRY(predict_all(validation, err));
    }
    if (options->html != NULL)
        TRY(write_page(validation, options->html, err));
    return print(options, validation, err);
}

static enum status load_cluster(const struct validate_options *options, struct cluster *out,
                                bool *is_given, struct error *err)
{
    const char *source = options->fit != NULL ? options->fit : options->cluster;
    *is_given = source != NULL;
    return source != NULL ? cluster_load(out, source, err) : STATUS_OK;
}

static enum status run(int argc, char **argv, struct error *err)
{
    struct validate_options options = {0};
    struct positionals positionals = {0};
    struct case_table tables[POSITIONALS_MAX] = {0};
    struct cluster cluster = {0};
    bool is_given;
    TRY(options_parse(&spec, argc, argv, &options, &positionals, err));
    TRY(check_options(&options, err));
    TRY(load_cluster(&options, &cluster, &is_given, err));
    struct validation validation = {
        .tables = tables,
        .paths = positionals.values,
        .shows_all = options.all,
    };
    enum status status = STATUS_OK;
    while (status == STATUS_OK && validation.count < positionals.count) {
        status = case_table_load(&tables[validation.count], positionals.values[validation.count],
                                 is_given ? &cluster : NULL, err);
        validation.count += status == STATUS_OK ? 1 : 0;
    }
    if (status == STATUS_OK)
        status = validate(&options, &cluster, &validation, err);
    for (size_t i = 0; i < validation.count; i++)
        case_table_free(&tables[i]);
    return status;
}

const struct command command_validate = {.spec = &spec, .run = run};
