#include "expect.h"

#include "executor/ops/update.h"
#include "executor/ops/vector.h"
#include <stdlib.h>
#include <string.h>

enum { COUNT = 5003 }; /* no multiple of a vector or of a thread's part */

static struct device *open_device(int threads)
{
    struct device *device;
    struct error err;
    expect_ok(device_open(&device, threads, &err), &err);
    return device;
}

static void reference_step(const struct adamw_call *call, double *p, double *m, double *v)
{
    for (size_t i = 0; i < call->count; i++) {
        double g =
            (double)load_element(call->gradients, i, call->gradient_precision) * call->grad_scale;
        m[i] = call->beta1 * m[i] + (1.0 - call->beta1) * g;
        v[i] = call->beta2 * v[i] + (1.0 - call->beta2) * g * g;
        double first = m[i] / (1.0 - pow(call->beta1, (double)call->time));
        double second = v[i] / (1.0 - pow(call->beta2, (double)call->time));
        p[i] -= call->learning_rate *
                (first / (sqrt(second) + call->epsilon) + call->weight_decay * p[i]);
    }
}

/* `rounded_to` fp32: without a copy. */
static void check_adamw(enum precision gradients, enum precision rounded_to)
{
    static float p[COUNT + 1], m[COUNT + 1], v[COUNT + 1], g[COUNT];
    static double p_true[COUNT], m_true[COUNT], v_true[COUNT];
    static float expected[COUNT];
    static uint16_t rounded[COUNT + 1], g_16[COUNT];
    struct device *device = open_device(2);
    memset(m, 0, sizeof(m));
    memset(v, 0, sizeof(v));
    ops_fill_normal(device, p, 0, COUNT, 0.5, 1, 0);
    for (size_t i = 0; i < COUNT; i++) {
        p_true[i] = (double)p[i];
        m_true[i] = v_true[i] = 0;
    }
    p[COUNT] = m[COUNT] = v[COUNT] = 77.0f;
    rounded[COUNT] = 77;
    struct adamw_call call = {.parameters = p,
                              .first_moment = m,
                              .second_moment = v,
                              .gradients = gradients == PRECISION_BF16 ? (void *)g_16 : g,
                              .gradient_precision = gradients,
                              .parameters_16 = rounded_to == PRECISION_FP32 ? NULL : rounded,
                              .precision_16 = rounded_to,
                              .count = COUNT,
                              .learning_rate = 1e-2,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .epsilon = 1e-8,
                              .weight_decay = 0.1,
                              .grad_scale = 0.25};
    for (call.time = 1; call.time <= 20; call.time++) {
        ops_fill_normal(device, g, 0, COUNT, 1.0, 2, (uint64_t)call.time);
        g[3] = 0.0f;
        ops_cast_16(device, g, g_16, COUNT, PRECISION_BF16);
        reference_step(&call, p_true, m_true, v_true);
        ops_adamw(device, &call);
    }
    for (size_t i = 0; i < COUNT; i++) {
        expected[i] = (float)p_true[i];
        if (rounded_to != PRECISION_FP32)
            assert_int_equal(rounded[i], float_to_16(p[i], rounded_to));
    }
    expect_near("parameters", p, expected, COUNT, 1e-6);
    assert_true(p[COUNT] == 77.0f && m[COUNT] == 77.0f && v[COUNT] == 77.0f &&
                rounded[COUNT] == 77);
    device_close(device);
}

static void test_update__adamw_matches_its_equations(void **state)
{
    (void)state;
    check_adamw(PRECISION_FP32, PRECISION_FP32);
    check_adamw(PRECISION_FP32, PRECISION_BF16);
    check_adamw(PRECISION_FP32, PRECISION_FP16);
    check_adamw(PRECISION_BF16, PRECISION_FP32);
    check_adamw(PRECISION_BF16, PRECISION_BF16);
}

/* With and without a 16-bit copy the values are the same, in one piece or in two. */
static void test_update__adamw_does_not_depend_on_its_cut(void **state)
{
    (void)state;
    static float whole[3][COUNT], cut[3][COUNT], g[COUNT];
    static uint16_t rounded[COUNT];
    struct device *device = open_device(2), *single = open_device(1);
    ops_fill_normal(single, whole[0], 0, COUNT, 0.5, 1, 0);
    memcpy(cut, whole, sizeof(cut));
    ops_fill_normal(single, g, 0, COUNT, 1.0, 2, 0);
    struct adamw_call call = {.parameters = whole[0],
                              .first_moment = whole[1],
                              .second_moment = whole[2],
                              .gradients = g,
                              .count = COUNT,
                              .learning_rate = 1e-2,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .epsilon = 1e-8,
                              .time = 1,
                              .grad_scale = 1.0};
    ops_adamw(device, &call);
    const size_t parts[][2] = {{0, 1}, {1, 1700}, {1700, COUNT}};
    for (size_t i = 0; i < 3; i++) {
        size_t at = parts[i][0];
        call.parameters = cut[0] + at;
        call.first_moment = cut[1] + at;
        call.second_moment = cut[2] + at;
        call.gradients = g + at;
        call.parameters_16 = rounded + at;
        call.precision_16 = PRECISION_BF16;
        call.count = parts[i][1] - at;
        ops_adamw(single, &call);
    }
    expect_near("parameters", cut[0], whole[0], COUNT, 1e-7);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(rounded[i], bf16_from_float(cut[0][i]));
    device_close(single);
    device_close(device);
}

static void test_update__sum_of_squares(void **state)
{
    (void)state;
    static float data[300001];
    const size_t count = 300001;
    struct device *device = open_device(2), *single = open_device(1);
    ops_fill_normal(device, data, 0, count, 1e3, 3, 0);
    double expected = 0.0;
    for (size_t i = 0; i < count; i++)
        expected += (double)data[i] * (double)data[i];
    double sum = ops_sum_squares(device, data, PRECISION_FP32, count),
           again = ops_sum_squares(device, data, PRECISION_FP32, count);
    assert_true(fabs(sum - expected) <= 1e-12 * expected);
    assert_memory_equal(&sum, &again, sizeof(sum));
    assert_true(ops_sum_squares(single, data, PRECISION_FP32, 0) == 0.0);
    assert_true(ops_sum_squares(single, data, PRECISION_FP32, 1) ==
                (double)data[0] * (double)data[0]);

    static uint16_t rounded[300001];
    ops_cast_16(device, data, rounded, count, PRECISION_BF16);
    expected = 0.0;
    for (size_t i = 0; i < count; i++)
        expected += (double)float_from_bf16(rounded[i]) * (double)float_from_bf16(rounded[i]);
    sum = ops_sum_squares(device, rounded, PRECISION_BF16, count);
    assert_true(fabs(sum - expected) <= 1e-12 * expected);
    rounded[count - 1] = 0x7f80; /* infinite */
    assert_false((bool)isfinite(ops_sum_squares(device, rounded, PRECISION_BF16, count)));

    data[count - 1] = 3e38f; /* its square is no float */
    assert_true((bool)isfinite(ops_sum_squares(device, data, PRECISION_FP32, count)));
    data[count - 1] = INFINITY;
    assert_false((bool)isfinite(ops_sum_squares(device, data, PRECISION_FP32, count)));
    data[count - 1] = NAN;
    assert_false((bool)isfinite(ops_sum_squares(device, data, PRECISION_FP32, count)));
    device_close(single);
    device_close(device);
}

static void test_update__fill_is_the_same_for_all_thread_counts(void **state)
{
    (void)state;
    static float a[COUNT], b[COUNT];
    struct device *single = open_device(1), *device = open_device(3);
    ops_fill_normal(single, a, 0, COUNT, 0.02, 9, 4);
    ops_fill_normal(device, b, 0, COUNT, 0.02, 9, 4);
    assert_memory_equal(a, b, sizeof(a));
    ops_fill_normal(device, b, 0, COUNT, 0.02, 9, 5);
    assert_memory_not_equal(a, b, sizeof(a));
    double mean = 0.0, squares = ops_sum_squares(device, a, PRECISION_FP32, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        mean += (double)a[i] / COUNT;
    assert_true(fabs(mean) < 4.0 * 0.02 / sqrt(COUNT));
    assert_true(fabs(sqrt(squares / COUNT) / 0.02 - 1.0) < 4.0 / sqrt(2.0 * COUNT));
    ops_fill_normal(device, b, 0, 100, 0.02, 9, 4);
    ops_fill_normal(device, b + 100, 100, COUNT - 100, 0.02, 9, 4);
    assert_memory_equal(a, b, sizeof(a)); /* in pieces, too */
    ops_fill(device, a, COUNT, 2.5f);
    for (size_t i = 0; i < COUNT; i++)
        assert_true(a[i] == 2.5f);
    device_close(device);
    device_close(single);
}

static void test_update__accumulate_adds_or_overwrites(void **state)
{
    (void)state;
    static float from[COUNT], to[COUNT + 1];
    struct device *device = open_device(2);
    ops_fill_normal(device, from, 0, COUNT, 1.0, 1, 0);
    for (size_t i = 0; i <= COUNT; i++)
        to[i] = NAN;
    to[COUNT] = 77.0f;
    ops_accumulate(device, from, to, PRECISION_FP32, COUNT, false);
    assert_memory_equal(from, to, sizeof(from));
    ops_accumulate(device, from, to, PRECISION_FP32, COUNT, true);
    for (size_t i = 0; i < COUNT; i++)
        assert_true(to[i] == 2.0f * from[i]);
    assert_true(to[COUNT] == 77.0f);

    static float other[COUNT];
    static uint16_t from_16[COUNT], to_16[COUNT + 1];
    ops_fill_normal(device, other, 0, COUNT, 1.0, 2, 0);
    ops_cast_16(device, from, from_16, COUNT, PRECISION_BF16);
    to_16[COUNT] = 77;
    ops_accumulate(device, from_16, to_16, PRECISION_BF16, COUNT, false);
    assert_memory_equal(from_16, to_16, sizeof(from_16));
    ops_cast_16(device, other, to_16, COUNT, PRECISION_BF16);
    for (size_t i = 0; i < COUNT; i++)
        other[i] = float_from_bf16(to_16[i]) + float_from_bf16(from_16[i]);
    ops_accumulate(device, from_16, to_16, PRECISION_BF16, COUNT, true);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(to_16[i], bf16_from_float(other[i]));
    assert_int_equal(to_16[COUNT], 77);
    device_close(device);
}

static void test_update__casts_to_either_16_bit(void **state)
{
    (void)state;
    static float from[COUNT];
    static uint16_t to[COUNT + 1];
    struct device *device = open_device(2);
    ops_fill_normal(device, from, 0, COUNT, 1e4, 1, 0); /* some are beyond fp16 */
    to[COUNT] = 77;
    ops_cast_16(device, from, to, COUNT, PRECISION_FP16);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(to[i], fp16_from_float(from[i]));
    ops_cast_16(device, from, to, COUNT, PRECISION_BF16);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(to[i], bf16_from_float(from[i]));
    assert_int_equal(to[COUNT], 77);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_update__adamw_matches_its_equations),
        cmocka_unit_test(test_update__adamw_does_not_depend_on_its_cut),
        cmocka_unit_test(test_update__sum_of_squares),
        cmocka_unit_test(test_update__accumulate_adds_or_overwrites),
        cmocka_unit_test(test_update__casts_to_either_16_bit),
        cmocka_unit_test(test_update__fill_is_the_same_for_all_thread_counts),
    };
    return cmocka_run_group_tests_name("update", tests, NULL, NULL);
}
