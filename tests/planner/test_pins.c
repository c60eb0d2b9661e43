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
                                "precision=fp16,pp=4,v=2,schedule=interleaved,tp=8,sp=on,zero=3",
                                &err),
                     STATUS_OK);
    assert_int_equal(pins.micro_batch, 4);
    assert_int_equal(pins.micro_batches, 3);
    assert_int_equal(pins.data_parallel, 2);
    assert_int_equal(pins.threads, 1);
    assert_int_equal(pins.pipeline, 4);
    assert_int_equal(pins.virtual_stages, 2);
    assert_true(pins.schedule_fixed);
    assert_int_equal(pins.schedule, SCHEDULE_INTERLEAVED);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        assert_true(pins.recompute_fixed[kind]);
        assert_int_equal(pins.recompute[kind], RECOMPUTE_FULL);
        assert_true(pins.precision_fixed[kind]);
        assert_int_equal(pins.precision[kind], PRECISION_FP16);
        assert_int_equal(pins.tensor_parallel[kind], 8);
        assert_true(pins.sequence_parallel_fixed[kind]);
        assert_true(pins.sequence_parallel[kind]);
        assert_true(pins.zero_fixed[kind]);
        assert_int_equal(pins.zero_stage[kind], 3);
    }
}

static void test_pins__switches_of_described_clusters(void **state)
{
    (void)state;
    struct pins pins;
    struct error err;
    assert_int_equal(pins_parse(&pins, "fused-attention=off,overlap=on", &err), STATUS_OK);
    assert_true(pins.fused_attention_fixed && !pins.fused_attention);
    assert_true(pins.overlap_fixed && pins.overlap);
    assert_int_equal(pins_check_measured(&pins, &err), STATUS_USAGE);
    assert_non_null(strstr(err.message, "fused-attention"));
    assert_int_equal(pins_parse(&pins, "overlap=off", &err), STATUS_OK);
    assert_true(!pins.fused_attention_fixed && pins.overlap_fixed && !pins.overlap);
    assert_int_equal(pins_check_measured(&pins, &err), STATUS_USAGE);
    assert_non_null(strstr(err.message, "overlap"));
    assert_int_equal(pins_parse(&pins, "dp=2", &err), STATUS_OK);
    assert_false(pins.fused_attention_fixed || pins.overlap_fixed);
    assert_int_equal(pins_check_measured(&pins, &err), STATUS_OK);
}

static void test_pins__gradients_are_fp32_unless_pinned(void **state)
{
    (void)state;
    struct pins pins;
    struct error err;
    assert_int_equal(pins_parse(&pins, "dp=2", &err), STATUS_OK);
    assert_int_equal(pins.gradients, GRADIENTS_FP32);
    assert_int_equal(pins_parse(&pins, "dp=2,gradients=bf16", &err), STATUS_OK);
    assert_int_equal(pins.gradients, GRADIENTS_BF16);
    assert_int_equal(pins_check_measured(&pins, &err), STATUS_OK);
    static const char *const with_bf16[] = {
        "gradients=bf16,precision=bf16",
        "gradients=bf16,precision=fp32,precision:head=bf16",
        "gradients=bf16,precision=fp32,precision:mlp:0=bf16",
        "gradients=bf16,precision:mlp=fp32",
        "gradients=fp32,precision=fp32",
    };
    for (size_t i = 0; i < sizeof(with_bf16) / sizeof(with_bf16[0]); i++)
        assert_int_equal(pins_parse(&pins, with_bf16[i], &err), STATUS_OK);
    assert_int_equal(pins_parse(&pins, "gradients=fp16", &err), STATUS_USAGE);
    assert_non_null(strstr(err.message, "neither fp32 nor bf16"));
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

static void test_pins__what_is_not_named_is_free(void **state)
{
    (void)state;
    struct pins pins;
    struct error err;
    assert_int_equal(pins_parse(&pins, "zero:mlp=0,sp:attention=off,tp:head=2", &err), STATUS_OK);
    assert_int_equal(pins.pipeline, 0);
    assert_int_equal(pins.virtual_stages, 0);
    assert_false(pins.schedule_fixed);
    assert_int_equal(pins.data_parallel, 0);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        assert_int_equal(pins.zero_fixed[kind], kind == LAYER_MLP);
        assert_int_equal(pins.zero_stage[kind], 0);
        assert_int_equal(pins.sequence_parallel_fixed[kind], kind == LAYER_ATTENTION);
        assert_false(pins.sequence_parallel[kind]);
        assert_int_equal(pins.tensor_parallel[kind], kind == LAYER_HEAD ? 2 : 0);
        assert_false(pins.recompute_fixed[kind]);
        assert_false(pins.precision_fixed[kind]);
    }
}

static void test_pins__splits_by_kind_stand_before_all_kinds(void **state)
{
    (void)state;
    struct pins pins;
    struct error err;
    assert_int_equal(pins_parse(&pins, "tp:mlp=4,zero:mlp=2,sp:mlp=off,sp=on,zero=1,tp=2", &err),
                     STATUS_OK);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        bool is_mlp = kind == LAYER_MLP;
        assert_int_equal(pins.tensor_parallel[kind], is_mlp ? 4 : 2);
        assert_int_equal(pins.zero_stage[kind], is_mlp ? 2 : 1);
        assert_int_equal(pins.sequence_parallel[kind], !is_mlp);
    }
}

static void test_pins__what_excludes_each_other_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"v=2,schedule=1f1b", "needs schedule=interleaved"},
        {"v=2,schedule=gpipe", "needs schedule=interleaved"},
        {"v=1,schedule=interleaved", "needs v=2 or more"},
        {"pp=1,v=2", "needs pp=2 or more"},
        {"gradients=bf16,precision=fp32", "gradients=bf16 is for layers in bf16"},
        {"precision=fp16,gradients=bf16", "gradients=bf16 is for layers in bf16"},
        {"pp=1,schedule=gpipe", "needs pp=2 or more"},
        {"pp=1,schedule=interleaved", "needs pp=2 or more"},
    };
    static const char *const right[] = {
        "pp=1,v=1,schedule=1f1b",   "pp=2,v=1,schedule=gpipe", "v=2",
        "v=3,schedule=interleaved", "schedule=interleaved",    "pp=2,schedule=1f1b",
    };
    struct pins pins;
    struct error err;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(pins_parse(&pins, cases[i].text, &err), STATUS_USAGE);
        assert_non_null(strstr(err.message, cases[i].part));
    }
    for (size_t i = 0; i < sizeof(right) / sizeof(*right); i++)
        assert_int_equal(pins_parse(&pins, right[i], &err), STATUS_OK);
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
        "pp=0",
        "pp=2,pp=2",
        "v=-1",
        "dp:mlp=2",
        "schedule:mlp=1f1b",
        "schedule=dualpipe",
        "schedule=1f1b,schedule=1f1b",
        "tp=0",
        "tp:mlp=x",
        "tp=100000",
        "sp=yes",
        "overlap=1",
        "overlap=on,overlap=on",
        "overlap:mlp=on",
        "gradients:mlp=bf16",
        "gradients=bf16,gradients=bf16",
        "fused-attention=",
        "fused-attention:0-3=on",
        "sp=1",
        "zero=4",
        "zero=-1",
        "zero=",
        "zero:mlp=one",
        "recompute:head=full",
        "precision:embedding=fp16",
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
        cmocka_unit_test(test_pins__switches_of_described_clusters),
        cmocka_unit_test(test_pins__gradients_are_fp32_unless_pinned),
        cmocka_unit_test(test_pins__a_kind_stands_before_all_kinds_in_any_order),
        cmocka_unit_test(test_pins__what_is_not_named_is_free),
        cmocka_unit_test(test_pins__splits_by_kind_stand_before_all_kinds),
        cmocka_unit_test(test_pins__what_excludes_each_other_is_refused),
        cmocka_unit_test(test_pins__refuses_what_it_does_not_know),
        cmocka_unit_test(test_pins__refuses_more_than_a_plan_keeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
