#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/stats.h"
#include <math.h>
#include <stdlib.h>

enum { SAMPLES = 1000 };

static void assert_near(double found, double expected, double tolerance)
{
    if (!(fabs(found - expected) <= tolerance * fmax(1.0, fabs(expected))))
        fail_msg("found %.17g, expected %.17g", found, expected);
}

/* Two passes in extended precision. */
static void reference(const double *values, size_t count, double *mean, double *deviation)
{
    long double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    long double average = sum / (long double)count;
    for (size_t i = 0; i < count; i++)
        squares += (values[i] - average) * (values[i] - average);
    *mean = (double)average;
    *deviation = count < 2 ? 0 : (double)sqrtl(squares / (long double)(count - 1));
}

static void test_stats__agrees_with_two_passes(void **state)
{
    (void)state;
    double values[SAMPLES];
    struct stats stats = {0};
    for (size_t i = 0; i < SAMPLES; i++) {
        values[i] = 1e6 + rng_normal(1, 2, i); /* mean squared is 1e12 times the variance */
        stats_add(&stats, values[i]);
        double mean, deviation;
        reference(values, i + 1, &mean, &deviation);
        assert_near(stats.mean, mean, 1e-14);
        assert_near(stats_deviation(&stats), deviation, 1e-9);
    }
    assert_int_equal(stats.n, SAMPLES);
}

static void test_stats__merging_any_split_equals_adding(void **state)
{
    (void)state;
    for (size_t split = 0; split <= 20; split++) {
        struct stats whole = {0}, left = {0}, right = {0};
        for (size_t i = 0; i < 20; i++) {
            double value = rng_normal(3, split, i);
            stats_add(&whole, value);
            stats_add(i < split ? &left : &right, value);
        }
        stats_merge(&left, &right);
        assert_int_equal(left.n, whole.n);
        assert_near(left.mean, whole.mean, 1e-14);
        assert_near(left.m2, whole.m2, 1e-13);
        assert_true(left.minimum == whole.minimum);
        assert_true(left.maximum == whole.maximum);
    }
}

static void test_stats__negative_values_have_extremes(void **state)
{
    (void)state;
    struct stats stats = {0};
    stats_add(&stats, -3);
    stats_add(&stats, -5);
    assert_true(stats.minimum == -5);
    assert_true(stats.maximum == -3);
}

static void test_stats__relative_error(void **state)
{
    (void)state;
    struct stats stats = {0};
    assert_true(isinf(stats_relative_error(&stats)));
    stats_add(&stats, -9);
    assert_true(isinf(stats_relative_error(&stats)));
    assert_true(stats_deviation(&stats) == 0);
    stats_add(&stats, -11);
    assert_near(stats_relative_error(&stats), sqrt(2) / sqrt(2) / 10, 1e-14);
    struct stats same = {0};
    stats_add(&same, 0);
    stats_add(&same, 0);
    assert_true(stats_relative_error(&same) == 0);
    struct stats around_zero = {0};
    stats_add(&around_zero, -1);
    stats_add(&around_zero, 1);
    assert_true(isinf(stats_relative_error(&around_zero)));
}

static void test_stats__median(void **state)
{
    (void)state;
    double one[] = {4}, odd[] = {9, -1, 3}, even[] = {8, 2, 4, 1}, huge[] = {1.7e308, 1.6e308};
    double with_nan[] = {NAN, 2, NAN, 1, 3};
    assert_true(stats_median(one, 0) == 0);
    assert_true(stats_median(one, 1) == 4);
    assert_true(stats_median(odd, 3) == 3);
    assert_true(stats_median(even, 4) == 3);
    assert_true(even[0] == 1 && even[3] == 8);
    assert_true(isfinite(stats_median(huge, 2)));
    assert_true(stats_median(with_nan, 5) == 3);
}

/* The upper tail of the normal distribution by its definition: an integral, by Simpson's rule. */
static double tail(double z)
{
    enum { PANELS = 20000 };
    const double end = z + 40, root_two_pi = 2.50662827463100050242;
    double step = (end - z) / PANELS, sum = 0;
    for (int i = 0; i <= PANELS; i++) {
        double x = z + i * step, weight = i == 0 || i == PANELS ? 1 : i % 2 == 1 ? 4 : 2;
        sum += weight * exp(-0.5 * x * x);
    }
    return sum * step / 3 / root_two_pi;
}

static void test_stats__normal_deviations(void **state)
{
    (void)state;
    /* Tabulated quantiles. */
    assert_near(normal_deviations(0.05), 1.6448536269514722, 1e-13);
    assert_near(normal_deviations(0.01), 2.3263478740408408, 1e-13);
    assert_near(normal_deviations(0.001), 3.0902323061678132, 1e-13);
    assert_true(fabs(normal_deviations(0.5)) < 1e-15);
    const double risks[] = {0.4, 0.1586, 0.02, 1e-4, 1e-6, 1e-9, 1e-12};
    for (size_t i = 0; i < sizeof(risks) / sizeof(*risks); i++) {
        double z = normal_deviations(risks[i]);
        assert_near(tail(z), risks[i], 1e-9);
        assert_true(fabs(normal_deviations(1 - risks[i]) + z) < 1e-3);
        assert_true(i == 0 || z > normal_deviations(risks[i - 1]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stats__agrees_with_two_passes),
        cmocka_unit_test(test_stats__merging_any_split_equals_adding),
        cmocka_unit_test(test_stats__negative_values_have_extremes),
        cmocka_unit_test(test_stats__relative_error),
        cmocka_unit_test(test_stats__median),
        cmocka_unit_test(test_stats__normal_deviations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
