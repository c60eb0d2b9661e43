#include "base/file.h"
#include "cli/cli.h"
#include "store/store.h"
#include "traces/compare.h"
#include "traces/page.h"
#include "traces/summary.h"
#include "traces/terminal.h"

#include <stddef.h>
#include <stdio.h>

struct report_options {
    const char *store;
    int64_t run;
    const char *html, *chrome;
    bool json;
};

static const struct option_spec rows[] = {
    STORE_OPTION_ROW(struct report_options),
    {.name = "run",
     .type = OPTION_INT,
     .offset = offsetof(struct report_options, run),
     .metavar = "ID",
     .doc = "the run to report (the newest one)",
     .minimum = 1,
     .maximum = 9e15},
    {.name = "html",
     .type = OPTION_STRING,
     .offset = offsetof(struct report_options, html),
     .metavar = "FILE",
     .doc = "write one self-contained page with timeline, memory and loss curves"},
    {.name = "chrome",
     .type = OPTION_STRING,
     .offset = offsetof(struct report_options, chrome),
     .metavar = "FILE",
     .doc = "write the recorded events as a trace for Perfetto or chrome://tracing"},
    JSON_OPTION_ROW(struct report_options),
};
static const struct option_table groups[] = {
    {.rows = rows, .count = COUNT_OF(rows), .heading = "Options"},
};
static const struct command_spec spec = {
    .name = "report",
    .summary = "hold a run's prediction against its measurement; write a page and a trace",
    .synopsis = "[options]",
    .description = "Prints predicted against measured step time, memory and energy of a recorded "
                   "run, in total "
                   "and by phase, memory term and layer, each with its error and a legend of the "
                   "formulas. What "
                   "is not known is called absent.",
    .groups = groups,
    .group_count = COUNT_OF(groups),
    .example = "temper report --store t.db --html report.html --chrome trace.json",
};

static enum status write_html(const struct run_record *record,
                              const struct run_comparison *comparison, const char *path,
                              struct error *err)
{
    struct text html = {0};
    enum status status = page_write(record, comparison, &html, err);
    if (status == STATUS_OK)
        status = file_write(path, html.data, html.bytes, err);
    text_free(&html);
    return status;
}

static enum status write_chrome(const struct run_record *record, const char *path,
                                struct error *err)
{
    struct text json = {0};
    enum status status = chrome_write(record, &json, err);
    if (status == STATUS_OK)
        status = file_write(path, json.data, json.bytes, err);
    text_free(&json);
    return status;
}

static enum status print_json(const struct run_record *record,
                              const struct run_comparison *comparison,
                              const struct report_options *options, struct error *err)
{
    struct jout *out = jout_new();
    summary_write(record, comparison, out);
    jout_string(out, "html", options->html);
    jout_string(out, "chrome", options->chrome);
    return console_json(out, err);
}

static enum status print_report(const struct run_record *record,
                                const struct run_comparison *comparison,
                                const struct report_options *options, struct error *err)
{
    struct text text = {0};
    enum status status = terminal_report(record, comparison, &text, err);
    if (status == STATUS_OK) {
        fputs(text.data, stdout);
        if (options->html)
            printf("\npage   %s\n", options->html);
        if (options->chrome)
            printf("%strace  %s\n", options->html ? "" : "\n", options->chrome);
    }
    text_free(&text);
    return status;
}

static enum status report(const struct run_record *record, const struct report_options *options,
                          struct error *err)
{
    struct run_comparison comparison;
    TRY(compare_run(record, &comparison, err));
    enum status status = STATUS_OK;
    if (options->html)
        status = write_html(record, &comparison, options->html, err);
    if (status == STATUS_OK && options->chrome)
        status = write_chrome(record, options->chrome, err);
    if (status == STATUS_OK)
        status = options->json ? print_json(record, &comparison, options, err)
                               : print_report(record, &comparison, options, err);
    run_comparison_clear(&comparison);
    return status;
}

static enum status run(int argc, char **argv, struct error *err)
{
    struct report_options options = {0};
    struct positionals positionals = {0};
    struct store *store;
    struct run_record record;
    TRY(options_parse(&spec, argc, argv, &options, &positionals, err));
    TRY(store_open(&store, options.store, STORE_READ, err));
    enum status status = store_run_load(store, options.run, &record, err);
    store_close(store);
    if (status != STATUS_OK)
        return status;
    status = report(&record, &options, err);
    run_record_free(&record);
    return status;
}

const struct command command_report = {.spec = &spec, .run = run};
