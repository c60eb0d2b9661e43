#include "support.h"

#include "base/rng.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_same_measurement(const struct measurement *a, const struct measurement *b)
{
    assert_string_equal(a->subject, b->subject);
    assert_int_equal(a->metric, b->metric);
    assert_int_equal(a->precision, b->precision);
    assert_int_equal(a->recompute, b->recompute);
    assert_int_equal(a->micro_batch, b->micro_batch);
    assert_int_equal(a->ranks, b->ranks);
    assert_int_equal(a->threads, b->threads);
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->n, b->n);
    assert_true(a->mean == b->mean); /* the same bits come back */
    assert_true(a->deviation == b->deviation);
    assert_int_equal(a->provenance, b->provenance);
    assert_int_equal(a->measured_unix_ms, b->measured_unix_ms);
}

static int64_t begin_session(struct store *store, const char *host)
{
    struct profile_session session = example_session(host);
    OK(store_profile_begin(store, &session, &err_));
    assert_true(session.id > 0);
    return session.id;
}

static void test_store_profile__every_metric_has_its_own_name_and_a_unit(void **state)
{
    (void)state;
    for (int i = 0; i < METRIC_COUNT; i++) {
        assert_true(strlen(metric_name((enum metric)i)) > 0);
        assert_true(strlen(metric_unit((enum metric)i)) > 0);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(metric_name((enum metric)i), metric_name((enum metric)j));
    }
    assert_string_equal(metric_name(METRIC_FORWARD_S), "forward");
    assert_string_equal(metric_name(METRIC_LINK_S), "link");
    assert_string_equal(metric_unit(METRIC_MATMUL_FLOPS), "FLOP/s");
    assert_string_equal(metric_unit(METRIC_COPY_BYTES_S), "B/s");
    assert_string_equal(metric_unit(METRIC_OVERLAP), "1");
}

static void test_store_profile__rows_come_back_as_they_went(void **state)
{
    (void)state;
    const char *path = in_folder("rows.db");
    struct store *store = open_new(path);
    int64_t session = begin_session(store, "box");
    struct measurement rows[METRIC_COUNT * PROVENANCE_COUNT];
    for (size_t i = 0; i < COUNT(rows); i++) {
        rows[i] = example_measurement();
        rows[i].metric = (enum metric)(i / PROVENANCE_COUNT);
        rows[i].provenance = (enum provenance)(i % PROVENANCE_COUNT);
        rows[i].precision = (enum precision)(i % PRECISION_COUNT);
        rows[i].recompute = (enum recompute)(i % RECOMPUTE_COUNT);
        rows[i].micro_batch = INT64_MAX - (int64_t)i;
        rows[i].bytes = (int64_t)i << 40;
        rows[i].n = i % 2 ? INT64_MAX : 0;
        rows[i].threads = INT32_MAX;
        rows[i].mean = i % 3 ? -1.0 / 3.0 * (double)i : 1e-310; /* subnormal */
        OK(store_measurement_add(store, session, &rows[i], &err_));
        if (rows[i].provenance == PROVENANCE_ABSENT)
            rows[i].mean = rows[i].deviation = 0; /* an absent value means nothing */
    }
    memset(rows[0].subject, 'x', SUBJECT_BYTES - 1);
    rows[0].subject[SUBJECT_BYTES - 1] = '\0';
    OK(store_measurement_add(store, session, &rows[0], &err_));
    store_close(store);

    struct measurement_list list;
    char host[64];
    OK(store_open(&store, path, STORE_READ, &err_));
    OK(store_measurements_load(store, NULL, &list, host, &err_));
    assert_string_equal(host, "box");
    assert_int_equal(list.count, COUNT(rows) + 1);
    for (size_t i = 1; i < COUNT(rows); i++)
        assert_same_measurement(&list.rows[i], &rows[i]);
    assert_same_measurement(&list.rows[COUNT(rows)], &rows[0]);
    measurement_list_free(&list);
    assert_null(list.rows);
    store_close(store);
}

static void test_store_profile__the_session_is_stored_whole(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("session.db"));
    (void)begin_session(store, "first");
    assert_int_equal(begin_session(store, "second"), 2);
    assert_int_equal(query(store, "SELECT count(*) FROM session WHERE id = 1 AND host = 'first' "
                                  "AND cpu = 'A processor' AND cores = 2 AND memory_bytes = "
                                  "8589934592 AND avx512_bf16 = 0 AND amx_bf16 = 1 AND "
                                  "libraries = 'OpenBLAS 0.3.21, Open MPI 4.1.4' AND "
                                  "revision = '0.1.0 (abc)' AND model = 'gpt2' AND "
                                  "options = 'profile --model gpt2' AND "
                                  "started_unix_ms = 1700000000123"),
                     1);
    store_close(store);
}

static void test_store_profile__absent_is_null_never_zero(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("absent.db"));
    int64_t session = begin_session(store, "box");
    struct measurement row = example_measurement();
    row.provenance = PROVENANCE_ABSENT;
    OK(store_measurement_add(store, session, &row, &err_));
    assert_int_equal(query(store, "SELECT count(*) FROM measurement WHERE mean IS NULL AND "
                                  "deviation IS NULL AND provenance = 'absent'"),
                     1);
    store_close(store);
}

static void test_store_profile__what_is_no_number_is_refused(void **state)
{
    (void)state;
    static const double values[] = {NAN, INFINITY, -INFINITY};
    const char *path = in_folder("nan.db");
    struct store *store = open_new(path);
    int64_t session = begin_session(store, "box");
    for (size_t i = 0; i < COUNT(values); i++) {
        struct measurement row = example_measurement();
        row.mean = values[i];
        FAILS(STATUS_INVALID, store_measurement_add(store, session, &row, &err_), path, "mean");
    }
    struct measurement row = example_measurement();
    FAILS(STATUS_INVALID, store_measurement_add(store, 99, &row, &err_), path, "FOREIGN KEY");
    assert_int_equal(query(store, "SELECT count(*) FROM measurement"), 0);
    store_close(store);
}

static void test_store_profile__an_empty_store_names_the_command(void **state)
{
    (void)state;
    const char *path = in_folder("nothing.db");
    struct store *store = open_new(path);
    struct measurement_list list = {0};
    struct measurement row = example_measurement();
    FAILS(STATUS_INVALID, store_measurements_load(store, NULL, &list, NULL, &err_), path,
          "temper profile --store");
    FAILS(STATUS_INVALID, store_measurements_load(store, "box", &list, NULL, &err_), path, "'box'",
          "none", "temper profile --store");
    /* A session that died before its first row does not hide an older one. */
    int64_t session = begin_session(store, "box");
    OK(store_measurement_add(store, session, &row, &err_));
    (void)begin_session(store, "other");
    FAILS(STATUS_INVALID, store_measurements_load(store, "other", &list, NULL, &err_), "'other'",
          "those of: box)");
    char host[64];
    OK(store_measurements_load(store, NULL, &list, host, &err_));
    assert_string_equal(host, "box");
    assert_int_equal(list.count, 1);
    measurement_list_free(&list);
    store_close(store);
}

static bool same_key(const struct measurement *a, const struct measurement *b)
{
    return strcmp(a->subject, b->subject) == 0 && a->metric == b->metric &&
           a->precision == b->precision && a->recompute == b->recompute &&
           a->micro_batch == b->micro_batch && a->ranks == b->ranks && a->threads == b->threads &&
           a->bytes == b->bytes;
}

struct stored {
    struct measurement row;
    int64_t session;
    bool of_a; /* host "a", else "b" */
};

/* Does a later or newer row of the same host and key stand before this one? */
static bool is_hidden(const struct stored *rows, size_t count, size_t at)
{
    for (size_t i = 0; i < count; i++) {
        bool newer =
            rows[i].session > rows[at].session || (rows[i].session == rows[at].session && i > at);
        if (newer && rows[i].of_a == rows[at].of_a && same_key(&rows[i].row, &rows[at].row))
            return true;
    }
    return false;
}

/* Random rows of few keys in interleaved sessions of two hosts, against brute force. */
static void test_store_profile__the_newest_row_of_each_key_stands(void **state)
{
    (void)state;
    enum { SESSIONS = 6, ROWS = 400 };
    for (uint64_t trial = 0; trial < 8; trial++) {
        struct store *store = open_new(in_folder("newest.db"));
        struct stored *rows = calloc(ROWS, sizeof(*rows));
        assert_non_null(rows);
        OK(store_begin(store, &err_));
        for (uint64_t i = 0; i < SESSIONS; i++)
            assert_int_equal(begin_session(store, i % 2 ? "b" : "a"), i + 1);
        for (uint64_t i = 0; i < ROWS; i++) {
            struct measurement *row = &rows[i].row;
            uint64_t bits = rng_u64(trial, 5, i);
            rows[i].session = (int64_t)(bits % SESSIONS) + 1;
            rows[i].of_a = rows[i].session % 2 == 1;
            *row = example_measurement();
            snprintf(row->subject, sizeof(row->subject), "%s", bits & 256 ? "mlp" : "all-reduce");
            row->metric = bits & 512 ? METRIC_FORWARD_S : METRIC_BACKWARD_S;
            row->precision = bits & 1024 ? PRECISION_FP32 : PRECISION_BF16;
            row->recompute = (enum recompute)((bits >> 11) % 2);
            row->micro_batch = (bits >> 12) % 2;
            row->ranks = 1 + (int)((bits >> 13) % 2);
            row->threads = 1 + (int)((bits >> 14) % 2);
            row->bytes = (bits >> 15) % 2;
            row->mean = (double)i; /* which row it was */
            OK(store_measurement_add(store, rows[i].session, row, &err_));
        }
        OK(store_commit(store, &err_));
        for (int host = 0; host < 2; host++) {
            struct measurement_list list;
            size_t expected = 0;
            OK(store_measurements_load(store, host ? "b" : "a", &list, NULL, &err_));
            for (size_t i = 0; i < ROWS; i++)
                expected += rows[i].of_a == !host && !is_hidden(rows, ROWS, i);
            assert_int_equal(list.count, expected);
            for (size_t i = 0; i < list.count; i++) {
                size_t at = (size_t)list.rows[i].mean;
                assert_true(rows[at].of_a == !host && !is_hidden(rows, ROWS, at));
                assert_same_measurement(&list.rows[i], &rows[at].row);
            }
            measurement_list_free(&list);
        }
        free(rows);
        store_close(store);
    }
}

static void test_store_profile__a_row_that_was_tampered_with_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *change, *column, *expected;
    } cases[] = {
        {"precision = 'fp17'", "'precision'", "fp32, bf16, fp16; found 'fp17'"},
        {"precision = 'BF16'", "'precision'", "found 'BF16'"},
        {"recompute = ''", "'recompute'", "none, selective, full"},
        {"metric = 'unheard-of'", "'metric'", "forward"},
        {"provenance = 'guessed'", "'provenance'", "measured"},
        {"threads = 5000000000", "'threads'", "32 bits"},
        {"n = -1", "'n'", "0 or more"},
        {"subject = printf('%.*c', 200, 'x')", "'subject'", "fits"},
    };
    const char *path = in_folder("tampered.db");
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct store *store = open_new(path);
        struct measurement_list list;
        int64_t session = begin_session(store, "box");
        struct measurement row = example_measurement();
        for (int j = 0; j < 20; j++, row.bytes++)
            OK(store_measurement_add(store, session, &row, &err_));
        char sql[160];
        snprintf(sql, sizeof(sql), "UPDATE measurement SET %s WHERE id = 18", cases[i].change);
        OK(sql_execute(store, sql, "testing", &err_));
        FAILS(STATUS_CORRUPT, store_measurements_load(store, NULL, &list, NULL, &err_), path,
              "measurement 18", cases[i].column, cases[i].expected);
        store_close(store);
    }
}

static void test_store_profile__a_store_without_its_tables_is_named(void **state)
{
    (void)state;
    const char *path = in_folder("bare.db");
    struct store *store = open_new(path);
    struct measurement_list list;
    OK(sql_execute(store, "DROP TABLE measurement", "testing", &err_));
    FAILS(STATUS_CORRUPT, store_measurements_load(store, NULL, &list, NULL, &err_), path,
          "measurement");
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_profile__every_metric_has_its_own_name_and_a_unit),
        cmocka_unit_test(test_store_profile__rows_come_back_as_they_went),
        cmocka_unit_test(test_store_profile__the_session_is_stored_whole),
        cmocka_unit_test(test_store_profile__absent_is_null_never_zero),
        cmocka_unit_test(test_store_profile__what_is_no_number_is_refused),
        cmocka_unit_test(test_store_profile__an_empty_store_names_the_command),
        cmocka_unit_test(test_store_profile__the_newest_row_of_each_key_stands),
        cmocka_unit_test(test_store_profile__a_row_that_was_tampered_with_is_named),
        cmocka_unit_test(test_store_profile__a_store_without_its_tables_is_named),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
