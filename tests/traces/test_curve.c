#include "fixture.h"
#include "traces/curve.h"
#include <stdlib.h>

static struct point value_point(const void *series, size_t index)
{
    return (struct point){(double)index, ((const double *)series)[index]};
}

static double *make_series(size_t count)
{
    double *values = calloc(count + 1, sizeof(*values));
    assert_non_null(values);
    uint64_t state = 11;
    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        values[i] = (double)(state >> 40) / 1e6 - 8;
    }
    return values;
}

static struct curve reduce(const double *values, size_t count)
{
    struct curve curve;
    struct error err;
    assert_ok(curve_reduce(&curve, value_point, values, count, &err), &err);
    return curve;
}

static void test_curve__short_series_stays_as_it_is(void **state)
{
    (void)state;
    const size_t counts[] = {0, 1, 2, CURVE_POINTS_MAX - 1, CURVE_POINTS_MAX};
    for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++) {
        double *values = make_series(counts[k]);
        struct curve curve = reduce(values, counts[k]);
        assert_int_equal(curve.count, counts[k]);
        assert_int_equal(curve.has_values, counts[k] > 0);
        for (size_t i = 0; i < counts[k]; i++)
            assert_near(curve.points[i].y, values[i], 0);
        curve_free(&curve);
        free(values);
    }
}

/* No extreme of the series is lost, and x never goes back. */
static void test_curve__long_series_keeps_its_extremes(void **state)
{
    (void)state;
    const size_t counts[] = {CURVE_POINTS_MAX + 1, 12345, 100000};
    for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++) {
        double *values = make_series(counts[k]);
        values[counts[k] / 3] = 1e6;
        values[counts[k] - 1] = -1e6;
        struct curve curve = reduce(values, counts[k]);
        assert_true(curve.count <= CURVE_POINTS_MAX);
        assert_near(curve.maximum, 1e6, 0);
        assert_near(curve.minimum, -1e6, 0);
        for (size_t i = 0; i < curve.count; i++) {
            assert_near(curve.points[i].y, values[(size_t)curve.points[i].x], 0);
            assert_true(i == 0 || curve.points[i].x >= curve.points[i - 1].x);
        }
        curve_free(&curve);
        free(values);
    }
}

static void test_curve__gaps_stay_gaps(void **state)
{
    (void)state;
    enum { COUNT = 50000 };
    double *values = make_series(COUNT);
    for (size_t i = 20000; i < 30000; i++)
        values[i] = i % 2 == 0 ? NAN : INFINITY;
    values[5] = NAN; /* alone between numbers: not a gap */
    struct curve curve = reduce(values, COUNT);
    size_t gaps = 0;
    for (size_t i = 0; i < curve.count; i++)
        gaps += isfinite(curve.points[i].y) ? 0 : 1;
    assert_int_equal(gaps, 2 * 10000 / 50);
    assert_true(isfinite(curve.minimum) && isfinite(curve.maximum));
    curve_free(&curve);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = NAN;
    curve = reduce(values, COUNT);
    assert_false(curve.has_values);
    curve_free(&curve);
    free(values);
}

static void test_curve__smoothing_equals_brute_force(void **state)
{
    (void)state;
    const size_t counts[] = {1, 2, 7, 500, 5000};
    for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++) {
        size_t count = counts[k], window = count / 10;
        double *values = make_series(count);
        struct curve curve;
        struct error err;
        if (count > 100)
            values[50] = NAN;
        assert_ok(curve_smooth(&curve, value_point, values, count, window, &err), &err);
        assert_true(curve.count > 0 && curve.count <= CURVE_POINTS_MAX);
        for (size_t i = 0; i < curve.count; i++) {
            size_t at = (size_t)curve.points[i].x, half = window / 2, finite = 0;
            double sum = 0;
            for (size_t j = at > half ? at - half : 0; j <= at + half && j < count; j++) {
                sum += isfinite(values[j]) ? values[j] : 0;
                finite += isfinite(values[j]) ? 1 : 0;
            }
            assert_near(curve.points[i].y, sum / (double)finite, 1e-9);
        }
        curve_free(&curve);
        free(values);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_curve__short_series_stays_as_it_is),
        cmocka_unit_test(test_curve__long_series_keeps_its_extremes),
        cmocka_unit_test(test_curve__gaps_stay_gaps),
        cmocka_unit_test(test_curve__smoothing_equals_brute_force),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
