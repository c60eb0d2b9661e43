#include "base/clock.h"
#include "base/stats.h"
#include "fixture.h"
#include "traces/recorder.h"
#include <stdlib.h>

enum { LAYERS = 5, STEPS = 50, WARMUP = 3, EVENTS = 200 };

static struct recorder *open_recorder(struct recorder_options options)
{
    struct recorder *recorder = NULL;
    struct error err;
    assert_ok(recorder_open(&recorder, &options, &err), &err);
    return recorder;
}

static void record(struct recorder *recorder, struct event event)
{
    struct event_sink sink = recorder_sink(recorder);
    sink.record(sink.user, &event);
}

static const struct layer_time *find_row(struct recorder *recorder, int32_t layer, int phase)
{
    size_t count;
    const struct layer_time *rows = recorder_layer_times(recorder, &count);
    for (size_t i = 0; i < count; i++)
        if (rows[i].layer == layer && (int)rows[i].phase == phase)
            return &rows[i];
    return NULL;
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Random events of random layers and phases against sums kept the plain way. */
static void test_recorder__sums_equal_brute_force(void **state)
{
    (void)state;
    static int64_t ns[STEPS][LAYERS + 1][PHASE_COUNT];
    static bool seen[LAYERS + 1][PHASE_COUNT];
    struct recorder *recorder = open_recorder((struct recorder_options){
        .layer_count = LAYERS, .end_step = STEPS, .warmup_steps = WARMUP, .rank = 2});
    uint64_t seed = 7;
    int64_t now = 0;
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < EVENTS; i++) {
            int layer = (int)(next_random(&seed) % (LAYERS + 1)) - 1;
            int phase = (int)(next_random(&seed) % PHASE_OTHER);
            int64_t took = (int64_t)(next_random(&seed) % 100000);
            int64_t waited = (int64_t)(next_random(&seed) % (uint64_t)(took + 1));
            int64_t cost = i % 2 == STREAM_COMM ? waited : took - waited;
            if (layer == 1 && phase == PHASE_OPTIMIZER)
                continue; /* stays unseen */
            record(recorder, (struct event){.start_ns = now,
                                            .end_ns = now + took,
                                            .step = step,
                                            .layer = layer,
                                            .phase = (uint8_t)phase,
                                            .stream = (uint8_t)(i % 2),
                                            .waited_ns = waited});
            now += took;
            ns[step][LAYERS][phase] += cost;
            if (layer >= 0)
                ns[step][layer][phase] += cost;
            seen[layer < 0 ? LAYERS : layer][phase] = true;
        }
        recorder_step_end(recorder, step, 1.0);
    }
    for (int row = 0; row <= LAYERS; row++) {
        for (int phase = 0; phase < PHASE_OTHER; phase++) {
            struct stats stats = {0};
            for (int step = WARMUP; step < STEPS; step++)
                stats_add(&stats, (double)ns[step][row][phase] * 1e-9);
            const struct layer_time *found =
                find_row(recorder, row == LAYERS ? EVENT_NO_LAYER : row, phase);
            if (row < LAYERS && !seen[row][phase]) {
                assert_null(found);
                continue;
            }
            assert_non_null(found);
            assert_int_equal(found->n, STEPS - WARMUP);
            assert_int_equal(found->rank, 2);
            assert_near(found->mean_s, stats.mean, 1e-15);
            assert_near(found->deviation_s, stats_deviation(&stats), 1e-15);
        }
    }
    recorder_close(recorder);
}

/* What the phases do not explain is "other", so that they sum to the step time. */
static void test_recorder__phases_sum_to_the_step(void **state)
{
    (void)state;
    struct recorder *recorder =
        open_recorder((struct recorder_options){.layer_count = 1, .end_step = 2});
    struct event event = {.end_ns = 3000000, .phase = PHASE_FORWARD};
    for (event.step = 0; event.step < 2; event.step++) {
        record(recorder, event);
        record(recorder, (struct event){.end_ns = 1000,
                                        .step = event.step,
                                        .layer = EVENT_NO_LAYER,
                                        .phase = PHASE_OTHER});
        recorder_step_end(recorder, event.step, 0.004);
    }
    assert_near(find_row(recorder, EVENT_NO_LAYER, PHASE_OTHER)->mean_s, 0.001, 1e-12);
    double sum_s = 0;
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        sum_s += find_row(recorder, EVENT_NO_LAYER, phase)->mean_s;
    assert_near(sum_s, 0.004, 1e-12);
    recorder_close(recorder);
}

/* A layer that computes for 2 ms and waits 1 ms for a collective inside; a gradient that flies 3 ms
 * meanwhile and is waited for half a ms: 4.5 ms in all, however long the flights. */
static void test_recorder__overlapping_events_sum_to_the_step(void **state)
{
    (void)state;
    struct recorder *recorder =
        open_recorder((struct recorder_options){.layer_count = 2, .end_step = 1});
    record(recorder, (struct event){.start_ns = 1000000,
                                    .end_ns = 2000000,
                                    .stream = STREAM_COMM,
                                    .phase = PHASE_TENSOR,
                                    .waited_ns = 1000000});
    record(recorder,
           (struct event){.end_ns = 3000000, .phase = PHASE_BACKWARD, .waited_ns = 1000000});
    record(recorder, (struct event){.start_ns = 500000,
                                    .end_ns = 3500000,
                                    .layer = 1,
                                    .stream = STREAM_COMM,
                                    .phase = PHASE_GRAD_REDUCE,
                                    .waited_ns = 500000});
    record(recorder,
           (struct event){
               .start_ns = 3500000, .end_ns = 4500000, .layer = 1, .phase = PHASE_OPTIMIZER});
    recorder_step_end(recorder, 0, 0.0046);
    assert_near(find_row(recorder, 0, PHASE_BACKWARD)->mean_s, 0.002, 1e-15);
    assert_near(find_row(recorder, 0, PHASE_TENSOR)->mean_s, 0.001, 1e-15);
    assert_near(find_row(recorder, 1, PHASE_GRAD_REDUCE)->mean_s, 0.0005, 1e-15);
    assert_near(find_row(recorder, EVENT_NO_LAYER, PHASE_OTHER)->mean_s, 0.0001, 1e-12);
    recorder_close(recorder);
}

/* One rank of a plain plan: 2 micro-batches of 10 layers, a data load each, and what follows. */
static void test_recorder__step_events_cover_a_plan(void **state)
{
    (void)state;
    struct run_record record;
    fixture_make(&record, &fixture_full);
    struct plan *plan = &record.plan;
    assert_int_equal(recorder_step_events(plan, 0), 2 * 2 + 10 * (2 * 2 + 7));
    plan->layers[3].zero_stage = 3;
    assert_int_equal(recorder_step_events(plan, 1), 2 * 2 + 10 * (2 * 2 + 7) + 2 * 3);
    run_record_free(&record);
    /* Stages 0 and 1 have 5 layers each, ranks 0 and 1 of them the first; 4 micro-batches. */
    fixture_make_split(&record, 2);
    size_t tensor = 2 * 5, zero = 3, pipeline = 8 * 3 + 8 + 2;
    assert_int_equal(recorder_step_events(&record.plan, 0),
                     2 * 4 + 5 * (4 * (2 + tensor) + 7) + 2 * 4 * zero + pipeline);
    run_record_free(&record);
}

/* A clock that says less than the events did must not give negative time. */
static void test_recorder__other_is_never_negative(void **state)
{
    (void)state;
    struct recorder *recorder =
        open_recorder((struct recorder_options){.layer_count = 1, .end_step = 1});
    record(recorder, (struct event){.end_ns = 3000000});
    recorder_step_end(recorder, 0, 0.001);
    assert_true(find_row(recorder, EVENT_NO_LAYER, PHASE_OTHER)->mean_s == 0);
    recorder_close(recorder);
}

static size_t count_kept(struct recorder_options options, int64_t *first, int64_t *last)
{
    struct recorder *recorder = open_recorder(options);
    for (int64_t step = options.first_step; step < options.end_step; step++) {
        record(recorder, (struct event){.step = step, .end_ns = 1});
        recorder_step_end(recorder, step, 1e-9);
    }
    size_t count;
    const struct event *events = recorder_events(recorder, &count);
    for (size_t i = 1; i < count; i++)
        assert_true(events[i].step > events[i - 1].step);
    *first = count > 0 ? events[0].step : -1;
    *last = count > 0 ? events[count - 1].step : -1;
    assert_int_equal(recorder_dropped(recorder), 0);
    recorder_close(recorder);
    return count;
}

static void test_recorder__keeps_the_steps_asked_for(void **state)
{
    (void)state;
    int64_t first, last;
    for (int64_t steps = 0; steps <= 40; steps++) {
        for (int64_t kept = 0; kept <= 12; kept++) {
            for (int64_t warmup = 0; warmup <= 5; warmup++) {
                struct recorder_options options = {.layer_count = 1,
                                                   .first_step = 100,
                                                   .end_step = 100 + steps,
                                                   .kept_steps = kept,
                                                   .warmup_steps = warmup,
                                                   .events_per_step = 1};
                int64_t left_out = warmup < steps ? warmup : steps > 0 ? steps - 1 : 0;
                int64_t usable = steps - left_out, wanted = kept < usable ? kept : usable;
                assert_int_equal(count_kept(options, &first, &last), wanted);
                if (wanted > 0)
                    assert_int_equal(first, 100 + left_out);
                /* spread: the last kept one opens the last of `wanted` equal parts */
                if (wanted > 0)
                    assert_int_equal(last, 100 + left_out + (wanted - 1) * usable / wanted);
            }
        }
    }
}

static void test_recorder__counts_what_it_drops(void **state)
{
    (void)state;
    struct recorder *recorder = open_recorder((struct recorder_options){
        .layer_count = 1, .end_step = 2, .kept_steps = 2, .events_per_step = 10});
    for (int64_t step = 0; step < 2; step++) {
        for (int i = 0; i < 25; i++)
            record(recorder, (struct event){.step = step, .start_ns = i, .end_ns = i + 1});
        recorder_step_end(recorder, step, 1);
    }
    size_t count;
    const struct event *events = recorder_events(recorder, &count);
    assert_int_equal(count, 20);
    assert_int_equal(recorder_dropped(recorder), 30);
    assert_int_equal(events[9].start_ns, 9);
    assert_int_equal(events[10].step, 1);
    /* dropped from the events, not from the sums */
    assert_near(find_row(recorder, 0, PHASE_FORWARD)->mean_s, 25e-9, 1e-18);
    recorder_close(recorder);
}

/* A step that comes back after another one must not write past the events. */
static void test_recorder__survives_repeated_steps(void **state)
{
    (void)state;
    struct recorder *recorder = open_recorder((struct recorder_options){
        .layer_count = 1, .end_step = 2, .kept_steps = 2, .events_per_step = 3});
    for (int i = 0; i < 100; i++)
        record(recorder, (struct event){.step = i % 2, .end_ns = 1});
    size_t count;
    (void)recorder_events(recorder, &count);
    assert_int_equal(count, 6);
    assert_int_equal(recorder_dropped(recorder), 94);
    recorder_close(recorder);
}

static void test_recorder__empty_run_has_no_rows(void **state)
{
    (void)state;
    struct recorder *recorder = open_recorder((struct recorder_options){.layer_count = 3});
    size_t count = 99;
    (void)recorder_events(recorder, &count);
    assert_int_equal(count, 0);
    (void)recorder_layer_times(recorder, &count);
    assert_int_equal(count, 0);
    recorder_close(recorder);
    recorder_close(NULL);
}

static void test_recorder__refuses_what_memory_cannot_hold(void **state)
{
    (void)state;
    struct recorder *recorder = NULL;
    struct recorder_options options = {.layer_count = 1,
                                       .end_step = 1 << 20,
                                       .kept_steps = 1 << 20,
                                       .events_per_step = SIZE_MAX / 2};
    struct error err;
    assert_int_equal(recorder_open(&recorder, &options, &err), STATUS_MEMORY);
    assert_null(recorder);
}

/* Well under a microsecond; the bound leaves room for sanitizers and a busy machine. */
static void test_recorder__records_fast(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    struct recorder *recorder = open_recorder((struct recorder_options){
        .layer_count = 8, .end_step = 100, .kept_steps = 4, .events_per_step = COUNT / 100});
    double begin_s = clock_s();
    for (int i = 0; i < COUNT; i++)
        record(recorder,
               (struct event){
                   .step = i / (COUNT / 100), .layer = i % 8, .start_ns = i, .end_ns = i + 1});
    double each_ns = (clock_s() - begin_s) * 1e9 / COUNT;
    print_message("%.1f ns an event\n", each_ns);
    assert_true(each_ns < 2000);
    recorder_close(recorder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorder__sums_equal_brute_force),
        cmocka_unit_test(test_recorder__phases_sum_to_the_step),
        cmocka_unit_test(test_recorder__overlapping_events_sum_to_the_step),
        cmocka_unit_test(test_recorder__step_events_cover_a_plan),
        cmocka_unit_test(test_recorder__other_is_never_negative),
        cmocka_unit_test(test_recorder__keeps_the_steps_asked_for),
        cmocka_unit_test(test_recorder__counts_what_it_drops),
        cmocka_unit_test(test_recorder__survives_repeated_steps),
        cmocka_unit_test(test_recorder__empty_run_has_no_rows),
        cmocka_unit_test(test_recorder__refuses_what_memory_cannot_hold),
        cmocka_unit_test(test_recorder__records_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
