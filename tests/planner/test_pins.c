#include "planner/planner.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_pins__reads_every_key(void **state)
{
    (void)state;
    struct pins pins;
    struct error err;
    assert_int_equal(pins_parse(&pins,
                                "micro-batch=4,micro-batches=3,dp=2,threads=1,recompute=full,"
                                "precision=bf16",
                                &err),
                     STATUS_OK);
    assert_int_equal(pins.micro_batch, 4);
    assert_int_equal(pins.micro_batches, 3);
    assert_int_equal(pins.data_parallel, 2);
    assert_int_equal(pins.threads, 1);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        assert_true(pins.recompute_fixed[kind]);
        assert_int_equal(pins.recompute[kind], RECOMPUTE_FULL);
        assert_true(pins.precision_fixed[kind]);
        assert_int_equal(pins.precision[kind], PRECISION_BF16);
    }
}

static void test_pins__a_kind_stands_before_all_kinds_in_any_order(void **state)
{
    (void)state;
    const char *const texts[] = {"recompute=none,recompute:attention=selective",
                                 "recompute:attention=selective,recompute=none"};
    for (size_t i = 0; i < 2; i++) {
        struct pins pins;
        struct error err;
        assert_int_equal(pins_parse(&pins, texts[i], &err), STATUS_OK);
        assert_int_equal(pins.recompute[LAYER_ATTENTION], RECOMPUTE_SELECTIVE);
        assert_int_equal(pins.recompute[LAYER_MLP], RECOMPUTE_NONE);
        assert_true(pins.recompute_fixed[LAYER_MLP]);
        assert_false(pins.precision_fixed[LAYER_MLP]);
    }
}

static void test_pins__refuses_what_it_does_not_know(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        ",",
        "micro-batch",
        "micro-batch=",
        "=4",
        "micro-batch=0",
        "micro-batch=-1",
        "micro-batch=4x",
        "micro-batch=99999999999999999999",
        "micro-batch=4,",
        "micro-batch=4,micro-batch=2",
        "dp=1,dp=2",
        "dp=4294967297",
        "recompute=most",
        "recompute:=full",
        "recompute:convolution=full",
        "precision=fp8",
        "micro-batch:mlp=4",
        "stages=2",
        "recompute=full;precision=bf16",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=1",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        struct pins pins = {.threads = 99};
        struct error err;
        if (pins_parse(&pins, wrong[i], &err) != STATUS_USAGE)
            fail_msg("'%s' was accepted", wrong[i]);
        assert_int_equal(pins.threads, 99);
        assert_non_null(strstr(err.message, "micro-batch"));
    }
}

static void test_pins__refuses_more_than_a_plan_keeps(void **state)
{
    (void)state;
    char text[PLAN_PINS_BYTES + 32];
    struct pins pins;
    struct error err;
    size_t used = 0;
    while (used < PLAN_PINS_BYTES)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%srecompute=full",
                                 used > 0 ? "," : "");
    assert_int_equal(pins_parse(&pins, text, &err), STATUS_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pins__reads_every_key),
        cmocka_unit_test(test_pins__a_kind_stands_before_all_kinds_in_any_order),
        cmocka_unit_test(test_pins__refuses_what_it_does_not_know),
        cmocka_unit_test(test_pins__refuses_more_than_a_plan_keeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
