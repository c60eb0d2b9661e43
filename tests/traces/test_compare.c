#include "fixture.h"
#include "ir/footprint.h"
#include <stdlib.h>

struct made {
    struct run_record record;
    struct run_comparison comparison;
};

static void make(struct made *made, const struct fixture_options *options)
{
    struct error err;
    fixture_make(&made->record, options);
    assert_ok(compare_run(&made->record, &made->comparison, &err), &err);
}

static void release(struct made *made)
{
    run_comparison_clear(&made->comparison);
    run_record_free(&made->record);
}

static void assert_absent(struct quantity quantity)
{
    assert_int_equal(quantity.provenance, PROVENANCE_ABSENT);
}

static void test_compare__totals(void **state)
{
    (void)state;
    struct made made;
    make(&made, &fixture_full);
    const struct run_comparison *found = &made.comparison;
    assert_near(found->step_time_s.measured.value, FIXTURE_STEP_S, 1e-4);
    assert_near(found->step_time_s.error, FIXTURE_PREDICTED_S / FIXTURE_STEP_S - 1, 0.002);
    assert_int_equal(found->step_time_s.measured.provenance, PROVENANCE_MEASURED);
    assert_near(found->energy_j.measured.value, FIXTURE_STEP_J, 1e-12);
    assert_near(found->energy_j.error, 1.4 / 1.5 - 1, 1e-12);
    assert_near(found->tokens_per_s.measured.value * found->step_time_s.measured.value, 24 * 64,
                1e-6);
    assert_near(found->tokens_per_s.predicted.value, 24 * 64 / FIXTURE_PREDICTED_S, 1e-6);
    assert_int_equal(found->steps, 2000);
    assert_int_equal(found->warmup_steps, COMPARE_WARMUP_STEPS);
    assert_int_equal(found->rank_count, 2);
    assert_near(found->validation_loss, made.record.evaluations[20].loss, 0);
    release(&made);
}

/* The first steps are slow; the median over the rest must not see them. */
static void test_compare__warmup_is_left_out(void **state)
{
    (void)state;
    for (size_t steps = 1; steps < 8; steps++) {
        struct fixture_options options = fixture_full;
        struct made made;
        options.steps = steps;
        options.kept_steps = 0;
        make(&made, &options);
        double step_s = made.comparison.step_time_s.measured.value;
        assert_int_equal(made.comparison.warmup_steps, steps > 3 ? 3 : steps - 1);
        if (steps > 3)
            assert_near(step_s, FIXTURE_STEP_S, 1e-3);
        else
            assert_near(step_s, 0.2, 0);
        release(&made);
    }
}

static void test_compare__phases_are_means_over_ranks(void **state)
{
    (void)state;
    struct made made;
    make(&made, &fixture_full);
    const struct run_comparison *found = &made.comparison;
    double sum_s = 0, sum_j = 0;
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        sum_s += found->phase_s[phase].measured.value;
        sum_j += found->phase_energy_j[phase].measured.value;
        if (found->phase_s[phase].measured.value > 0)
            assert_near(found->phase_spread[phase].maximum_s / found->phase_spread[phase].minimum_s,
                        1.005 / 0.995, 1e-9);
        assert_int_equal(found->phase_energy_j[phase].measured.provenance, PROVENANCE_MODELLED);
    }
    assert_near(sum_s, FIXTURE_STEP_S, 1e-12);
    assert_near(sum_j, FIXTURE_STEP_J, 1e-12);
    assert_near(found->phase_s[PHASE_FORWARD].measured.value, 0.31 * FIXTURE_STEP_S, 1e-12);
    assert_near(found->phase_s[PHASE_FORWARD].error,
                0.30 * FIXTURE_PREDICTED_S / (0.31 * FIXTURE_STEP_S) - 1, 1e-12);
    release(&made);
}

static void test_compare__layers_sum_to_the_phases(void **state)
{
    (void)state;
    struct made made;
    make(&made, &fixture_full);
    const struct run_comparison *found = &made.comparison;
    assert_int_equal(found->layer_count, 10);
    double measured_s = 0, predicted_s = 0;
    for (size_t i = 0; i < found->layer_count; i++) {
        measured_s += found->layers[i].total_s.measured.value;
        predicted_s += found->layers[i].total_s.predicted.value;
        assert_absent(found->layers[i].phase_s[PHASE_OTHER].measured);
        assert_true(found->layers[i].energy_j.has_error);
    }
    assert_near(measured_s, 0.97 * FIXTURE_STEP_S, 1e-12);
    assert_near(predicted_s, 0.97 * FIXTURE_PREDICTED_S, 1e-12);
    assert_int_equal(found->layers[3].layer.kind, LAYER_ATTENTION);
    assert_int_equal(found->layers[3].layer.block, 1);
    release(&made);
}

/* A phase that was recorded for the whole step only must not count on one side of a layer's total.
 */
static void test_compare__layer_totals_compare_like_with_like(void **state)
{
    (void)state;
    struct made made;
    struct error err;
    fixture_make(&made.record, &fixture_full);
    size_t kept = 0;
    for (size_t i = 0; i < made.record.layer_time_count; i++) {
        struct layer_time time = made.record.layer_times[i];
        if (time.layer == EVENT_NO_LAYER || time.phase == PHASE_FORWARD)
            made.record.layer_times[kept++] = time;
    }
    made.record.layer_time_count = kept;
    assert_ok(compare_run(&made.record, &made.comparison, &err), &err);
    for (size_t i = 0; i < made.comparison.layer_count; i++) {
        const struct layer_comparison *layer = &made.comparison.layers[i];
        assert_near(layer->total_s.predicted.value, layer->phase_s[PHASE_FORWARD].predicted.value,
                    1e-15);
        assert_near(layer->total_s.measured.value, layer->phase_s[PHASE_FORWARD].measured.value,
                    1e-15);
        assert_absent(layer->phase_s[PHASE_BACKWARD].measured);
        assert_false(layer->phase_s[PHASE_BACKWARD].has_error);
    }
    release(&made);
}

static void test_compare__memory_terms_sum_to_the_peak(void **state)
{
    (void)state;
    struct made made;
    make(&made, &fixture_full);
    const struct run_comparison *found = &made.comparison;
    double predicted = 0, measured = 0;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        predicted += found->memory_term_bytes[term].predicted.value;
        measured += found->memory_term_bytes[term].measured.value;
    }
    assert_near(predicted, found->peak_bytes.predicted.value, 1);
    assert_near(measured, found->peak_bytes.measured.value, 1);
    assert_near(found->layout_bytes.error, 0, 1e-12);
    assert_near(found->memory_term_bytes[MEMORY_PROCESS].error, 1 / 1.02 - 1, 1e-6);
    release(&made);
}

/* When the layout is not what was predicted nobody knows which term differs. */
static void test_compare__other_layout_has_no_measured_terms(void **state)
{
    (void)state;
    struct made made;
    struct error err;
    fixture_make(&made.record, &fixture_full);
    made.record.info.layout_bytes += 4096;
    assert_ok(compare_run(&made.record, &made.comparison, &err), &err);
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        if (term != MEMORY_PROCESS)
            assert_absent(made.comparison.memory_term_bytes[term].measured);
    assert_true(made.comparison.layout_bytes.error < 0);
    release(&made);
}

/* A layer that keeps 4096 bytes more than planned, in every recorded forward pass of its
 * micro-batches. */
static void test_compare__kept_bytes_come_from_the_events(void **state)
{
    (void)state;
    enum { GREEDY = 2 };
    struct made made;
    fixture_make(&made.record, &fixture_full);
    for (size_t i = 0; i < made.record.event_count; i++) {
        struct event *event = &made.record.events[i];
        if (event->stream == STREAM_COMPUTE && event->phase == PHASE_FORWARD &&
            event->layer >= GREEDY)
            event->live_bytes += 4096;
    }
    struct error err;
    assert_int_equal(compare_run(&made.record, &made.comparison, &err), STATUS_OK);
    for (size_t i = 0; i < made.comparison.layer_count; i++) {
        const struct comparison *kept = &made.comparison.layers[i].kept_bytes;
        double planned = (double)made.record.plan.prediction.layers[i].saved_bytes;
        assert_near(kept->predicted.value, planned, 0);
        assert_near(kept->measured.value, planned + (i == GREEDY ? 4096 : 0), 0);
        assert_int_equal(kept->measured.provenance, PROVENANCE_MEASURED);
    }
    release(&made);

    const struct fixture_options without_events = {.blocks = 1, .ranks = 1, .micro_batches = 1};
    make(&made, &without_events);
    assert_absent(made.comparison.layers[1].kept_bytes.measured);
    release(&made);
}

/* ---- split over stages ---- */

static void make_split(struct made *made, int data_parallel)
{
    struct error err;
    fixture_make_split(&made->record, data_parallel);
    assert_ok(compare_run(&made->record, &made->comparison, &err), &err);
}

/* Both sides' phases are those of the stage with most to do, and each sums to its step. */
static void test_compare__phases_are_of_the_critical_stage(void **state)
{
    (void)state;
    struct made made;
    make_split(&made, 2);
    const struct run_comparison *found = &made.comparison;
    assert_int_equal(found->predicted_stage, 1);
    assert_int_equal(found->measured_stage, 1);
    assert_int_equal(found->rank_count, 8);
    double predicted_s = 0, measured_s = 0;
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        predicted_s += found->phase_s[phase].predicted.value;
        measured_s += found->phase_s[phase].measured.value;
    }
    assert_near(predicted_s, found->step_time_s.predicted.value, 1e-12);
    assert_near(measured_s, found->step_time_s.measured.value, 1e-9);
    /* Stage 1 has weights 3 + 4 + 3 + 4 + 6 of 0.25 ms and 4 micro-batches; stage 0 has 15. */
    assert_near(found->phase_s[PHASE_FORWARD].measured.value, 20 * 0.25e-3 * 4, 1e-12);
    assert_near(found->phase_s[PHASE_BACKWARD].measured.value, 20 * 0.5e-3 * 4, 1e-12);
    assert_near(found->phase_spread[PHASE_FORWARD].minimum_s, 15 * 0.25e-3 * 4, 1e-12);
    assert_near(found->phase_spread[PHASE_FORWARD].maximum_s, 20 * 0.25e-3 * 4, 1e-12);
    assert_near(found->phase_s[PHASE_TENSOR].measured.value, 5 * 8 * 40e-6, 1e-12);
    release(&made);
}

/* Only half of the ranks have a layer: their mean is not halved. */
static void test_compare__layers_are_means_over_their_stage(void **state)
{
    (void)state;
    static const double weights[LAYER_KIND_COUNT] = {1, 3, 4, 6};
    struct made made;
    make_split(&made, 1);
    for (size_t i = 0; i < made.comparison.layer_count; i++) {
        const struct layer_comparison *layer = &made.comparison.layers[i];
        double weight = weights[layer->layer.kind];
        assert_near(layer->phase_s[PHASE_FORWARD].measured.value, weight * 0.25e-3 * 4, 1e-12);
        assert_near(layer->phase_s[PHASE_TENSOR].measured.value, 8 * 40e-6, 1e-12);
        assert_absent(layer->phase_s[PHASE_PIPELINE].measured);
        assert_absent(layer->phase_s[PHASE_PIPELINE].predicted);
        double kept = (double)made.record.plan.prediction.layers[i].saved_bytes;
        assert_near(layer->kept_bytes.measured.value, kept, 0);
    }
    release(&made);
}

/* All ranks' layers and what is no layer's share the step's energy. */
static void test_compare__energy_is_shared_by_all_stages(void **state)
{
    (void)state;
    struct made made;
    struct error err;
    fixture_make_split(&made.record, 1);
    for (size_t i = 0; i < made.record.step_count; i++)
        made.record.steps[i].energy_j = (struct quantity){2.0, 0, PROVENANCE_MEASURED};
    assert_ok(compare_run(&made.record, &made.comparison, &err), &err);
    const struct run_comparison *found = &made.comparison;
    double phases_j = 0, layers_j = 0;
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        phases_j += found->phase_energy_j[phase].measured.value;
    for (size_t i = 0; i < found->layer_count; i++)
        layers_j += found->layers[i].energy_j.measured.value;
    assert_near(phases_j, 2.0, 1e-9);
    assert_near(layers_j,
                phases_j - found->phase_energy_j[PHASE_PIPELINE].measured.value -
                    found->phase_energy_j[PHASE_OTHER].measured.value,
                1e-9);
    release(&made);
}

static void test_compare__layout_is_the_fullest_stage(void **state)
{
    (void)state;
    struct made made;
    make_split(&made, 2);
    struct footprint footprint;
    plan_footprint(&made.record.plan, plan_fullest_stage(&made.record.plan), &footprint);
    assert_near(made.comparison.layout_bytes.predicted.value,
                (double)footprint_total_bytes(&footprint), 0);
    assert_near(made.comparison.layout_bytes.error, 0, 1e-12);
    release(&made);
}

/* A step is 4 micro-batches of 6 sequences in each of 2 replicas, on a peak of all 8 ranks. */
static void test_compare__matmul_share_counts_a_replica_once(void **state)
{
    (void)state;
    struct made made;
    make_split(&made, 2);
    const struct plan *plan = &made.record.plan;
    struct micro_batch_shape shape = {.sequences = 6, .seq_length = 64, .threads = 1};
    double flops = 0;
    for (size_t i = 0; i < plan->layer_count; i++)
        flops += layer_forward_flops(&plan->model, model_layer(&plan->model, i).kind, &shape);
    assert_near(made.comparison.matmul_share,
                3 * 4 * 2 * flops / made.comparison.step_time_s.measured.value / (8 * 150e9),
                1e-12);
    release(&made);
}

static void test_compare__waiting_longer_than_the_event_is_corrupt(void **state)
{
    (void)state;
    struct made made;
    struct error err;
    fixture_make_split(&made.record, 1);
    struct event *event = &made.record.events[5];
    int64_t waited_ns = event->waited_ns;
    event->waited_ns = event->end_ns - event->start_ns + 1;
    assert_int_equal(compare_run(&made.record, &made.comparison, &err), STATUS_CORRUPT);
    event->waited_ns = -1;
    assert_int_equal(compare_run(&made.record, &made.comparison, &err), STATUS_CORRUPT);
    assert_contains(err.message, "event 5");
    event->waited_ns = waited_ns;
    assert_ok(compare_run(&made.record, &made.comparison, &err), &err);
    release(&made);
}

static void test_compare__matmul_share(void **state)
{
    (void)state;
    struct made made;
    make(&made, &fixture_full);
    const struct plan *plan = &made.record.plan;
    struct micro_batch_shape shape = {.sequences = 6, .seq_length = 64, .threads = 1};
    double flops = 0;
    for (size_t i = 0; i < plan->layer_count; i++)
        flops += layer_forward_flops(&plan->model, model_layer(&plan->model, i).kind, &shape);
    assert_near(made.comparison.matmul_share,
                3 * 2 * 2 * flops / made.comparison.step_time_s.measured.value / 300e9, 1e-12);
    release(&made);
}

static void test_compare__nothing_recorded_is_absent(void **state)
{
    (void)state;
    const struct fixture_options options = {.blocks = 1, .ranks = 1, .micro_batches = 1};
    struct made made;
    make(&made, &options);
    const struct run_comparison *found = &made.comparison;
    assert_absent(found->step_time_s.measured);
    assert_absent(found->step_time_s.predicted);
    assert_absent(found->energy_j.measured);
    assert_absent(found->tokens_per_s.measured);
    assert_absent(found->peak_bytes.predicted);
    assert_true(isnan(found->final_loss) && isnan(found->validation_loss));
    assert_true(found->matmul_share == 0);
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        assert_absent(found->phase_s[phase].measured);
        assert_absent(found->phase_energy_j[phase].measured);
    }
    for (size_t i = 0; i < found->layer_count; i++) {
        assert_absent(found->layers[i].total_s.measured);
        assert_absent(found->layers[i].total_s.predicted);
        assert_absent(found->layers[i].energy_j.predicted);
        assert_false(found->layers[i].total_s.has_error);
    }
    release(&made);
}

/* One step without a counter's reading must not become zero joules. */
static void test_compare__absent_energy_is_not_zero(void **state)
{
    (void)state;
    struct made made;
    struct error err;
    fixture_make(&made.record, &fixture_full);
    for (size_t i = 0; i < made.record.step_count; i += 2)
        made.record.steps[i].energy_j = quantity_absent();
    made.record.steps[5].energy_j.provenance = PROVENANCE_MODELLED;
    assert_ok(compare_run(&made.record, &made.comparison, &err), &err);
    assert_near(made.comparison.energy_j.measured.value, FIXTURE_STEP_J, 1e-12);
    assert_int_equal(made.comparison.energy_j.measured.provenance, PROVENANCE_MODELLED);
    release(&made);
}

static void test_compare__zero_and_nan_measurements_have_no_error(void **state)
{
    (void)state;
    struct made made;
    struct error err;
    fixture_make(&made.record, &fixture_full);
    for (size_t i = 0; i < made.record.layer_time_count; i++)
        made.record.layer_times[i].mean_s = i % 2 == 0 ? 0 : NAN;
    for (size_t i = 0; i < made.record.step_count; i++)
        made.record.steps[i].seconds = i % 2 == 0 ? NAN : 0;
    assert_ok(compare_run(&made.record, &made.comparison, &err), &err);
    assert_absent(made.comparison.step_time_s.measured);
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        assert_false(made.comparison.phase_s[phase].has_error);
        assert_true(isfinite(made.comparison.phase_s[phase].measured.value));
    }
    release(&made);
}

static void assert_corrupt(struct run_record *record, const char *part)
{
    struct run_comparison comparison;
    struct error err;
    assert_int_equal(compare_run(record, &comparison, &err), STATUS_CORRUPT);
    assert_contains(err.message, "run 7");
    assert_contains(err.message, part);
}

static void test_compare__rows_beyond_the_plan_are_corrupt(void **state)
{
    (void)state;
    struct run_record record;
    fixture_make(&record, &fixture_full);
    struct layer_time time = record.layer_times[0];
    struct event event = record.events[0];
    const int32_t wrong[] = {-2, 10, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        record.layer_times[0].layer = wrong[i];
        assert_corrupt(&record, "layers 0 to 9");
        record.layer_times[0] = time;
        record.layer_times[0].rank = wrong[i] == -2 ? 2 : wrong[i];
        assert_corrupt(&record, "ranks 0 to 1");
        record.layer_times[0] = time;
        record.events[0].layer = wrong[i];
        assert_corrupt(&record, "event 0");
        record.events[0] = event;
        record.events[0].rank = wrong[i];
        assert_corrupt(&record, "event 0");
        record.events[0] = event;
    }
    record.events[0].phase = PHASE_COUNT;
    assert_corrupt(&record, "event 0");
    record.events[0] = event;
    record.events[0].stream = STREAM_COUNT;
    assert_corrupt(&record, "event 0");
    record.events[0] = event;
    record.events[0].end_ns = event.start_ns - 1;
    assert_corrupt(&record, "event 0");
    run_record_free(&record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare__totals),
        cmocka_unit_test(test_compare__warmup_is_left_out),
        cmocka_unit_test(test_compare__phases_are_means_over_ranks),
        cmocka_unit_test(test_compare__layers_sum_to_the_phases),
        cmocka_unit_test(test_compare__layer_totals_compare_like_with_like),
        cmocka_unit_test(test_compare__memory_terms_sum_to_the_peak),
        cmocka_unit_test(test_compare__other_layout_has_no_measured_terms),
        cmocka_unit_test(test_compare__kept_bytes_come_from_the_events),
        cmocka_unit_test(test_compare__matmul_share),
        cmocka_unit_test(test_compare__phases_are_of_the_critical_stage),
        cmocka_unit_test(test_compare__layers_are_means_over_their_stage),
        cmocka_unit_test(test_compare__energy_is_shared_by_all_stages),
        cmocka_unit_test(test_compare__layout_is_the_fullest_stage),
        cmocka_unit_test(test_compare__matmul_share_counts_a_replica_once),
        cmocka_unit_test(test_compare__waiting_longer_than_the_event_is_corrupt),
        cmocka_unit_test(test_compare__nothing_recorded_is_absent),
        cmocka_unit_test(test_compare__absent_energy_is_not_zero),
        cmocka_unit_test(test_compare__zero_and_nan_measurements_have_no_error),
        cmocka_unit_test(test_compare__rows_beyond_the_plan_are_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
