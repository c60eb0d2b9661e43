/* Stores of versions 1 and 2 are read as they are and brought to the present version by whoever
 * writes. */
#include "support.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FEW_EVENTS = 7, MANY_EVENTS = 8000, ROUNDS = 20, NEWEST = 3 };

static struct event old_event(int i)
{
    return (struct event){
        .start_ns = 100 * (int64_t)i,
        .end_ns = 100 * (int64_t)i + 10 + i % 5,
        .step = 4,
        .layer = i % 3,
        .stream = (uint8_t)(i % 2),
        .phase = i % 2 ? PHASE_GRAD_REDUCE : PHASE_FORWARD,
        .live_bytes = (uint64_t)i,
    };
}

/* As version 2 had it: without the kernel of a measurement and the copy rate of a run. */
static void make_version_2(struct store *store)
{
    OK(sql_execute(store,
                   "ALTER TABLE measurement DROP COLUMN attention;"
                   "ALTER TABLE run DROP COLUMN copy_bytes_s; PRAGMA user_version = 2;",
                   "testing", &err_));
}

/* A run with events in a store as version 1 had it: its table of events is the one in this text. */
static void make_old(const char *path, int event_count)
{
    static const char sql[] =
        "DROP TABLE event;"
        "CREATE TABLE event (\n  id INTEGER PRIMARY KEY,"
        "\n  run_id INTEGER NOT NULL REFERENCES run (id),"
        "\n  start_ns INTEGER NOT NULL,\n  end_ns INTEGER NOT NULL,\n  step INTEGER NOT NULL,"
        "\n  rank INTEGER NOT NULL,\n  layer INTEGER NOT NULL,\n  micro_batch INTEGER NOT NULL,"
        "\n  stream TEXT NOT NULL,\n  phase TEXT NOT NULL,\n  live_bytes INTEGER NOT NULL"
        "\n) STRICT;"
        "CREATE INDEX event_by_run_id ON event (run_id);"
        "INSERT INTO event SELECT id, run_id, start_ns, end_ns, step, rank, layer, micro_batch, "
        "stream, phase, live_bytes FROM kept; DROP TABLE kept; PRAGMA user_version = 1;";
    struct store *store = open_new(path);
    struct plan plan = example_plan();
    int64_t plan_id;
    OK(store_plan_add(store, &plan, &plan_id, &err_));
    plan_clear(&plan);
    struct run_info run = example_run(plan_id);
    OK(store_run_begin(store, &run, &err_));
    struct event *events = calloc((size_t)event_count, sizeof(*events));
    assert_non_null(events);
    for (int i = 0; i < event_count; i++)
        events[i] = old_event(i);
    OK(store_run_events_add(store, run.id, events, (size_t)event_count, &err_));
    free(events);
    struct profile_session session = example_session("here");
    struct measurement row = example_measurement();
    OK(store_profile_begin(store, &session, &err_));
    OK(store_measurement_add(store, session.id, &row, &err_));
    make_version_2(store);
    OK(sql_execute(store, "CREATE TABLE kept AS SELECT * FROM event", "testing", &err_));
    OK(sql_execute(store, sql, "testing", &err_));
    store_close(store);
}

static int64_t version_of(struct store *store)
{
    return query(store, "PRAGMA user_version");
}

static bool has_column(struct store *store)
{
    return query(store, "SELECT count(*) FROM pragma_table_info('event', 'main') "
                        "WHERE name = 'waited_ns'") == 1;
}

/* All events are there. What version 1 called communication was the waiting alone. */
static void assert_events(struct store *store, int event_count)
{
    struct run_record record;
    OK(store_run_load(store, 0, &record, &err_));
    assert_int_equal(record.event_count, event_count);
    for (int i = 0; i < event_count; i++) {
        const struct event *found = &record.events[i];
        struct event sent = old_event(i);
        assert_int_equal(found->start_ns, sent.start_ns);
        assert_int_equal(found->end_ns, sent.end_ns);
        assert_int_equal(found->phase, sent.phase);
        assert_int_equal(found->live_bytes, sent.live_bytes);
        assert_int_equal(found->waited_ns, i % 2 ? 10 + i % 5 : 0);
    }
    assert_true(isnan(record.info.copy_bytes_s)); /* was not recorded */
    run_record_free(&record);
}

/* Nobody timed attention in tiles then. */
static void assert_measurements(struct store *store)
{
    struct measurement_list list;
    struct measurement sent = example_measurement();
    OK(store_measurements_load(store, NULL, &list, NULL, &err_));
    assert_int_equal(list.count, 1);
    assert_int_equal(list.rows[0].attention, ATTENTION_PLAIN);
    assert_int_equal(list.rows[0].micro_batch, sent.micro_batch);
    assert_true(list.rows[0].mean == sent.mean);
    measurement_list_free(&list);
}

static void test_migrate__a_writer_brings_it_to_the_present_version(void **state)
{
    (void)state;
    const char *path = in_folder("write.db");
    struct store *store;
    make_old(path, FEW_EVENTS);
    for (int time = 0; time < 2; time++) {
        OK(store_open(&store, path, STORE_CREATE, &err_));
        assert_int_equal(version_of(store), NEWEST);
        assert_true(has_column(store));
        assert_events(store, FEW_EVENTS);
        assert_measurements(store);
        assert_sound(store);
        store_close(store);
    }
    OK(store_open(&store, path, STORE_CREATE, &err_));
    struct event event = {.start_ns = 100 * FEW_EVENTS, .end_ns = 1000, .waited_ns = 13};
    OK(store_run_events_add(store, 1, &event, 1, &err_));
    assert_int_equal(query(store, "SELECT waited_ns FROM event ORDER BY id DESC LIMIT 1"), 13);
    store_close(store);
}

static void test_migrate__a_reader_leaves_it_as_it_is(void **state)
{
    (void)state;
    const char *path = in_folder("read.db");
    struct store *store;
    make_old(path, FEW_EVENTS);
    for (int time = 0; time < 2; time++) {
        OK(store_open(&store, path, STORE_READ, &err_));
        assert_int_equal(version_of(store), 1);
        assert_false(has_column(store));
        assert_events(store, FEW_EVENTS);
        assert_measurements(store);
        store_close(store);
    }
}

static void test_migrate__version_2_is_read_and_brought_up(void **state)
{
    (void)state;
    static const enum store_mode modes[] = {STORE_READ, STORE_CREATE, STORE_READ};
    static const int64_t versions[] = {2, NEWEST, NEWEST};
    const char *path = in_folder("second.db");
    struct profile_session session = example_session("here");
    struct measurement row = example_measurement();
    struct store *store = open_new(path);
    OK(store_profile_begin(store, &session, &err_));
    OK(store_measurement_add(store, session.id, &row, &err_));
    make_version_2(store);
    store_close(store);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        OK(store_open(&store, path, modes[i], &err_));
        assert_int_equal(version_of(store), versions[i]);
        assert_measurements(store);
        store_close(store);
    }
    /* Of the same work by another kernel both rows count. */
    OK(store_open(&store, path, STORE_CREATE, &err_));
    struct measurement_list list;
    row.attention = ATTENTION_TILED;
    OK(store_measurement_add(store, session.id, &row, &err_));
    OK(store_measurements_load(store, NULL, &list, NULL, &err_));
    assert_int_equal(list.count, 2);
    assert_int_equal(list.rows[1].attention, ATTENTION_TILED);
    measurement_list_free(&list);
    store_close(store);
}

/* While a reader has the old store open, a writer may change it: the reader goes on. */
static void test_migrate__a_reader_survives_the_writer(void **state)
{
    (void)state;
    const char *path = in_folder("both.db");
    struct store *reader, *writer;
    make_old(path, FEW_EVENTS);
    OK(store_open(&reader, path, STORE_READ, &err_));
    OK(store_open(&writer, path, STORE_CREATE, &err_));
    store_close(writer);
    assert_int_equal(version_of(reader), NEWEST);
    assert_events(reader, FEW_EVENTS);
    assert_measurements(reader);
    store_close(reader);
}

/* Nobody else may write there, and root may everywhere: so a process without rights reads. */
static void test_migrate__a_read_only_one_is_read(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_folder("readonly"), 0755), 0);
    const char *path = in_folder("readonly/store.db");
    make_old(path, FEW_EVENTS);
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(chmod(in_folder("readonly"), 0555), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct error err;
        struct store *store;
        struct run_record record;
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(3);
        if (store_open(&store, path, STORE_READ, &err) != STATUS_OK ||
            store_run_load(store, 0, &record, &err) != STATUS_OK)
            _exit(4);
        if (record.event_count != FEW_EVENTS || record.events[1].waited_ns != 11)
            _exit(5);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(chmod(in_folder("readonly"), 0755), 0);
}

static void migrate_and_be_killed(const char *path, unsigned us)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct error err;
        struct store *store;
        (void)store_open(&store, path, STORE_CREATE, &err);
        pause();
        _exit(3);
    }
    usleep(us);
    assert_int_equal(kill(child, SIGKILL), 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
}

/* Killed at any moment of it: the store is of the old version or of the new one, and whole. */
static void test_migrate__kill_9_leaves_the_old_or_the_new(void **state)
{
    (void)state;
    const char *path = in_folder("killed.db"), *journal = in_folder("killed.db-journal");
    int old = 0, new = 0, hot = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        make_old(path, MANY_EVENTS);
        /* From less to more than it takes on any machine. */
        uint64_t most_us = 1000u << round % 10;
        migrate_and_be_killed(path, (unsigned)rng_below((uint64_t)clock_ns(), 1, round, most_us));
        hot += file_exists(journal);
        struct store *store;
        OK(store_open(&store, path, STORE_READ, &err_));
        int64_t version = version_of(store);
        assert_int_equal(has_column(store), version == NEWEST);
        assert_sound(store);
        assert_events(store, MANY_EVENTS);
        store_close(store);
        old += version == 1;
        new += version == NEWEST;
        OK(store_open(&store, path, STORE_CREATE, &err_));
        assert_int_equal(version_of(store), NEWEST);
        assert_events(store, MANY_EVENTS);
        store_close(store);
    }
    print_message("%d old, %d new, %d killed within\n", old, new, hot);
    assert_true(old > 0);
    assert_true(new > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_migrate__a_writer_brings_it_to_the_present_version),
        cmocka_unit_test(test_migrate__a_reader_leaves_it_as_it_is),
        cmocka_unit_test(test_migrate__version_2_is_read_and_brought_up),
        cmocka_unit_test(test_migrate__a_reader_survives_the_writer),
        cmocka_unit_test(test_migrate__a_read_only_one_is_read),
        cmocka_unit_test(test_migrate__kill_9_leaves_the_old_or_the_new),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
