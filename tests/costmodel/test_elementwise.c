/* How often a block's rows are read and written, against counts by hand of the models' code. */
#include "costmodel/elementwise.h"
#include "layouts.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* A GPT-2 of 64 x 16 in sequences of 32, two of them at once, on a device of 1 GB/s. */
static const struct model small = {
    .family = MODEL_GPT2,
    .blocks = 1,
    .hidden = 64,
    .heads = 4,
    .kv_heads = 4,
    .head_dim = 16,
    .ffn = 256,
    .vocab = 128,
    .positions = 32,
    .seq_length = 32,
};
enum { TOKENS = 2 * 32, PAIRS = 2 * 4 * 32 * 32 };

static struct node_group slow_memory(void)
{
    struct node_group group = {.nodes = 1, .node_devices = 1};
    group.device.memory_bytes_s = 1e9;
    group.device.peak_flops[ARITHMETIC_BF16] = group.device.peak_flops[ARITHMETIC_TF32] = 1e12;
    for (int i = 0; i < OPERATION_COUNT; i++)
        group.device.efficiency[i] =
            (struct efficiency_curve){.count = 1, .size = {1}, .share = {1}};
    return group;
}

static double traffic_of(enum elementwise elementwise, int pass)
{
    const struct node_group group = slow_memory();
    struct layout layout = one_device(2);
    layout.fused_attention = false;
    layout.elementwise = elementwise;
    layout.arithmetic = elementwise == ELEMENTWISE_FUSED ? ARITHMETIC_BF16 : ARITHMETIC_TF32;
    const struct layout_share share = layout_share(&group, &small, &layout);
    const struct block_kind kind = {.mode = {.arithmetic = layout.arithmetic}};
    struct pass_time passes[PASS_COUNT];
    block_passes(&share, &kind, passes);
    return passes[pass].traffic_s * 1e9 / share.element_bytes; /* elements */
}

static void test_elementwise__kernels_for_several_operations(void **state)
{
    (void)state;
    check_near(traffic_of(ELEMENTWISE_FUSED, PASS_FORWARD),
               TOKENS * (11 * 64 + 2 * 256 + 2 * 3 * 64.0) + 4.5 * PAIRS, "forward");
    check_near(traffic_of(ELEMENTWISE_FUSED, PASS_BACKWARD),
               TOKENS * (15 * 64 + 4 * 256 + 2 * 3 * 64.0) + 5.5 * PAIRS, "backward");
}

/* One kernel for each operation, so more of them than above. */
static void test_elementwise__kernels_for_one_operation(void **state)
{
    (void)state;
    check_near(traffic_of(ELEMENTWISE_HF_GPT2, PASS_FORWARD),
               TOKENS * (20.5 * 64 + 20 * 256 + 4 * 3 * 64.0) + 8.25 * PAIRS, "GPT-2 forward");
    check_near(traffic_of(ELEMENTWISE_HF_GPT2, PASS_BACKWARD),
               TOKENS * (24.5 * 64 + 29 * 256 + 3 * 3 * 64.0) + 11.25 * PAIRS, "GPT-2 backward");
    check_near(traffic_of(ELEMENTWISE_HF_BERT, PASS_FORWARD),
               TOKENS * (20.5 * 64 + 4 * 256 + 4 * 3 * 64.0) + 8.25 * PAIRS, "BERT forward");
    check_near(traffic_of(ELEMENTWISE_HF_BLOOM, PASS_BACKWARD),
               TOKENS * (20 * 64 + 45 * 256 + 3 * 3 * 64.0) + 7.25 * PAIRS, "BLOOM backward");
}

/* Bytes of a logit of 4 bytes; a model of masked words does not shift them. */
static void test_elementwise__loss(void **state)
{
    (void)state;
    const struct node_group group = slow_memory();
    struct layout layout = one_device(2);
    layout.arithmetic = ARITHMETIC_TF32;
    layout.fused_cross_entropy = false;
    layout.elementwise = ELEMENTWISE_HF_GPT2;
    struct layout_share share = layout_share(&group, &small, &layout);
    check_near(loss_bytes(&share, PASS_FORWARD), 24, "forward");
    check_near(loss_bytes(&share, PASS_BACKWARD), 32, "backward");
    layout.elementwise = ELEMENTWISE_HF_BERT;
    check_near(loss_bytes(&share, PASS_FORWARD), 16, "not shifted, forward");
    check_near(loss_bytes(&share, PASS_BACKWARD), 20, "not shifted, backward");
    layout.elementwise = ELEMENTWISE_FUSED;
    check_near(loss_bytes(&share, PASS_FORWARD), 28, "some fused, forward");
    layout.fused_cross_entropy = true;
    check_near(loss_bytes(&share, PASS_BACKWARD), 8, "all fused, backward");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elementwise__kernels_for_several_operations),
        cmocka_unit_test(test_elementwise__kernels_for_one_operation),
        cmocka_unit_test(test_elementwise__loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
