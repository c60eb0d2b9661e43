/* What is kept of repeated timings, and when they suffice. */
#include "base/rng.h"
#include "profiler/samples.h"
#include "support.h"

static void add_all(struct samples *samples, const double *values, size_t count)
{
    struct error err;
    for (size_t i = 0; i < count; i++)
        assert_int_equal(samples_add(samples, values[i], &err), STATUS_OK);
}

static void test_samples__of_nothing_are_nothing(void **state)
{
    (void)state;
    struct samples samples = {0};
    struct summary summary = samples_summary(&samples);
    assert_int_equal(summary.n, 0);
    assert_int_equal(summary.dropped, 0);
    assert_near(summary.mean, 0, 0);
    assert_false(samples_settled(&samples, 1e9));
    samples_free(&samples);
}

static void test_samples__disturbed_ones_are_dropped_and_counted(void **state)
{
    (void)state;
    static const double values[] = {1.0, 1.2, 50.0, 0.9, 1.1, 3.5};
    struct samples samples = {0};
    add_all(&samples, values, sizeof(values) / sizeof(values[0]));
    struct summary summary = samples_summary(&samples);
    assert_int_equal(summary.n, 4);
    assert_int_equal(summary.dropped, 2);
    assert_near(summary.mean, 1.05, 1e-12);
    assert_near(summary.deviation, sqrt(0.05 / 3.0), 1e-12);
    samples_free(&samples);
}

static void test_samples__of_a_crowded_host_are_all_kept(void **state)
{
    (void)state;
    static const double values[] = {1.0, 1.2, 50.0, 0.9, 1.1, 3.5};
    struct samples samples = {.keeps_all = true};
    add_all(&samples, values, sizeof(values) / sizeof(values[0]));
    struct summary summary = samples_summary(&samples);
    assert_int_equal(summary.n, 6);
    assert_int_equal(summary.dropped, 0);
    assert_near(summary.mean, 57.7 / 6, 1e-12);
    samples_free(&samples);
}

static void test_samples__most_may_be_disturbed(void **state)
{
    (void)state;
    static const double values[] = {8.0, 8.1, 1.0, 8.0, 7.9, 1.02, 8.0, 8.0};
    struct samples samples = {0};
    add_all(&samples, values, sizeof(values) / sizeof(values[0]));
    struct summary summary = samples_summary(&samples);
    assert_int_equal(summary.n, 2);
    assert_near(summary.mean, 1.01, 1e-12);
    samples_free(&samples);
}

static void test_samples__what_varies_little_is_kept_whole(void **state)
{
    (void)state;
    struct error err;
    for (uint64_t round = 0; round < 200; round++) {
        struct samples samples = {0};
        uint64_t count = 1 + rng_below(1, round, 0, 60);
        double sum = 0, squares = 0;
        for (uint64_t i = 1; i <= count; i++) {
            double value = 1.0 + 0.99 * rng_uniform(1, round, i); /* less than twice the least */
            sum += value;
            squares += value * value;
            assert_int_equal(samples_add(&samples, value, &err), STATUS_OK);
        }
        struct summary summary = samples_summary(&samples);
        double n = (double)count, mean = sum / n;
        assert_int_equal(summary.n, count);
        assert_near(summary.mean, mean, 1e-9);
        double variance = count > 1 ? (squares - n * mean * mean) / (n - 1) : 0;
        assert_near(summary.deviation, sqrt(fmax(0, variance)), 1e-6);
        samples_free(&samples);
    }
}

static void test_samples__settle_after_three_that_agree(void **state)
{
    (void)state;
    struct error err;
    struct samples samples = {0};
    static const double values[] = {1.0, 1.0};
    add_all(&samples, values, 2);
    assert_false(samples_settled(&samples, 0.03)); /* too few */
    assert_int_equal(samples_add(&samples, 1.0, &err), STATUS_OK);
    assert_true(samples_settled(&samples, 0.03));
    assert_int_equal(samples_add(&samples, 2.0, &err), STATUS_OK);
    assert_false(samples_settled(&samples, 0.03)); /* they disagree */
    for (int i = 0; i < 1000; i++)
        assert_int_equal(samples_add(&samples, 1.0, &err), STATUS_OK);
    assert_true(samples_settled(&samples, 0.03));
    samples_clear(&samples);
    assert_int_equal(samples.count, 0);
    assert_false(samples_settled(&samples, 0.03));
    samples_free(&samples);
}

static void test_samples__dropped_ones_do_not_count_as_enough(void **state)
{
    (void)state;
    static const double values[] = {1.0, 1.0, 100.0, 100.0};
    struct samples samples = {0};
    add_all(&samples, values, 4);
    assert_false(samples_settled(&samples, 0.03));
    samples_free(&samples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples__of_nothing_are_nothing),
        cmocka_unit_test(test_samples__disturbed_ones_are_dropped_and_counted),
        cmocka_unit_test(test_samples__of_a_crowded_host_are_all_kept),
        cmocka_unit_test(test_samples__most_may_be_disturbed),
        cmocka_unit_test(test_samples__what_varies_little_is_kept_whole),
        cmocka_unit_test(test_samples__settle_after_three_that_agree),
        cmocka_unit_test(test_samples__dropped_ones_do_not_count_as_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
