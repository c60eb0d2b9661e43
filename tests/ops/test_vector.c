#include "expect.h"

#include "executor/ops/vector.h"

/* Distance from the true value in units of the last place of a float near it. */
static double ulps(float value, double truth)
{
    int exponent;
    frexp(truth, &exponent);
    return fabs((double)value - truth) / ldexp(1.0, exponent - 24);
}

static void test_vector__exp_is_within_two_ulps(void **state)
{
    (void)state;
    double worst = 0.0;
    for (int i = 0; i <= 2000000; i++) {
        float x = (float)(-87.3 + (88.3 + 87.3) * i / 2000000.0);
        double error = ulps(exp_vector(x), exp((double)x));
        worst = error > worst ? error : worst;
    }
    for (int i = -1000; i <= 1000; i++) {
        float x = (float)i * 1e-6f;
        double error = ulps(exp_vector(x), exp((double)x));
        worst = error > worst ? error : worst;
    }
    if (worst > 2.0)
        fail_msg("e^x is up to %.2f ulp off", worst);
    assert_true(exp_vector(0.0f) == 1.0f);
    assert_true(exp_vector(-0.0f) == 1.0f);
}

static void test_vector__exp_saturates(void **state)
{
    (void)state;
    assert_true(exp_vector(-1e30f) == exp_vector(-87.3f));
    assert_true(exp_vector(-INFINITY) == exp_vector(-87.3f));
    assert_true(exp_vector(-87.3f) > 1.17e-38f);
    assert_true(exp_vector(INFINITY) == exp_vector(88.3f));
    assert_true(exp_vector(1e30f) < 3.4e38f);
    assert_true((bool)isnan(exp_vector(NAN)));
}

static void test_vector__sigmoid_is_near_libm(void **state)
{
    (void)state;
    for (int i = -125999; i <= 125999; i++) {
        float x = (float)i * 1e-3f;
        double error = ulps(sigmoid2_vector(x), 1.0 / (1.0 + exp2((double)x)));
        if (error > 4.0)
            fail_msg("1 / (1 + 2^%g) is %.2f ulp off", (double)x, error);
    }
    for (int i = -1000; i <= 1000; i++)
        assert_true(ulps(sigmoid2_vector((float)i * 1e-6f), 1.0 / (1.0 + exp2(i * 1e-6))) <= 4.0);
    assert_true(sigmoid2_vector(0.0f) == 0.5f);
    assert_true(sigmoid2_vector(-0.0f) == 0.5f);
}

static void test_vector__sigmoid_saturates(void **state)
{
    (void)state;
    assert_true(sigmoid2_vector(-1e9f) == 1.0f);
    assert_true(sigmoid2_vector(-INFINITY) == 1.0f);
    assert_true(sigmoid2_vector(1e9f) == 0x1p-126f);
    assert_true(sigmoid2_vector(INFINITY) == 0x1p-126f);
    float of_nan = sigmoid2_vector(NAN);
    assert_true(of_nan >= 0.0f && of_nan <= 1.0f);
}

static void test_vector__lanes_add_up_all_elements(void **state)
{
    (void)state;
    float values[LANES + 1];
    uint16_t halves[LANES + 1];
    for (size_t i = 0; i <= LANES; i++) {
        values[i] = (float)(1 << i);
        halves[i] = bf16_from_float(values[i]);
    }
    float_lanes wide, narrow;
    lanes_load(&wide, values, 1, PRECISION_FP32);
    lanes_load(&narrow, halves, 1, PRECISION_BF16);
    assert_true(lanes_sum(&wide) == 131070.0f); /* 2 + 4 + .. + 65536 */
    assert_true(lanes_sum(&narrow) == 131070.0f);
}

static void test_vector__bf16_keeps_what_it_can_hold(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float value = float_from_bf16((uint16_t)bits);
        if (isnan(value))
            assert_true((bool)isnan(float_from_bf16(bf16_from_float(value))));
        else
            assert_int_equal(bf16_from_float(value), bits);
    }
}

static void test_vector__bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(bf16_from_float(float_from_bits(0x3f808000)), 0x3f80); /* tie: down to even */
    assert_int_equal(bf16_from_float(float_from_bits(0x3f818000)), 0x3f82); /* tie: up to even */
    assert_int_equal(bf16_from_float(float_from_bits(0x3f808001)), 0x3f81);
    assert_int_equal(bf16_from_float(float_from_bits(0x3f817fff)), 0x3f81);
    assert_int_equal(bf16_from_float(float_from_bits(0xbf818000)), 0xbf82);
    assert_int_equal(bf16_from_float(3.4e38f), 0x7f80); /* past the largest: infinity */
    assert_int_equal(bf16_from_float(INFINITY), 0x7f80);
    assert_true((bool)isnan(float_from_bf16(bf16_from_float(float_from_bits(0x7f800001)))));
    assert_true((bool)isnan(float_from_bf16(bf16_from_float(float_from_bits(0xffffffff)))));
}

/* The definition: sign, exponent with bias 15, ten bits of fraction. */
static double fp16_value(uint32_t bits)
{
    int exponent = (int)(bits >> 10 & 31);
    double fraction = (double)(bits & 1023) / 1024.0;
    double size = exponent > 0 ? ldexp(1.0 + fraction, exponent - 15) : ldexp(fraction, -14);
    return bits & 0x8000 ? -size : size;
}

static void test_vector__fp16_keeps_what_it_can_hold(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = float_from_fp16((uint16_t)bits);
        if ((bits & 0x7fff) > 0x7c00) {
            assert_true((bool)isnan(value));
            assert_true((bool)isnan(float_from_fp16(fp16_from_float(value))));
            continue;
        }
        if ((bits & 0x7fff) == 0x7c00)
            assert_true(value == (bits & 0x8000 ? -INFINITY : INFINITY));
        else
            assert_true((double)value == fp16_value(bits));
        assert_int_equal(fp16_from_float(value), bits);
    }
}

/* Halfway between neighbours, and one float to either side of that, subnormals included. */
static void test_vector__fp16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x7bff; bits++) {
        float half = (float)((fp16_value(bits) + fp16_value(bits + 1)) / 2.0);
        assert_int_equal(fp16_from_float(half), bits + (bits & 1));
        assert_int_equal(fp16_from_float(nextafterf(half, 0.0f)), bits);
        assert_int_equal(fp16_from_float(nextafterf(half, 1e5f)), bits + 1);
        assert_int_equal(fp16_from_float(-half), 0x8000 | (bits + (bits & 1)));
    }
    assert_int_equal(fp16_from_float(65519.996f), 0x7bff);
    assert_int_equal(fp16_from_float(65520.0f), 0x7c00);
    assert_int_equal(fp16_from_float(-3.4e38f), 0xfc00);
    assert_int_equal(fp16_from_float(INFINITY), 0x7c00);
    assert_int_equal(fp16_from_float(0x1p-149f), 0);
    assert_true((bool)isnan(float_from_fp16(fp16_from_float(float_from_bits(0x7f800001)))));
    assert_true((bool)isnan(float_from_fp16(fp16_from_float(float_from_bits(0xffffffff)))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector__exp_is_within_two_ulps),
        cmocka_unit_test(test_vector__exp_saturates),
        cmocka_unit_test(test_vector__sigmoid_is_near_libm),
        cmocka_unit_test(test_vector__sigmoid_saturates),
        cmocka_unit_test(test_vector__lanes_add_up_all_elements),
        cmocka_unit_test(test_vector__bf16_keeps_what_it_can_hold),
        cmocka_unit_test(test_vector__bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_vector__fp16_keeps_what_it_can_hold),
        cmocka_unit_test(test_vector__fp16_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests_name("vector", tests, NULL, NULL);
}
