/* Remembered prices of layers against those that are computed from the whole layout. */
#include "costmodel/layer_prices.h"
#include "costmodel/stage_list.h"
#include "layouts.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static struct cluster some_cluster(void)
{
    struct cluster cluster;
    struct error err;
    if (cluster_load(&cluster, "h100x64", &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return cluster;
}

static struct model some_model(const char *name)
{
    const struct model_overrides none = {0};
    struct model model;
    struct error err;
    if (model_load(&model, name, &none, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return model;
}

/* 64 devices, different in everything that layers could see or not. */
static struct layout numbered_layout(int64_t number)
{
    struct layout layout = one_device(INT64_C(1) << number % 3);
    layout.framework = (enum framework)(number % FRAMEWORK_COUNT);
    layout.devices = 64;
    layout.pipeline = INT64_C(1) << number % 4;
    layout.tensor = INT64_C(1) << number % 2;
    layout.context = INT64_C(1) << number / 2 % 2;
    layout.data = 64 / (layout.pipeline * layout.tensor * layout.context);
    layout.global_batch = 512 + 512 * (number % 5 == 0);
    layout.zero_stage = layout.framework == FRAMEWORK_FSDP ? 3 : (int)(number / 3 % 2);
    layout.shard = layout.zero_stage > 0 ? layout.data * layout.context : 1;
    layout.sequence_parallel = layout.tensor > 1 && number % 7 < 3;
    layout.schedule = number % 5 < 2 ? SCHEDULE_ZB_H1 : SCHEDULE_1F1B;
    layout.arithmetic = number % 11 < 3 ? ARITHMETIC_FP8 : ARITHMETIC_BF16;
    layout.recompute = (enum recompute)(number / 2 % RECOMPUTE_COUNT);
    layout.fused_attention = number % 13 > 3;
    layout.fused_cross_entropy = number % 3 > 0;
    if (!layout.fused_attention)
        layout.elementwise = (enum elementwise)(number % (ELEMENTWISE_HF_BLOOM + 1));
    layout.gradients_16_bit = number % 5 > 3;
    layout.overlap_gradients = number % 2 > 0;
    layout.overlap_parameters = number % 3 > 1;
    layout.overlap_tensor = number % 4 > 1;
    layout.offload_activations = number % 6 == 5;
    layout.offload_optimizer = number % 9 == 8;
    return layout;
}

static void same_passes(const struct pass_time *a, const struct pass_time *b)
{
    for (int pass = 0; pass < PASS_COUNT; pass++) {
        assert_true(a[pass].product_s == b[pass].product_s);
        assert_true(a[pass].traffic_s == b[pass].traffic_s);
        assert_true(a[pass].host_s == b[pass].host_s);
        assert_true(a[pass].exchange_s == b[pass].exchange_s);
        assert_true(a[pass].weight_s == b[pass].weight_s);
    }
}

/* What the layers' functions say of the layout itself, fields that the view leaves out included. */
static void same_as_afresh(struct layer_prices *prices, const struct layout_share *share,
                           const struct block_kind *kind)
{
    struct pass_time pass[PASS_COUNT];
    struct block_prices spare;
    const struct block_prices *block = layer_prices_passes(prices, kind, &spare);
    struct layer_bytes bytes = block_bytes(share, kind), head = head_bytes(share);

    block_passes(share, kind, pass);
    same_passes(block->pass, pass);
    assert_true(block->bytes.kept == bytes.kept && block->bytes.working == bytes.working);
    assert_true(block->parameters == block_parameters(share, kind->has_experts));
    assert_true(prices->head_bytes.kept == head.kept && prices->head_bytes.working == head.working);
    layer_prices_tables(prices);
    embedding_passes(share, pass);
    same_passes(prices->embedding, pass);
    head_passes(share, pass);
    same_passes(prices->head, pass);
}

static void check_model(const char *name)
{
    struct cluster cluster = some_cluster();
    struct model model = some_model(name);
    struct layer_memory *memory = layer_memory_new(&model);
    assert_non_null(memory);
    for (int64_t number = 0; number < 2000; number++) {
        struct layout layout = numbered_layout(number);
        if (model.experts > 0 && layout.framework == FRAMEWORK_MEGATRON)
            layout.expert = number % 4 < 2 ? 1 : 2;
        struct layout_share share = layout_share(&cluster.groups[0], &model, &layout);
        struct layer_prices *prices = layer_memory_prices(memory, &cluster.groups[0], &layout);
        const struct block_kind kind = {model.experts > 0, layout_block_mode(&layout, 0)};
        assert_non_null(prices);
        same_as_afresh(prices, &share, &kind);
    }
    layer_memory_free(memory);
}

static void test_layer_prices__are_those_of_the_whole_layout(void **state)
{
    (void)state;
    check_model("gpt2-xl");
    check_model("llama-3-8b");
    check_model("mixtral-8x7b");
    check_model("bert-base-uncased");
}

static void test_layer_prices__are_shared_by_layouts_of_one_view(void **state)
{
    (void)state;
    struct cluster cluster = some_cluster(), other = cluster;
    struct model model = some_model("llama-3-8b");
    struct layer_memory *memory = layer_memory_new(&model);
    struct layout layout = numbered_layout(3), same = layout;
    assert_non_null(memory);
    struct layer_prices *prices = layer_memory_prices(memory, &cluster.groups[0], &layout);
    same.pipeline *= 2;
    same.virtual_stages = 4;
    same.data /= 2;
    same.zero_stage = 1;
    same.shard = same.data;
    same.global_batch *= 2;
    same.recompute = RECOMPUTE_SELECTIVE;
    assert_ptr_equal(layer_memory_prices(memory, &cluster.groups[0], &same), prices);
    assert_ptr_not_equal(layer_memory_prices(memory, &other.groups[0], &same), prices);
    struct layout others[12];
    for (size_t i = 0; i < 12; i++)
        others[i] = layout;
    others[0].tensor *= 2;
    others[1].context *= 2;
    others[2].micro_batch *= 2;
    others[3].sequence_parallel = !layout.sequence_parallel;
    others[4].arithmetic = ARITHMETIC_TF32;
    others[5].fused_attention = !layout.fused_attention;
    others[6].overlap_tensor = !layout.overlap_tensor;
    others[7].expert *= 2;
    others[8].framework = FRAMEWORK_FSDP;
    others[9].schedule = SCHEDULE_INTERLEAVED;
    others[10].elementwise = ELEMENTWISE_HF_GPT2;
    others[11].fused_cross_entropy = !layout.fused_cross_entropy;
    for (size_t i = 0; i < 12; i++)
        assert_ptr_not_equal(layer_memory_prices(memory, &cluster.groups[0], &others[i]), prices);
    assert_ptr_equal(layer_memory_prices(memory, &cluster.groups[0], &layout), prices);
    layer_memory_free(memory);
}

/* More kinds than there is room for are right as well, in the caller's space. */
static void test_layer_prices__have_room_for_few_kinds(void **state)
{
    (void)state;
    struct cluster cluster = some_cluster();
    struct model model = some_model("mixtral-8x7b");
    struct layout layout = numbered_layout(4);
    struct layout_share share = layout_share(&cluster.groups[0], &model, &layout);
    struct layer_prices prices;
    struct block_prices spare;
    layer_prices_start(&cluster.groups[0], &model, &layout, &prices);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned number = 0; number < BLOCK_KINDS_MAX; number++) {
            unsigned rest = number / 2 / RECOMPUTE_COUNT;
            const struct block_kind kind = {number % 2 != 0,
                                            {(enum recompute)(number / 2 % RECOMPUTE_COUNT),
                                             rest / 2 == 0 ? layout.arithmetic : ARITHMETIC_FP8,
                                             rest % 2 != 0}};
            same_as_afresh(&prices, &share, &kind);
            bool has_room = number < LAYER_PRICES_KINDS;
            assert_int_equal(layer_prices_block(&prices, &kind, &spare) != &spare, has_room);
        }
    }
    assert_int_equal(prices.kind_count, LAYER_PRICES_KINDS);
}

static void test_layer_prices__say_when_the_memory_is_full(void **state)
{
    (void)state;
    struct cluster cluster = some_cluster();
    struct model model = some_model("llama-3-8b");
    struct layer_memory *memory = layer_memory_new(&model);
    struct layout layout = one_device(1);
    int64_t room = 0;
    assert_non_null(memory);
    while (layer_memory_prices(memory, &cluster.groups[0], &layout)) {
        room++;
        layout.micro_batch++;
        assert_true(room < 100000);
    }
    assert_true(room >= 1000);
    /* and still find what they have */
    for (layout.micro_batch = 1; layout.micro_batch <= room; layout.micro_batch++) {
        struct layer_prices *prices = layer_memory_prices(memory, &cluster.groups[0], &layout);
        assert_non_null(prices);
        assert_true(prices->share.tokens == (double)layout.micro_batch * (double)model.seq_length);
    }
    layer_memory_free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_prices__are_those_of_the_whole_layout),
        cmocka_unit_test(test_layer_prices__are_shared_by_layouts_of_one_view),
        cmocka_unit_test(test_layer_prices__have_room_for_few_kinds),
        cmocka_unit_test(test_layer_prices__say_when_the_memory_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
