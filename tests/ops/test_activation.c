#include "expect.h"

#include "executor/ops/activation.h"
#include "executor/ops/convert.h"
#include "executor/ops/update.h"
#include <stdlib.h>

enum { TOKENS = 3, FFN = CONVERT_CHUNK + 11 };

static double gelu(double x)
{
    return 0.5 * x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

static double swiglu(double gate, double up)
{
    return gate / (1.0 + exp(-gate)) * up;
}

static double slope(double (*f)(double), double x)
{
    const double h = 1e-4;
    return (8.0 * (f(x + h) - f(x - h)) - (f(x + 2.0 * h) - f(x - 2.0 * h))) / (12.0 * h);
}

static double silu(double x)
{
    return swiglu(x, 1.0);
}

struct arrays {
    struct device *device;
    float *pre, *act, *act_gradient, *pre_gradient, *expected;
};

static struct arrays arrays_open(size_t pre_width)
{
    struct arrays a;
    struct error err;
    size_t count = TOKENS * pre_width;
    expect_ok(device_open(&a.device, 2, &err), &err);
    a.pre = calloc(count, sizeof(float));
    a.act = calloc(TOKENS * FFN, sizeof(float));
    a.act_gradient = calloc(TOKENS * FFN, sizeof(float));
    a.pre_gradient = calloc(count, sizeof(float));
    a.expected = calloc(count, sizeof(float));
    assert_true(a.pre != NULL && a.act != NULL && a.act_gradient != NULL &&
                a.pre_gradient != NULL && a.expected != NULL);
    ops_fill_normal(a.device, a.pre, 0, count, 3.0, 1, 1);
    ops_fill_normal(a.device, a.act_gradient, 0, TOKENS * FFN, 1.0, 1, 2);
    return a;
}

static void arrays_close(struct arrays *a)
{
    free(a->pre);
    free(a->act);
    free(a->act_gradient);
    free(a->pre_gradient);
    free(a->expected);
    device_close(a->device);
}

static void test_activation__gelu_matches_libm(void **state)
{
    (void)state;
    struct arrays a = arrays_open(FFN);
    struct activation z = {.tokens = TOKENS, .ffn = FFN};
    a.pre[0] = -40.0f;
    a.pre[1] = 40.0f;
    a.pre[2] = 0.0f;
    for (size_t i = 0; i < TOKENS * FFN; i++)
        a.expected[i] = (float)gelu((double)a.pre[i]);
    activation_forward(a.device, &z, a.pre, a.act);
    expect_near("gelu", a.act, a.expected, TOKENS * FFN, 1e-6);
    for (size_t i = 0; i < TOKENS * FFN; i++)
        a.expected[i] = (float)(slope(gelu, (double)a.pre[i]) * (double)a.act_gradient[i]);
    activation_backward(a.device, &z, a.pre, a.act_gradient, a.pre_gradient);
    expect_near("its slope", a.pre_gradient, a.expected, TOKENS * FFN, 1e-6);
    activation_backward(a.device, &z, a.pre, a.act_gradient, a.act_gradient);
    assert_memory_equal(a.act_gradient, a.pre_gradient, TOKENS * FFN * sizeof(float));
    arrays_close(&a);
}

static void test_activation__swiglu_matches_libm(void **state)
{
    (void)state;
    struct arrays a = arrays_open(2 * FFN);
    struct activation z = {.tokens = TOKENS, .ffn = FFN, .is_gated = true};
    float *expected_act = calloc(TOKENS * FFN, sizeof(float));
    assert_non_null(expected_act);
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t i = 0; i < FFN; i++) {
            size_t gate_at = 2 * t * FFN + i, up_at = gate_at + FFN, at = t * FFN + i;
            double gate = (double)a.pre[gate_at], up = (double)a.pre[up_at];
            double d = (double)a.act_gradient[at];
            expected_act[at] = (float)swiglu(gate, up);
            a.expected[gate_at] = (float)(d * up * slope(silu, gate));
            a.expected[up_at] = (float)(d * silu(gate));
        }
    }
    activation_forward(a.device, &z, a.pre, a.act);
    expect_near("swiglu", a.act, expected_act, TOKENS * FFN, 1e-6);
    activation_backward(a.device, &z, a.pre, a.act_gradient, a.pre_gradient);
    expect_near("its slope", a.pre_gradient, a.expected, 2 * TOKENS * FFN, 1e-6);
    free(expected_act);
    arrays_close(&a);
}

/* 16 bit in and out must be the fp32 function of the rounded input, rounded. */
static void check_16(bool is_gated, enum precision precision)
{
    size_t width = is_gated ? 2 * FFN : FFN;
    struct arrays a = arrays_open(width);
    struct activation z = {.tokens = TOKENS, .ffn = FFN, .is_gated = is_gated};
    static uint16_t pre[2 * TOKENS * FFN], act[TOKENS * FFN], expected[2 * TOKENS * FFN];
    static uint16_t act_gradient[TOKENS * FFN], pre_gradient[2 * TOKENS * FFN];
    convert_narrow(a.pre, pre, TOKENS * width, precision);
    convert_widen(pre, a.pre, TOKENS * width, precision);
    convert_narrow(a.act_gradient, act_gradient, TOKENS * FFN, precision);
    convert_widen(act_gradient, a.act_gradient, TOKENS * FFN, precision);

    activation_forward(a.device, &z, a.pre, a.act);
    activation_backward(a.device, &z, a.pre, a.act_gradient, a.pre_gradient);
    z.precision = precision;
    activation_forward(a.device, &z, pre, act);
    activation_backward(a.device, &z, pre, act_gradient, pre_gradient);
    convert_narrow(a.act, expected, TOKENS * FFN, precision);
    assert_memory_equal(act, expected, TOKENS * FFN * sizeof(uint16_t));
    convert_narrow(a.pre_gradient, expected, TOKENS * width, precision);
    assert_memory_equal(pre_gradient, expected, TOKENS * width * sizeof(uint16_t));
    arrays_close(&a);
}

static void test_activation__16_bit_is_rounded_fp32(void **state)
{
    (void)state;
    check_16(false, PRECISION_BF16);
    check_16(true, PRECISION_BF16);
    check_16(false, PRECISION_FP16);
    check_16(true, PRECISION_FP16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activation__gelu_matches_libm),
        cmocka_unit_test(test_activation__swiglu_matches_libm),
        cmocka_unit_test(test_activation__16_bit_is_rounded_fp32),
    };
    return cmocka_run_group_tests_name("activation", tests, NULL, NULL);
}
