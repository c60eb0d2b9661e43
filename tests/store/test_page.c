/* docs/store.md against the store: every table and column that there is, in order, every name that
 * a metric or phase has, and every query as it stands. */
#include "support.h"

#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *page;

static int read_page(void **state)
{
    struct error err;
    size_t bytes;
    if (make_folder(state) != 0)
        return -1;
    return file_read(TEMPER_SOURCE_DIR "/docs/store.md", &page, &bytes, &err) == STATUS_OK ? 0 : -1;
}

static int free_page(void **state)
{
    free(page);
    return remove_folder(state);
}

/* The page's section of a table as "name TYPE;" of every row. */
static void documented(const char *table, struct text *out)
{
    struct text heading = {0};
    text_printf(&heading, "\n### `%s`\n", table);
    const char *at = strstr(page, heading.data);
    if (!at)
        fail_msg("docs/store.md has no section '%s'", table);
    text_free(&heading);
    static const char first[] = "| column | type | unit | meaning |\n| --- | --- | --- | --- |\n";
    at = strstr(at, first);
    assert_non_null(at);
    at += strlen(first);
    for (; *at == '|'; at = strchr(at, '\n') + 1) {
        char name[64], type[16];
        assert_int_equal(sscanf(at, "| `%63[^`]` | %15[A-Z] |", name, type), 2);
        text_printf(out, "%s %s;", name, type);
    }
    assert_true(out->bytes > 0);
}

static void stored(struct store *store, const char *table, struct text *out)
{
    struct statement select;
    bool row;
    OK(statement_open(&select, store, "SELECT name, type FROM pragma_table_info(?)", "testing",
                      &err_));
    bind_text(&select, table, strlen(table));
    OK(statement_step(&select, &row, &err_));
    while (row) {
        text_printf(out, "%s %s;", column_text(&select, 0), column_text(&select, 1));
        OK(statement_step(&select, &row, &err_));
    }
    statement_close(&select);
}

static void test_page__documents_every_table_and_column(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("page.db"));
    struct statement tables;
    bool row;
    size_t count = 0;
    OK(statement_open(&tables, store,
                      "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name",
                      "testing", &err_));
    OK(statement_step(&tables, &row, &err_));
    for (; row; count++) {
        struct text in_page = {0}, in_store = {0};
        documented(column_text(&tables, 0), &in_page);
        stored(store, column_text(&tables, 0), &in_store);
        assert_string_equal(in_page.data, in_store.data);
        text_free(&in_page);
        text_free(&in_store);
        OK(statement_step(&tables, &row, &err_));
    }
    statement_close(&tables);
    size_t sections = 0;
    for (const char *at = page; (at = strstr(at, "\n### `")) != NULL; at++)
        sections++;
    assert_int_equal(sections, count);
    store_close(store);
}

static void assert_in_page(const char *name)
{
    struct text quoted = {0};
    text_printf(&quoted, "`%s`", name);
    if (!strstr(page, quoted.data))
        fail_msg("docs/store.md does not name %s", quoted.data);
    text_free(&quoted);
}

static void test_page__documents_every_name(void **state)
{
    (void)state;
    for (int i = 0; i < METRIC_COUNT; i++)
        assert_in_page(metric_name((enum metric)i));
    for (int i = 0; i < PHASE_COUNT; i++)
        assert_in_page(phase_name((enum phase)i));
    for (int i = 0; i < STREAM_COUNT; i++)
        assert_in_page(event_stream_name((enum event_stream)i));
    for (int i = 0; i < PROVENANCE_COUNT; i++)
        assert_in_page(provenance_name((enum provenance)i));
    for (int i = 0; i < PRECISION_COUNT; i++)
        assert_in_page(precision_name((enum precision)i));
    for (int i = 0; i < RECOMPUTE_COUNT; i++)
        assert_in_page(recompute_name((enum recompute)i));
    for (int i = 0; i < RUN_STATUS_COUNT; i++)
        assert_in_page(run_status_name((enum run_status)i));
    static const enum plan_status statuses[] = {PLAN_OPTIMAL, PLAN_GAP, PLAN_PREDICTED};
    for (size_t i = 0; i < COUNT(statuses); i++)
        assert_in_page(plan_status_name(statuses[i]));
}

/* Some rows of everything, so that every query of the page finds some. */
static struct store *filled_store(void)
{
    struct store *store = open_new(in_folder("filled.db"));
    struct profile_session session = example_session("box");
    struct measurement layer = example_measurement(), link = layer, energy = layer;
    struct plan plan = example_plan();
    int64_t plan_id;
    snprintf(link.subject, sizeof(link.subject), "all-reduce");
    link.metric = METRIC_LINK_S;
    link.bytes = 4096;
    energy.metric = METRIC_FORWARD_J;
    energy.provenance = PROVENANCE_ABSENT;
    OK(store_profile_begin(store, &session, &err_));
    OK(store_measurement_add(store, session.id, &layer, &err_));
    OK(store_measurement_add(store, session.id, &link, &err_));
    OK(store_measurement_add(store, session.id, &energy, &err_));
    OK(store_plan_add(store, &plan, &plan_id, &err_));
    plan_clear(&plan);

    struct run_info run = example_run(plan_id);
    const struct run_step step = {
        .step = 10, .loss = 2, .seconds = 1.25, .energy_j = quantity_absent()};
    const struct run_evaluation evaluation = {11, 2.5};
    const struct layer_time times[] = {
        {0, 1, PHASE_BACKWARD, 10, 0.5, 0.1},
        {0, EVENT_NO_LAYER, PHASE_BACKWARD, 10, 0.5, 0.1},
    };
    const struct event event = {.end_ns = 200,
                                .stream = STREAM_COMM,
                                .phase = PHASE_GRAD_REDUCE,
                                .live_bytes = 4096,
                                .waited_ns = 50};
    OK(store_run_begin(store, &run, &err_));
    OK(store_run_steps_add(store, run.id, &step, 1, &err_));
    OK(store_run_evaluation_add(store, run.id, &evaluation, &err_));
    OK(store_run_layer_times_add(store, run.id, times, COUNT(times), &err_));
    OK(store_run_events_add(store, run.id, &event, 1, &err_));
    return store;
}

static void test_page__every_query_runs_and_finds_rows(void **state)
{
    (void)state;
    static const char open[] = "```sql\n", close[] = "\n```";
    struct store *store = filled_store();
    size_t queries = 0;
    const char *at = page;
    while ((at = strstr(at, open)) != NULL) {
        at += strlen(open);
        const char *end = strstr(at, close);
        assert_non_null(end);
        char *sql = strndup(at, (size_t)(end - at));
        assert_non_null(sql);
        struct statement select;
        bool row = false;
        OK(statement_open(&select, store, sql, sql, &err_));
        OK(statement_step(&select, &row, &err_));
        if (!row)
            fail_msg("finds nothing: %s", sql);
        statement_close(&select);
        free(sql);
        queries++;
    }
    assert_true(queries >= 5);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page__documents_every_table_and_column),
        cmocka_unit_test(test_page__documents_every_name),
        cmocka_unit_test(test_page__every_query_runs_and_finds_rows),
    };
    return cmocka_run_group_tests(tests, read_page, free_page);
}
