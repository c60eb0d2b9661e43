#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int64_t add_plan(struct store *store)
{
    struct plan plan = example_plan();
    int64_t id;
    OK(store_plan_add(store, &plan, &id, &err_));
    plan_clear(&plan);
    return id;
}

static struct run_info begin_run(struct store *store)
{
    struct run_info run = example_run(add_plan(store));
    OK(store_run_begin(store, &run, &err_));
    assert_true(run.id > 0);
    return run;
}

static const struct quantity joules = {2.5, 0.25, PROVENANCE_MEASURED};

static struct run_step example_step(int64_t step)
{
    return (struct run_step){
        .step = step,
        .loss = step == 2 ? NAN : 4.0 / (double)(step + 1),
        .gradient_norm = step == 2 ? INFINITY : 1.0,
        .learning_rate = 1e-3,
        .seconds = 0.5 + 0.001 * (double)step,
        .tokens = 1536,
        .resident_bytes = 1 << 30,
        .skipped = step == 2,
        .energy_j = step % 2 ? joules : quantity_absent(),
    };
}

static void assert_same_real(double a, double b)
{
    assert_true(a == b || (isnan(a) && isnan(b)));
}

static void assert_same_quantity(struct quantity a, struct quantity b)
{
    assert_int_equal(a.provenance, b.provenance);
    assert_true(a.value == b.value && a.deviation == b.deviation);
}

static void test_store_run__information_comes_back_and_changes(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("info.db"));
    struct run_info run = begin_run(store);
    struct run_record record;
    OK(store_run_load(store, 0, &record, &err_));
    assert_int_equal(record.info.status, RUN_RUNNING);
    assert_int_equal(record.info.ended_unix_ms, 0);
    assert_int_equal(record.info.energy_j.provenance, PROVENANCE_ABSENT);
    assert_int_equal(record.plan.global_batch, 24);
    assert_int_equal(record.step_count + record.evaluation_count + record.event_count +
                         record.layer_time_count,
                     0);
    run_record_free(&record);

    run.status = RUN_DONE;
    run.ended_unix_ms = 1700000009000;
    run.peak_bytes = 1ll << 40;
    run.skipped_steps = 1;
    run.energy_j = joules;
    OK(store_run_update(store, &run, &err_));
    OK(store_run_load(store, run.id, &record, &err_));
    assert_int_equal(record.info.id, run.id);
    assert_int_equal(record.info.plan_id, run.plan_id);
    assert_string_equal(record.info.host, run.host);
    assert_string_equal(record.info.data_path, run.data_path);
    assert_string_equal(record.info.options, run.options);
    assert_string_equal(record.info.revision, run.revision);
    assert_int_equal(record.info.seed, -5);
    assert_int_equal(record.info.started_unix_ms, run.started_unix_ms);
    assert_int_equal(record.info.ended_unix_ms, run.ended_unix_ms);
    assert_int_equal(record.info.status, RUN_DONE);
    assert_int_equal(record.info.process_bytes_at_start, run.process_bytes_at_start);
    assert_int_equal(record.info.layout_bytes, run.layout_bytes);
    assert_int_equal(record.info.peak_bytes, run.peak_bytes);
    assert_true(record.info.matmul_flops == run.matmul_flops);
    assert_true(record.info.copy_bytes_s == run.copy_bytes_s);
    assert_same_quantity(record.info.energy_j, joules);
    assert_int_equal(record.info.skipped_steps, 1);
    run_record_free(&record);
    assert_null(record.steps);
    store_close(store);
}

static void test_store_run__steps_come_back_in_order(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("steps.db"));
    struct run_info other = begin_run(store), run = begin_run(store);
    struct run_step steps[40];
    for (size_t i = 0; i < COUNT(steps); i++)
        steps[i] = example_step((int64_t)i);
    OK(store_run_steps_add(store, run.id, steps + 20, 20, &err_));
    OK(store_run_steps_add(store, run.id, steps, 20, &err_));
    OK(store_run_steps_add(store, run.id, steps, 0, &err_));
    OK(store_run_steps_add(store, other.id, steps, 3, &err_));
    struct run_record record;
    OK(store_run_load(store, run.id, &record, &err_));
    assert_int_equal(record.step_count, COUNT(steps));
    for (size_t i = 0; i < COUNT(steps); i++) {
        const struct run_step *found = &record.steps[i];
        assert_int_equal(found->step, i);
        assert_same_real(found->loss, steps[i].loss);
        assert_same_real(found->gradient_norm, steps[i].gradient_norm);
        assert_true(found->learning_rate == steps[i].learning_rate);
        assert_true(found->seconds == steps[i].seconds);
        assert_int_equal(found->tokens, steps[i].tokens);
        assert_int_equal(found->resident_bytes, steps[i].resident_bytes);
        assert_int_equal(found->skipped, steps[i].skipped);
        assert_same_quantity(found->energy_j, steps[i].energy_j);
    }
    run_record_free(&record);
    assert_int_equal(query(store, "SELECT count(*) FROM step WHERE loss IS NULL"), 2);
    store_close(store);
}

static void test_store_run__a_bad_batch_leaves_nothing(void **state)
{
    (void)state;
    const char *path = in_folder("bad.db");
    struct store *store = open_new(path);
    struct run_info run = begin_run(store);
    struct run_step steps[] = {example_step(0), example_step(1), example_step(0)};
    FAILS(STATUS_INVALID, store_run_steps_add(store, run.id, steps, 3, &err_), path, "step");
    assert_int_equal(query(store, "SELECT count(*) FROM step"), 0);
    FAILS(STATUS_INVALID, store_run_steps_add(store, 77, steps, 1, &err_), "FOREIGN KEY");
    struct run_info homeless = example_run(77);
    FAILS(STATUS_INVALID, store_run_begin(store, &homeless, &err_), "FOREIGN KEY");
    steps[0].energy_j = (struct quantity){NAN, 0, PROVENANCE_MEASURED};
    FAILS(STATUS_INVALID, store_run_steps_add(store, run.id, steps, 1, &err_), "energy");
    run.id = 99;
    FAILS(STATUS_INVALID, store_run_update(store, &run, &err_), path, "no run 99");
    store_close(store);
}

static void test_store_run__an_evaluation_replaces_that_of_its_step(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("evaluation.db"));
    struct run_info run = begin_run(store);
    static const struct run_evaluation rows[] = {{20, 2.0}, {10, 3.0}, {20, 1.5}, {30, NAN}};
    for (size_t i = 0; i < COUNT(rows); i++)
        OK(store_run_evaluation_add(store, run.id, &rows[i], &err_));
    struct run_record record;
    OK(store_run_load(store, run.id, &record, &err_));
    assert_int_equal(record.evaluation_count, 3);
    assert_int_equal(record.evaluations[0].step, 10);
    assert_true(record.evaluations[1].loss == 1.5);
    assert_true(isnan(record.evaluations[2].loss));
    run_record_free(&record);
    store_close(store);
}

static struct event example_event(size_t i)
{
    return (struct event){
        .start_ns = (int64_t)((i * 7919) % 10007) - 5000, /* shuffled; before the clock's origin */
        .end_ns = INT64_MAX - (int64_t)i,
        .step = (int64_t)(i / 10),
        .rank = (int32_t)(i % 3),
        .layer = i % 5 ? (int32_t)(i % 5) : EVENT_NO_LAYER,
        .micro_batch = (int32_t)(i % 2),
        .stream = (uint8_t)(i % STREAM_COUNT),
        .phase = (uint8_t)(i % PHASE_COUNT),
        .live_bytes = i,
        .waited_ns = (int64_t)(i * 31),
    };
}

static void test_store_run__events_come_back_by_start(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("events.db"));
    struct run_info run = begin_run(store);
    static struct event events[10007];
    for (size_t i = 0; i < COUNT(events); i++)
        events[i] = example_event(i);
    OK(store_run_events_add(store, run.id, events, COUNT(events), &err_));
    struct run_record record;
    OK(store_run_load(store, 0, &record, &err_));
    assert_int_equal(record.event_count, COUNT(events));
    for (size_t i = 0; i < record.event_count; i++) {
        const struct event *found = &record.events[i];
        const struct event *sent = &events[found->live_bytes];
        assert_int_equal(found->start_ns, (int64_t)i - 5000);
        assert_int_equal(found->start_ns, sent->start_ns);
        assert_int_equal(found->end_ns, sent->end_ns);
        assert_int_equal(found->step, sent->step);
        assert_int_equal(found->rank, sent->rank);
        assert_int_equal(found->layer, sent->layer);
        assert_int_equal(found->micro_batch, sent->micro_batch);
        assert_int_equal(found->stream, sent->stream);
        assert_int_equal(found->phase, sent->phase);
        assert_int_equal(found->waited_ns, sent->waited_ns);
    }
    run_record_free(&record);
    store_close(store);
}

static void test_store_run__streams_have_the_names_that_events_have(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("streams.db"));
    struct run_info run = begin_run(store);
    for (uint8_t i = 0; i < STREAM_COUNT; i++) {
        struct event event = {.stream = i, .step = i};
        char sql[128];
        OK(store_run_events_add(store, run.id, &event, 1, &err_));
        snprintf(sql, sizeof(sql), "SELECT count(*) FROM event WHERE step = %d AND stream = '%s'",
                 i, event_stream_name((enum event_stream)i));
        assert_int_equal(query(store, sql), 1);
    }
    store_close(store);
}

static void test_store_run__layer_times_come_back(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("times.db"));
    struct run_info run = begin_run(store);
    static const struct layer_time times[] = {
        {0, EVENT_NO_LAYER, PHASE_OTHER, 90, 0.01, 0.001},
        {0, 0, PHASE_FORWARD, 90, 0.25, 0.02},
        {0, 0, PHASE_BACKWARD, 90, 0.5, 0.0},
        {1, 3, PHASE_GRAD_REDUCE, 1, 1.0 / 3.0, 0.0},
    };
    OK(store_run_layer_times_add(store, run.id, times, COUNT(times), &err_));
    OK(store_run_layer_times_add(store, run.id, times, COUNT(times), &err_)); /* replaces */
    struct run_record record;
    OK(store_run_load(store, 0, &record, &err_));
    assert_int_equal(record.layer_time_count, COUNT(times));
    for (size_t i = 0; i < COUNT(times); i++) {
        assert_int_equal(record.layer_times[i].rank, times[i].rank);
        assert_int_equal(record.layer_times[i].layer, times[i].layer);
        assert_int_equal(record.layer_times[i].phase, times[i].phase);
        assert_int_equal(record.layer_times[i].n, times[i].n);
        assert_true(record.layer_times[i].mean_s == times[i].mean_s);
        assert_true(record.layer_times[i].deviation_s == times[i].deviation_s);
    }
    run_record_free(&record);
    store_close(store);
}

static void test_store_run__missing_runs_are_named(void **state)
{
    (void)state;
    const char *path = in_folder("noruns.db");
    struct store *store = open_new(path);
    struct run_record record = {0};
    FAILS(STATUS_INVALID, store_run_load(store, 0, &record, &err_), path, "no runs", "temper run");
    FAILS(STATUS_INVALID, store_run_load(store, 3, &record, &err_), path, "no runs");
    (void)begin_run(store);
    (void)begin_run(store);
    FAILS(STATUS_INVALID, store_run_load(store, 3, &record, &err_), path, "no run 3", "1 to 2");
    FAILS(STATUS_INVALID, store_run_load(store, -1, &record, &err_), path, "no run -1");
    OK(sql_execute(store, "DELETE FROM run WHERE id = 1", "testing", &err_));
    FAILS(STATUS_INVALID, store_run_load(store, 1, &record, &err_), path, "no run 1");
    OK(sql_execute(store, "UPDATE run SET status = 'lost'", "testing", &err_));
    FAILS(STATUS_CORRUPT, store_run_load(store, 2, &record, &err_), path, "run 2", "'status'",
          "running, done, interrupted, failed; found 'lost'");
    assert_false(store_in_transaction(store));
    store_close(store);
}

static void test_store_run__rows_that_are_owned_cannot_lose_their_owner(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("owned.db"));
    struct run_info run = begin_run(store);
    struct run_step step = example_step(0);
    OK(store_run_steps_add(store, run.id, &step, 1, &err_));
    FAILS(STATUS_INVALID, sql_execute(store, "DELETE FROM run", "testing", &err_), "FOREIGN KEY");
    FAILS(STATUS_INVALID, sql_execute(store, "DELETE FROM plan", "testing", &err_), "FOREIGN KEY");
    assert_sound(store);
    store_close(store);
}

static void test_store_run__only_the_run_that_died_is_buried(void **state)
{
    (void)state;
    static const enum run_status before[] = {RUN_RUNNING, RUN_INTERRUPTED, RUN_DONE, RUN_RUNNING};
    static const enum run_status after[] = {RUN_FAILED, RUN_FAILED, RUN_DONE, RUN_RUNNING};
    struct store *store = open_new(in_folder("buried.db"));
    for (size_t i = 0; i < COUNT(before); i++) {
        struct run_info run = begin_run(store);
        run.started_unix_ms = i == 3 ? 6 : 5;
        run.ended_unix_ms = 0;
        run.status = before[i];
        OK(store_run_update(store, &run, &err_));
    }
    OK(store_run_bury(store, 5, &err_));
    OK(store_run_bury(store, 7, &err_));
    for (size_t i = 0; i < COUNT(after); i++) {
        struct run_record record = {0};
        OK(store_run_load(store, (int64_t)i + 1, &record, &err_));
        assert_int_equal(record.info.status, after[i]);
        assert_int_equal(record.info.ended_unix_ms > 0, after[i] == RUN_FAILED);
        run_record_free(&record);
    }
    assert_sound(store);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_run__information_comes_back_and_changes),
        cmocka_unit_test(test_store_run__steps_come_back_in_order),
        cmocka_unit_test(test_store_run__a_bad_batch_leaves_nothing),
        cmocka_unit_test(test_store_run__an_evaluation_replaces_that_of_its_step),
        cmocka_unit_test(test_store_run__events_come_back_by_start),
        cmocka_unit_test(test_store_run__streams_have_the_names_that_events_have),
        cmocka_unit_test(test_store_run__layer_times_come_back),
        cmocka_unit_test(test_store_run__missing_runs_are_named),
        cmocka_unit_test(test_store_run__only_the_run_that_died_is_buried),
        cmocka_unit_test(test_store_run__rows_that_are_owned_cannot_lose_their_owner),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
