#include "fixture.h"
#include "ir/mesh.h"
#include "traces/times.h"
#include <stdlib.h>

static void set_times(struct run_record *record, const struct layer_time *times, size_t count)
{
    free(record->layer_times);
    record->layer_times = fixture_allocate(count, sizeof(*times));
    memcpy(record->layer_times, times, count * sizeof(*times));
    record->layer_time_count = count;
}

/* Ranks 0 and 1 are stage 0 with layers 0 to 4, ranks 2 and 3 are stage 1 with layers 5 to 9. */
static void test_times__means_are_over_the_ranks_of_the_stage(void **state)
{
    (void)state;
    static const struct layer_time rows[] = {
        {0, 1, PHASE_FORWARD, 9, 0.10, 0.01},
        {1, 1, PHASE_FORWARD, 9, 0.30, 0.03},
        {2, 6, PHASE_FORWARD, 9, 0.50, 0.05},
        {0, EVENT_NO_LAYER, PHASE_FORWARD, 9, 0.10, 0.01},
        {1, EVENT_NO_LAYER, PHASE_FORWARD, 9, 0.30, 0.03},
        {2, EVENT_NO_LAYER, PHASE_FORWARD, 9, 0.50, 0.05},
        {0, EVENT_NO_LAYER, PHASE_PIPELINE, 9, 0.40, 0},
        {1, EVENT_NO_LAYER, PHASE_PIPELINE, 9, 0.20, 0},
    };
    struct run_record record;
    struct times times;
    struct error err;
    fixture_make_split(&record, 1);
    set_times(&record, rows, sizeof(rows) / sizeof(rows[0]));
    assert_ok(times_open(&times, &record, &err), &err);
    assert_int_equal(times.rank_count, 3);
    assert_near(times_of_layer(&times, 1, PHASE_FORWARD).value, 0.20, 1e-15);
    assert_near(times_of_layer(&times, 1, PHASE_FORWARD).deviation, 0.02, 1e-15);
    assert_near(times_of_layer(&times, 6, PHASE_FORWARD).value, 0.50, 1e-15); /* of rank 2 alone */
    assert_near(times_of_layer(&times, 2, PHASE_FORWARD).value, 0, 0);
    assert_int_equal(times_of_layer(&times, 1, PHASE_BACKWARD).provenance, PROVENANCE_ABSENT);
    assert_near(times_of_stage(&times, 0, PHASE_FORWARD).value, 0.20, 1e-15);
    assert_near(times_of_stage(&times, 0, PHASE_PIPELINE).value, 0.30, 1e-15);
    assert_near(times_of_stage(&times, 1, PHASE_FORWARD).value, 0.50, 1e-15);
    assert_near(times_of_all(&times, PHASE_FORWARD).value, 0.30, 1e-15);
    assert_near(times_of_all(&times, PHASE_PIPELINE).value, 0.20, 1e-15);
    assert_near(times_rank_seconds(&times), 0.1 + 0.3 + 0.5 + 0.4 + 0.2, 1e-15);
    assert_near(times.spread[PHASE_FORWARD].minimum_s, 0.10, 0);
    assert_near(times.spread[PHASE_FORWARD].maximum_s, 0.50, 0);
    /* Waiting for others is no work: stage 0 has 0.5 s, of which 0.2 s are work. */
    assert_int_equal(times_critical_stage(&times), 1);
    times_close(&times);
    run_record_free(&record);
}

static void test_times__a_stage_that_was_not_recorded_is_absent(void **state)
{
    (void)state;
    static const struct layer_time row = {3, EVENT_NO_LAYER, PHASE_BACKWARD, 9, 0.1, 0};
    struct run_record record;
    struct times times;
    struct error err;
    fixture_make_split(&record, 1);
    set_times(&record, &row, 1);
    assert_ok(times_open(&times, &record, &err), &err);
    assert_int_equal(times_critical_stage(&times), 1);
    assert_int_equal(times_of_stage(&times, 0, PHASE_BACKWARD).provenance, PROVENANCE_ABSENT);
    assert_near(times_of_stage(&times, 1, PHASE_BACKWARD).value, 0.1, 0);
    times_close(&times);
    set_times(&record, &row, 0);
    assert_ok(times_open(&times, &record, &err), &err);
    assert_int_equal(times_critical_stage(&times), -1);
    assert_int_equal(times_of_all(&times, PHASE_BACKWARD).provenance, PROVENANCE_ABSENT);
    times_close(&times);
    run_record_free(&record);
}

/* Of the pipeline and of other work a rank may name any layer: it is no layer's. */
static void test_times__a_layer_of_another_stage_is_corrupt(void **state)
{
    (void)state;
    struct layer_time row = {0, 7, PHASE_BACKWARD, 9, 0.1, 0};
    struct run_record record;
    struct times times;
    struct error err;
    fixture_make_split(&record, 1);
    set_times(&record, &row, 1);
    assert_int_equal(times_open(&times, &record, &err), STATUS_CORRUPT);
    assert_contains(err.message, "rank 0 has a recorded time of layer 7");
    assert_contains(err.message, "stage 1");
    row.phase = PHASE_PIPELINE;
    set_times(&record, &row, 1);
    assert_ok(times_open(&times, &record, &err), &err);
    assert_false(times.by_layer[PHASE_PIPELINE]);
    times_close(&times);
    run_record_free(&record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times__means_are_over_the_ranks_of_the_stage),
        cmocka_unit_test(test_times__a_stage_that_was_not_recorded_is_absent),
        cmocka_unit_test(test_times__a_layer_of_another_stage_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
