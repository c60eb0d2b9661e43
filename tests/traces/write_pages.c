/* Writes the pages and traces of several made-up runs into a folder, for check_page.py and for
 * looking at: write_pages FOLDER. */
#include "base/file.h"
#include "fixture.h"
#include "traces/page.h"
#include <stdio.h>
#include <stdlib.h>

struct page_case {
    const char *name;
    struct fixture_options options;
    void (*change)(struct run_record *record);
};

static void make_hostile(struct run_record *record)
{
    static const char nasty[] = "<script>alert(1)</script>\"'&\x01\x1b[31m\xff\xc3\xe2\x82";
    (void)snprintf(record->plan.model.name, sizeof(record->plan.model.name), "%s", nasty);
    (void)snprintf(record->info.host, sizeof(record->info.host), "%s", nasty);
    (void)snprintf(record->info.data_path, sizeof(record->info.data_path), "%s", nasty);
    (void)snprintf(record->info.options, sizeof(record->info.options), "%s", nasty);
    (void)snprintf(record->info.revision, sizeof(record->info.revision), "%s", nasty);
    (void)snprintf(record->plan.pins, sizeof(record->plan.pins), "%s", nasty);
}

static void make_nan(struct run_record *record)
{
    record->info.status = RUN_FAILED;
    record->info.skipped_steps = 40;
    for (size_t i = 300; i < record->step_count; i++) {
        record->steps[i].loss = NAN;
        record->steps[i].gradient_norm = INFINITY;
        record->steps[i].skipped = true;
        record->steps[i].resident_bytes = 0;
    }
}

static void make_interrupted(struct run_record *record)
{
    record->info.status = RUN_INTERRUPTED;
    record->info.peak_bytes = 0;
    record->info.layout_bytes = 0;
    record->info.matmul_flops = 0;
    record->info.started_unix_ms = 0;
    record->plan.memory_cap_bytes = (uint64_t)80 << 20;
}

/* Writes the page and the trace of the record, and frees it. */
static enum status write_record(const char *folder, const char *name, struct run_record *record,
                                struct error *err)
{
    struct run_comparison comparison;
    struct text html = {0}, json = {0};
    char path[512];
    TRY(compare_run(record, &comparison, err));
    TRY(page_write(record, &comparison, &html, err));
    TRY(chrome_write(record, &json, err));
    (void)snprintf(path, sizeof(path), "%s/%s.html", folder, name);
    TRY(file_write(path, html.data, html.bytes, err));
    (void)snprintf(path, sizeof(path), "%s/%s.json", folder, name);
    TRY(file_write(path, json.data, json.bytes, err));
    text_free(&html);
    text_free(&json);
    run_comparison_clear(&comparison);
    run_record_free(record);
    return STATUS_OK;
}

static enum status write_case(const char *folder, const struct page_case *page_case,
                              struct error *err)
{
    struct run_record record;
    fixture_make(&record, &page_case->options);
    if (page_case->change)
        page_case->change(&record);
    return write_record(folder, page_case->name, &record, err);
}

/* 4 ranks, where the only gradients to reduce are the tied table's, and 8 or 32. */
static enum status write_split(const char *folder, struct error *err)
{
    static const int replicas[] = {1, 2, 8};
    for (size_t i = 0; i < sizeof(replicas) / sizeof(replicas[0]); i++) {
        struct run_record record;
        char name[32];
        fixture_make_split(&record, replicas[i]);
        (void)snprintf(name, sizeof(name), "split-%d", record.plan.ranks);
        TRY(write_record(folder, name, &record, err));
    }
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    const struct page_case cases[] = {
        {"full", fixture_full, NULL},
        {"hostile", fixture_full, make_hostile},
        {"nan", {4, 1, 1, 400, 3, 1, false, true, true}, make_nan},
        {"interrupted", {4, 2, 2, 50, 0, 1, false, true, true}, make_interrupted},
        {"nothing", {1, 1, 1, 0, 0, 0, false, false, false}, NULL},
        {"one-step", {1, 1, 1, 1, 1, 1, true, true, true}, NULL},
        {"long", {24, 8, 8, 100000, 500, 3, true, true, true}, NULL},
        {"wide", {32, 64, 2, 1000, 10, 1, true, true, true}, NULL},
    };
    struct error err = {0};
    if (argc != 2)
        return 2;
    if (folder_create(argv[1], &err) != STATUS_OK) {
        fprintf(stderr, "write_pages: %s\n", err.message);
        return 1;
    }
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (write_case(argv[1], &cases[i], &err) != STATUS_OK) {
            fprintf(stderr, "write_pages: %s: %s\n", cases[i].name, err.message);
            return 1;
        }
    }
    if (write_split(argv[1], &err) != STATUS_OK) {
        fprintf(stderr, "write_pages: %s\n", err.message);
        return 1;
    }
    return 0;
}
