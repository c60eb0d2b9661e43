/* The loss scale of fp16, step by step. */
#include "support.h"

#include "executor/scaler.h"

static void test_scaler__stays_one_where_nothing_is_fp16(void **state)
{
    (void)state;
    struct scaler scaler = scaler_of(false);
    for (int i = 0; i < 2 * SCALER_GROWTH_STEPS; i++) {
        assert_false(scaler_update(&scaler, i % 3 != 0)); /* never the scale's fault */
        assert_true(scaler.scale == 1.0);
    }
}

static void test_scaler__halves_for_each_skipped_step(void **state)
{
    (void)state;
    struct scaler scaler = scaler_of(true);
    assert_true(scaler.scale == 65536.0);
    for (double expected = 32768; expected >= 1; expected /= 2) {
        assert_true(scaler_update(&scaler, false));
        assert_true(scaler.scale == expected);
    }
    /* At 1 there is nothing to halve: what is not finite now is not the scale's fault. */
    assert_false(scaler_update(&scaler, false));
    assert_true(scaler.scale == 1.0);
}

static void test_scaler__doubles_after_good_steps_in_a_row(void **state)
{
    (void)state;
    struct scaler scaler = scaler_of(true);
    for (int i = 0; i < SCALER_GROWTH_STEPS - 1; i++)
        assert_false(scaler_update(&scaler, true));
    assert_true(scaler.scale == 65536.0);
    assert_false(scaler_update(&scaler, true));
    assert_true(scaler.scale == 131072.0);
    assert_int_equal(scaler.good_steps, 0);
    /* A skipped one starts the row anew. */
    for (int i = 0; i < SCALER_GROWTH_STEPS - 1; i++)
        (void)scaler_update(&scaler, true);
    assert_true(scaler_update(&scaler, false));
    assert_true(scaler.scale == 65536.0);
    for (int i = 0; i < SCALER_GROWTH_STEPS - 1; i++)
        (void)scaler_update(&scaler, true);
    assert_true(scaler.scale == 65536.0);
}

static void test_scaler__grows_to_its_largest(void **state)
{
    (void)state;
    struct scaler scaler = scaler_of(true);
    for (int i = 0; i < 20 * SCALER_GROWTH_STEPS; i++)
        (void)scaler_update(&scaler, true);
    assert_true(scaler.scale == SCALER_LARGEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scaler__stays_one_where_nothing_is_fp16),
        cmocka_unit_test(test_scaler__halves_for_each_skipped_step),
        cmocka_unit_test(test_scaler__doubles_after_good_steps_in_a_row),
        cmocka_unit_test(test_scaler__grows_to_its_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
