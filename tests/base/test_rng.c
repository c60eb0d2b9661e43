#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include <math.h>
#include <stdlib.h>

enum { DRAWS = 200000 };

/* A change of these values changes every training run: it must be meant. */
static void test_rng__values_are_pinned(void **state)
{
    (void)state;
    assert_int_equal(rng_u64(0, 0, 0), UINT64_C(0x238275bc38fcbe91));
    assert_int_equal(rng_u64(1, 2, 3), UINT64_C(0x8568f7c4e53b5a35));
    assert_int_equal(rng_u64(UINT64_MAX, UINT64_MAX, UINT64_MAX), UINT64_C(0x179f01f0d2fba97a));
}

static int compare_u64(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void test_rng__small_seeds_streams_and_indices_never_collide(void **state)
{
    (void)state;
    static uint64_t values[40 * 40 * 40];
    size_t count = 0;
    for (uint64_t seed = 0; seed < 40; seed++)
        for (uint64_t stream = 0; stream < 40; stream++)
            for (uint64_t index = 0; index < 40; index++)
                values[count++] = rng_u64(seed, stream, index);
    qsort(values, count, sizeof(values[0]), compare_u64);
    for (size_t i = 1; i < count; i++)
        assert_true(values[i - 1] != values[i]);
}

/* Each output bit is set half of the time, and flips half of the time when one input bit flips. */
static void test_rng__bits_are_balanced_and_avalanche(void **state)
{
    (void)state;
    enum { TRIALS = 4000 };
    for (unsigned input = 0; input < 64; input += 7) {
        int flips[64] = {0}, ones[64] = {0};
        for (uint64_t i = 0; i < TRIALS; i++) {
            uint64_t value = rng_u64(5, i, i * i);
            uint64_t other = rng_u64(5, i, (i * i) ^ (UINT64_C(1) << input));
            for (unsigned bit = 0; bit < 64; bit++) {
                ones[bit] += (int)(value >> bit & 1);
                flips[bit] += (int)((value ^ other) >> bit & 1);
            }
        }
        for (unsigned bit = 0; bit < 64; bit++) {
            assert_in_range(ones[bit], TRIALS / 2 - 160, TRIALS / 2 + 160); /* 5 deviations */
            assert_in_range(flips[bit], TRIALS / 2 - 160, TRIALS / 2 + 160);
        }
    }
}

static void test_rng__below_is_uniform(void **state)
{
    (void)state;
    int counts[10] = {0};
    for (uint64_t i = 0; i < DRAWS; i++) {
        uint64_t value = rng_below(7, 1, i, 10);
        assert_true(value < 10);
        counts[value]++;
    }
    double chi_squared = 0, expected = DRAWS / 10.0;
    for (int i = 0; i < 10; i++)
        chi_squared += (counts[i] - expected) * (counts[i] - expected) / expected;
    assert_true(chi_squared < 33.7); /* 9 degrees of freedom, p = 0.0001 */
}

/* Of 2^64 draws, this bound's values divisible by three would get twice as many as the others if
 * none were refused. */
static void test_rng__below_has_no_bias_for_large_bounds(void **state)
{
    (void)state;
    enum { TRIALS = 9000 };
    const uint64_t three_quarters = UINT64_C(3) << 62;
    int residues[3] = {0};
    for (uint64_t i = 0; i < TRIALS; i++) {
        uint64_t value = rng_below(1, 1, i, three_quarters);
        assert_true(value < three_quarters);
        residues[value % 3]++;
    }
    for (int i = 0; i < 3; i++)
        assert_in_range(residues[i], TRIALS / 3 - 225, TRIALS / 3 + 225); /* 5 deviations */
}

static void test_rng__below_takes_any_bound(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(rng_below(1, 1, i, 1), 0);
        assert_true(rng_below(1, 1, i, UINT64_MAX) < UINT64_MAX);
    }
}

static void test_rng__uniform_fills_the_unit_interval(void **state)
{
    (void)state;
    double sum = 0, lowest = 1, highest = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        double value = rng_uniform(11, 3, i);
        assert_true(value >= 0 && value < 1);
        sum += value;
        lowest = fmin(lowest, value);
        highest = fmax(highest, value);
    }
    assert_true(fabs(sum / DRAWS - 0.5) < 5 * sqrt(1 / 12.0 / DRAWS));
    assert_true(lowest < 1e-4 && highest > 1 - 1e-4);
}

/* Moments, and the share beyond one, two and three deviations. */
static void test_rng__normal_is_normal(void **state)
{
    (void)state;
    const double share_beyond[] = {0.317310508, 0.045500264, 0.002699796};
    double sums[4] = {0};
    int beyond[3] = {0};
    for (uint64_t i = 0; i < DRAWS; i++) {
        double value = rng_normal(13, 5, i), power = 1;
        assert_true(isfinite(value));
        for (int moment = 0; moment < 4; moment++)
            sums[moment] += power *= value;
        for (int k = 0; k < 3; k++)
            beyond[k] += fabs(value) > k + 1;
    }
    const double n = DRAWS;
    assert_true(fabs(sums[0] / n) < 5 * sqrt(1 / n));
    assert_true(fabs(sums[1] / n - 1) < 5 * sqrt(2 / n));
    assert_true(fabs(sums[2] / n) < 5 * sqrt(15 / n));
    assert_true(fabs(sums[3] / n - 3) < 5 * sqrt(96 / n));
    for (int k = 0; k < 3; k++)
        assert_true(fabs(beyond[k] / n - share_beyond[k]) < 5 * sqrt(share_beyond[k] / n));
}

static double unit(uint64_t bits)
{
    return (double)(bits >> 12) * 0x1p-52;
}

/* The finaliser of splitmix64 once more over an index's bits, for the angle. */
static uint64_t mixed_again(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The series against the C library's logarithm and cosine. */
static void test_rng__normal_is_box_and_muller(void **state)
{
    (void)state;
    const double two_pi = 6.283185307179586476925;
    double worst = 0, largest = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        uint64_t bits = rng_u64(17, 4, i);
        double radius = sqrt(-2.0 * log(1.0 - unit(bits)));
        double expected = radius * cos(two_pi * unit(mixed_again(bits)));
        double value = rng_normal(17, 4, i);
        worst = fmax(worst, fabs(value - expected) / fmax(radius, 1e-300));
        largest = fmax(largest, fabs(value));
    }
    assert_true(worst < 2e-15);
    assert_true(largest > 4);
}

/* In whatever pieces they are asked for, and by whichever clone of the loop. */
static void test_rng__many_normals_are_the_single_ones(void **state)
{
    (void)state;
    enum { COUNT = 1003 };
    float values[COUNT];
    for (uint64_t first = 0; first < 3; first++) {
        rng_normals(5, 6, first, COUNT, 0.02, values);
        for (uint64_t i = 0; i < COUNT; i++)
            assert_true(values[i] == (float)(0.02 * rng_normal(5, 6, first + i)));
    }
    rng_normals(5, 6, 0, 0, 1, values); /* nothing */
}

static void test_rng__neighbours_are_uncorrelated(void **state)
{
    (void)state;
    double by_index = 0, by_stream = 0, by_seed = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        double value = rng_normal(1, 1, i);
        by_index += value * rng_normal(1, 1, i + 1);
        by_stream += value * rng_normal(1, 2, i);
        by_seed += value * rng_normal(2, 1, i);
    }
    double limit = 5 * sqrt(1.0 / DRAWS);
    assert_true(fabs(by_index / DRAWS) < limit);
    assert_true(fabs(by_stream / DRAWS) < limit);
    assert_true(fabs(by_seed / DRAWS) < limit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rng__values_are_pinned),
        cmocka_unit_test(test_rng__small_seeds_streams_and_indices_never_collide),
        cmocka_unit_test(test_rng__bits_are_balanced_and_avalanche),
        cmocka_unit_test(test_rng__below_is_uniform),
        cmocka_unit_test(test_rng__below_has_no_bias_for_large_bounds),
        cmocka_unit_test(test_rng__below_takes_any_bound),
        cmocka_unit_test(test_rng__uniform_fills_the_unit_interval),
        cmocka_unit_test(test_rng__normal_is_normal),
        cmocka_unit_test(test_rng__normal_is_box_and_muller),
        cmocka_unit_test(test_rng__many_normals_are_the_single_ones),
        cmocka_unit_test(test_rng__neighbours_are_uncorrelated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
