#include "plans.h"

#include "ir/footprint.h"
#include "ir/mesh.h"
#include "ir/state.h"

/* state.h's last column: a + b / d bytes a parameter. */
static const struct {
    int zero_stage;
    enum precision precision;
    uint64_t fixed, shared;
    uint64_t narrower_fixed, narrower_shared; /* by so much with gradients in bf16 */
} table[] = {
    {0, PRECISION_FP32, 16, 0, 0, 0}, {0, PRECISION_FP16, 18, 0, 0, 0},
    {1, PRECISION_FP32, 8, 8, 0, 0},  {1, PRECISION_FP16, 6, 12, 0, 0},
    {2, PRECISION_FP32, 4, 12, 0, 0}, {2, PRECISION_FP16, 2, 16, 0, 0},
    {3, PRECISION_FP32, 0, 16, 0, 0}, {3, PRECISION_FP16, 0, 18, 0, 0},
    {0, PRECISION_BF16, 18, 0, 2, 0}, {1, PRECISION_BF16, 6, 12, 2, 0},
    {2, PRECISION_BF16, 2, 16, 0, 2}, {3, PRECISION_BF16, 0, 18, 0, 2},
};

static uint64_t matrix_bytes(const struct layer_state *state)
{
    uint64_t bytes = layer_state_parameter_bytes(state) + layer_state_gradient_bytes(state) +
                     layer_state_optimizer_bytes(state);
    return bytes - 4 * footprint_region_bytes(state->vectors * sizeof(float));
}

/* gpt2's sizes are such that every array fills whole pages: the formulas are exact. */
static void test_state__bytes_follow_the_published_formulas(void **state)
{
    (void)state;
    struct error err;
    for (size_t i = 0; i < COUNT(table); i++) {
        for (int d = 1; d <= 16; d *= 2) {
            for (int t = 1; t <= 4; t *= 2) {
                struct small_plan small;
                struct layer_state of;
                small_plan_init(&small, d, t);
                assert_ok(model_load(&small.plan.model, "gpt2",
                                     &(struct model_overrides){.layers = 1}, &err),
                          &err);
                struct layer_strategy *layer = &small.layers[2];
                layer->tensor_parallel = t;
                layer->zero_stage = table[i].zero_stage;
                layer->precision = table[i].precision;
                layer_state_of(&small.plan, 2, &of);
                uint64_t ways = (uint64_t)d, matrices = 2 * 768 * 3072 / (uint64_t)t;
                assert_int_equal(matrix_bytes(&of) * ways,
                                 matrices * (table[i].fixed * ways + table[i].shared));
                small.plan.gradient_reduction = GRADIENTS_BF16;
                uint64_t wide_bytes = matrix_bytes(&of);
                layer_state_of(&small.plan, 2, &of);
                assert_int_equal((wide_bytes - matrix_bytes(&of)) * ways,
                                 matrices *
                                     (table[i].narrower_fixed * ways + table[i].narrower_shared));
                assert_int_equal(of.vectors, 3 * 768 + 3072 / t);
                assert_int_equal(of.partition.ways, table[i].zero_stage > 0 ? d : 1);
                assert_int_equal(of.partition.count, matrices);
            }
        }
    }
}

/* A layer of degree 1 in a replica of two ranks is sharded over both. */
static void test_state__a_lower_degree_shards_over_more_ranks(void **state)
{
    (void)state;
    struct small_plan small;
    struct layer_state of;
    small_plan_init(&small, 3, 2);
    small.layers[1].zero_stage = 1;
    layer_state_of(&small.plan, 1, &of);
    assert_int_equal(of.partition.ways, 6);
    /* 64 x 192 + 64 x 64 = 16384, up to a multiple of 6 x 16 */
    assert_int_equal(of.partition.count, 16416);
    assert_int_equal(of.moments, 2736);
    assert_int_equal(of.gradients, 16416);
    small.layers[1].tensor_parallel = 2;
    layer_state_of(&small.plan, 1, &of);
    assert_int_equal(of.partition.ways, 3);
    assert_int_equal(of.partition.count, 8208);
}

static void test_state__transient_arrays_are_whole(void **state)
{
    (void)state;
    struct small_plan small;
    struct layer_state of;
    small_plan_init(&small, 2, 1);
    for (int zero = 0; zero <= 3; zero++) {
        small.layers[1].zero_stage = zero;
        small.layers[1].precision = PRECISION_FP32;
        layer_state_of(&small.plan, 1, &of);
        assert_int_equal(of.gradient_bytes, zero >= 2 ? 16384 * 4 : 0);
        assert_int_equal(of.gather_bytes, zero == 3 ? 16384 * 4 : 0);
        small.layers[1].precision = PRECISION_BF16;
        layer_state_of(&small.plan, 1, &of);
        assert_int_equal(of.gradient_bytes, zero >= 2 ? 16384 * 4 : 0);
        assert_int_equal(of.gather_bytes, zero == 3 ? 16384 * 2 : 0);
        small.plan.gradient_reduction = GRADIENTS_BF16;
        layer_state_of(&small.plan, 1, &of);
        assert_int_equal(of.gradient_bytes, zero >= 2 ? 16384 * 2 : 0);
        small.plan.gradient_reduction = GRADIENTS_FP32;
    }
}

/* Which layers' gradients a plan's choice reaches. */
static void test_state__gradients_in_bf16_are_of_layers_in_bf16(void **state)
{
    (void)state;
    struct small_plan small;
    for (int precision = 0; precision < PRECISION_COUNT; precision++)
        for (int pipeline = 1; pipeline <= 2; pipeline++)
            for (int tied = 0; tied <= 1; tied++) {
                small_plan_init(&small, 2, 1);
                small.plan.model.tied_head = tied;
                small.plan.pipeline = pipeline;
                small.layers[2].stage = small.layers[3].stage = pipeline - 1;
                small.layers[2].precision = small.layers[3].precision = (enum precision)precision;
                for (size_t i = 0; i < 4; i++)
                    assert_int_equal(layer_gradient_precision(&small.plan, i), PRECISION_FP32);
                small.plan.gradient_reduction = GRADIENTS_BF16;
                enum precision follows =
                    precision == PRECISION_BF16 ? PRECISION_BF16 : PRECISION_FP32;
                assert_int_equal(layer_gradient_precision(&small.plan, 0),
                                 tied ? follows : PRECISION_BF16);
                assert_int_equal(layer_gradient_precision(&small.plan, 1), PRECISION_FP32);
                assert_int_equal(layer_gradient_precision(&small.plan, 2), follows);
                assert_int_equal(layer_gradient_precision(&small.plan, 3), follows);
            }
}

/* A tied head has no matrices: its table, the copy of it in 16 bit and what of it is transient are
 * the embedding's: 512 x 64 = 32768. The 64 x 64 positions stay whole. */
static void test_state__a_tied_head_uses_the_embeddings_table(void **state)
{
    (void)state;
    struct small_plan small;
    struct layer_state embedding, head;
    small_plan_init(&small, 2, 1);
    for (int zero = 0; zero <= 3; zero++) {
        for (int precision = 0; precision < PRECISION_COUNT; precision++) {
            bool halved = precision != PRECISION_FP32;
            small.layers[0].zero_stage = small.layers[3].zero_stage = zero;
            small.layers[3].precision = (enum precision)precision;
            layer_state_of(&small.plan, 0, &embedding);
            layer_state_of(&small.plan, 3, &head);
            assert_int_equal(embedding.table_16, halved && zero < 3 ? 32768 : 0);
            assert_int_equal(embedding.gather_bytes, zero == 3 ? 32768 * 4 : 0);
            assert_int_equal(embedding.partition.count, 32768);
            assert_int_equal(embedding.vectors, 4096);
            assert_int_equal(head.partition.count, 0);
            assert_int_equal(head.vectors, 128);
            assert_int_equal(head.gradient_bytes, zero >= 2 ? 32768 * 4 : 0);
            assert_int_equal(head.gather_bytes,
                             zero == 3 ? 32768 * 4 + (halved ? 32768 * 2 : 0) : 0);
            assert_int_equal(matrix_bytes(&head), 0);
        }
    }
}

static void test_state__a_head_on_another_stage_has_its_own_table(void **state)
{
    (void)state;
    struct small_plan small;
    struct layer_state embedding, head;
    small_plan_init(&small, 1, 1);
    small.plan.pipeline = 2;
    small.layers[2].stage = small.layers[3].stage = 1;
    small.layers[3].precision = PRECISION_BF16;
    layer_state_of(&small.plan, 0, &embedding);
    layer_state_of(&small.plan, 3, &head);
    assert_int_equal(embedding.table_16, 0);
    assert_int_equal(head.partition.count, 32768);
    assert_int_equal(head.whole_16, 32768);
    assert_int_equal(head.shard_fp32, 32768);

    small.plan.pipeline = 1;
    small.layers[2].stage = small.layers[3].stage = 0;
    small.plan.model.tied_head = false;
    layer_state_of(&small.plan, 0, &embedding);
    layer_state_of(&small.plan, 3, &head);
    assert_int_equal(embedding.table_16, 0);
    assert_int_equal(head.whole_16, 32768);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state__bytes_follow_the_published_formulas),
        cmocka_unit_test(test_state__a_lower_degree_shards_over_more_ranks),
        cmocka_unit_test(test_state__transient_arrays_are_whole),
        cmocka_unit_test(test_state__gradients_in_bf16_are_of_layers_in_bf16),
        cmocka_unit_test(test_state__a_tied_head_uses_the_embeddings_table),
        cmocka_unit_test(test_state__a_head_on_another_stage_has_its_own_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
