#include "fixture.h"
#include "traces/communication.h"
#include <stdlib.h>

static void set_events(struct run_record *record, const struct event *events, size_t count)
{
    free(record->events);
    record->events = fixture_allocate(count, sizeof(*events));
    memcpy(record->events, events, count * sizeof(*events));
    record->event_count = count;
}

static struct event flight(int64_t step, int32_t rank, int32_t layer, enum phase phase,
                           int64_t flight_ns, int64_t waited_ns)
{
    return (struct event){.step = step,
                          .rank = rank,
                          .layer = layer,
                          .phase = (uint8_t)phase,
                          .stream = STREAM_COMM,
                          .start_ns = 1000,
                          .end_ns = 1000 + flight_ns,
                          .waited_ns = waited_ns,
                          .live_bytes = 600};
}

/* Two ranks in two steps: everything is divided by four. Layer 1 is an attention, 2 an mlp. */
static void test_communication__sums_are_means_over_steps_and_ranks(void **state)
{
    (void)state;
    const struct event events[] = {
        flight(3, 0, 1, PHASE_TENSOR, 400, 400),
        flight(3, 1, 2, PHASE_TENSOR, 200, 200),
        flight(3, 1, 2, PHASE_GRAD_REDUCE, 1000, 250),
        {.step = 3, .rank = 1, .layer = 2, .end_ns = 5000, .waited_ns = 700, .live_bytes = 9},
        flight(7, 0, 1, PHASE_PIPELINE, 800, 100),
        flight(7, 1, 0, PHASE_GRAD_REDUCE, 600, 0),
    };
    struct run_record record;
    struct communication found;
    struct error err;
    fixture_make(&record, &fixture_full);
    set_events(&record, events, sizeof(events) / sizeof(events[0]));
    assert_ok(communication_measure(&record, &found, &err), &err);
    assert_int_equal(found.step_count, 4);

    const struct communication_sum *tensor = found.sums[PHASE_TENSOR];
    assert_near(tensor[COMMUNICATION_ALL].calls, 0.5, 0);
    assert_near(tensor[COMMUNICATION_ALL].bytes, 300, 0);
    assert_near(tensor[COMMUNICATION_ALL].flight_s, 150e-9, 1e-20);
    assert_near(tensor[LAYER_ATTENTION].flight_s, 100e-9, 1e-20);
    assert_near(tensor[LAYER_MLP].flight_s, 50e-9, 1e-20);
    assert_near(communication_hidden_share(&tensor[COMMUNICATION_ALL]), 0, 0);

    const struct communication_sum *reduce = found.sums[PHASE_GRAD_REDUCE];
    assert_near(reduce[COMMUNICATION_ALL].flight_s, 400e-9, 1e-20);
    assert_near(reduce[COMMUNICATION_ALL].waited_s, 62.5e-9, 1e-20);
    assert_near(communication_hidden_s(&reduce[COMMUNICATION_ALL]), 337.5e-9, 1e-20);
    assert_near(communication_hidden_share(&reduce[COMMUNICATION_ALL]), 1350.0 / 1600, 1e-12);
    assert_near(communication_hidden_share(&reduce[LAYER_MLP]), 0.75, 1e-12);
    assert_near(communication_hidden_share(&reduce[LAYER_EMBEDDING]), 1, 1e-12);

    /* Of no layer, whatever the event says. */
    const struct communication_sum *pipeline = found.sums[PHASE_PIPELINE];
    assert_near(pipeline[COMMUNICATION_ALL].calls, 0.25, 0);
    assert_near(pipeline[LAYER_ATTENTION].calls, 0, 0);

    struct communication_sum total = communication_total(&found);
    assert_near(total.calls, 1.25, 0);
    assert_near(total.flight_s, 750e-9, 1e-20);
    assert_near(total.waited_s, 237.5e-9, 1e-20);
    assert_true(isnan(communication_hidden_share(&found.sums[PHASE_PARAM_GATHER][0])));
    run_record_free(&record);
}

static void test_communication__nothing_recorded_is_not_zero(void **state)
{
    (void)state;
    const struct fixture_options options = {.blocks = 1, .ranks = 1, .micro_batches = 1};
    struct run_record record;
    struct communication found;
    struct error err;
    fixture_make(&record, &options);
    assert_ok(communication_measure(&record, &found, &err), &err);
    assert_int_equal(found.step_count, 0);
    run_record_free(&record);
}

/* What the events say was waited for is what the recorder's sums say: two ways to the same time. */
static void test_communication__agrees_with_the_recorded_times(void **state)
{
    (void)state;
    static const enum phase phases[] = {PHASE_TENSOR, PHASE_PIPELINE, PHASE_PARAM_GATHER,
                                        PHASE_GRAD_REDUCE};
    struct run_record record;
    struct communication found;
    struct times times;
    struct error err;
    fixture_make_split(&record, 2);
    assert_ok(communication_measure(&record, &found, &err), &err);
    assert_ok(times_open(&times, &record, &err), &err);
    for (size_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++) {
        const struct communication_sum *sum = &found.sums[phases[i]][COMMUNICATION_ALL];
        assert_true(sum->flight_s > 0);
        assert_near(sum->waited_s, times_of_all(&times, phases[i]).value, 1e-9);
    }
    assert_true(communication_hidden_share(&found.sums[PHASE_PARAM_GATHER][COMMUNICATION_ALL]) >
                0.3);
    times_close(&times);
    run_record_free(&record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_communication__sums_are_means_over_steps_and_ranks),
        cmocka_unit_test(test_communication__nothing_recorded_is_not_zero),
        cmocka_unit_test(test_communication__agrees_with_the_recorded_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
