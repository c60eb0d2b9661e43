#include "plans.h"

#include "ir/footprint.h"
#include "ir/mesh.h"

enum { PAGE = FOOTPRINT_ALIGN_BYTES };

static void check_pages(const struct plan *plan, int stage, const uint64_t pages[MEMORY_PROCESS])
{
    struct footprint footprint;
    uint64_t sum = 0;
    plan_footprint(plan, stage, &footprint);
    for (int term = 0; term < MEMORY_PROCESS; term++) {
        if (footprint.term_bytes[term] != pages[term] * PAGE)
            fail_msg("stage %d, %s: %.3f pages, not %llu", stage,
                     memory_term_name((enum memory_term)term),
                     (double)footprint.term_bytes[term] / PAGE, (unsigned long long)pages[term]);
        sum += pages[term] * PAGE;
    }
    assert_int_equal(footprint.term_bytes[MEMORY_PROCESS], 0);
    assert_int_equal(footprint_total_bytes(&footprint), sum);
}

/* In pages of 4096 bytes; 128 tokens, fp32.
 *
 * Elements: embedding 32768 (32 pages) and 4096 that stay whole (4); attention 16384 (16) and 384
 * of vectors (1); mlp 32768 (32) and 448 (1); head 128 of vectors (1): 87 pages, moments twice
 * that.
 *
 * Activations: the stream of 128 * 64 * 4 bytes 8, and as much for each layer but the embedding;
 * tokens 1, targets 1; kept by attention 1024 + 32768 + 98304 + 32768 + 32768 bytes: 49; by the mlp
 * 1024 + 32768 + 131072 + 131072: 73; by the head nothing. 8 + 1 + 57 + 81 + 9.
 *
 * Scratch: the head's 1024 + 32768 + 262144 + 32768 + 2048 bytes: 81 (attention 34, mlp 40). */
static void test_footprint__one_stage_by_hand(void **state)
{
    (void)state;
    struct small_plan small;
    small_plan_init(&small, 2, 1);
    check_pages(&small.plan, 0, (uint64_t[MEMORY_PROCESS]){87, 87, 174, 156, 81});
    /* the mlp recomputed: what it keeps becomes scratch */
    small.layers[2].recompute = RECOMPUTE_FULL;
    check_pages(&small.plan, 0, (uint64_t[MEMORY_PROCESS]){87, 87, 174, 83, 113});
}

/* T = 2, d = 2, sequence parallel, ZeRO 3, bf16 but for the embedding.
 *
 * Elements of a rank: embedding 256 * 64 = 16384, a shard of 8192 in fp32: 8 pages, positions 4;
 * attention 64 * 96 + 32 * 64 = 8192: a shard of 4 in fp32 and 2 in bf16, vectors 1; mlp 16384:
 * 8 + 4 + 1; head 1.
 *
 * Activations: the stream of 64 tokens 4; tokens 1; attention 512 + 8192 + 24576 + 8192 + 8192
 * bytes: 13 + 4; mlp 512 + 8192 + 32768 + 32768: 19 + 4; head 4, targets 1.
 *
 * Scratch: rings of 16384 * 4 bytes: 16, four of them; of the head 512 + 8192 + 131072 + 32768 +
 * 65536 + 16384 + 32768 + 2048 bytes: 71, the embedding's parameters with the table in bf16 (65536
 * + 32768 bytes) 24, its gradient 16. */
static void test_footprint__sharded_by_hand(void **state)
{
    (void)state;
    struct small_plan small;
    small_plan_init(&small, 2, 2);
    for (size_t i = 0; i < SMALL_LAYERS; i++)
        small.layers[i] =
            (struct layer_strategy){.tensor_parallel = 2,
                                    .sequence_parallel = true,
                                    .zero_stage = 3,
                                    .precision = i > 0 ? PRECISION_BF16 : PRECISION_FP32};
    check_pages(&small.plan, 0, (uint64_t[MEMORY_PROCESS]){33, 27, 54, 50, 111 + 64});
    assert_int_equal(footprint_ring_bytes(&small.plan), 65536);
    /* the embedding: its sum of the group and its tokens' order 9 pages, parameters 16, gradient 16
     */
    assert_int_equal(footprint_scratch_bytes(&small.plan, 0), 41 * PAGE);
    /* the mlp's transient state is in the rings: 32768 + 32768 + 16384 + 32768 bytes */
    assert_int_equal(footprint_scratch_bytes(&small.plan, 2), 28 * PAGE);

    /* gradients in bf16: of the shards 4 + 2 + 4 pages instead of 8 + 4 + 8, and of the table,
     * which is the head's, half in its transient gradient */
    small.plan.gradient_reduction = GRADIENTS_BF16;
    check_pages(&small.plan, 0, (uint64_t[MEMORY_PROCESS]){33, 17, 54, 50, 103 + 64});
    assert_int_equal(footprint_scratch_bytes(&small.plan, 0), 33 * PAGE);
}

/* Two stages of two layers, four micro-batches: two in flight on the first, one on the second,
 * whose head has a table of its own (32 pages). Eight streams of 8 pages. */
static void test_footprint__two_stages_by_hand(void **state)
{
    (void)state;
    struct small_plan small;
    small_plan_init(&small, 1, 1);
    small.plan.ranks = small.plan.pipeline = 2;
    small.layers[2].stage = small.layers[3].stage = 1;
    check_pages(&small.plan, 0, (uint64_t[MEMORY_PROCESS]){53, 53, 106, 64 + 2 * 58, 34});
    check_pages(&small.plan, 1, (uint64_t[MEMORY_PROCESS]){66, 66, 132, 64 + 81 + 9, 81});
    assert_int_equal(plan_fullest_stage(&small.plan), 1);
    small.plan.schedule = SCHEDULE_GPIPE; /* all four in flight on both */
    check_pages(&small.plan, 0, (uint64_t[MEMORY_PROCESS]){53, 53, 106, 64 + 4 * 58, 34});
    small.layers[2].stage = 0;
    assert_int_equal(plan_fullest_stage(&small.plan), 0);
}

static void test_footprint__streams_follow_the_widest_spread(void **state)
{
    (void)state;
    static const struct {
        int ways[SMALL_LAYERS];
        bool sequence_parallel[SMALL_LAYERS];
        int count;
        uint64_t tokens;
    } cases[] = {
        {{1, 1, 1, 1}, {false, false, false, false}, 1, 32},
        {{4, 4, 4, 4}, {true, true, true, true}, 1, 32},
        {{4, 2, 1, 4}, {true, true, false, true}, 1, 32}, /* one share each, by three ways */
        {{4, 4, 4, 4}, {false, false, false, false}, 1, 128},
        {{4, 4, 4, 4}, {true, true, false, true}, 2, 128},
        {{4, 1, 1, 4}, {false, false, false, false}, 2, 128},
        {{1, 1, 2, 1}, {false, false, false, false}, 2, 128},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct small_plan small;
        small_plan_init(&small, 1, 4);
        for (size_t l = 0; l < SMALL_LAYERS; l++) {
            small.layers[l].tensor_parallel = cases[i].ways[l];
            small.layers[l].sequence_parallel = cases[i].sequence_parallel[l];
        }
        assert_int_equal(footprint_stream_count(&small.plan), cases[i].count);
        assert_int_equal(footprint_stream_bytes(&small.plan), cases[i].tokens * 64 * 4);
        small.plan.pipeline = 2;
        assert_int_equal(footprint_stream_count(&small.plan), 8);
    }
}

static void test_footprint__rings_follow_the_highest_zero_stage(void **state)
{
    (void)state;
    static const int rings[] = {0, 0, 1, 2};
    for (int zero = 0; zero <= 3; zero++) {
        struct small_plan small;
        small_plan_init(&small, 3, 2);
        small.layers[1].zero_stage = zero;
        assert_int_equal(footprint_ring_count(&small.plan), rings[zero]);
        /* the mlp's 16384, up to a multiple of 3 * 16 */
        assert_int_equal(footprint_ring_bytes(&small.plan), 16416 * 4);
    }
}

/* A layer of a lower degree holds more than a ring takes: its transient state is scratch, but for
 * 16 bit parameters, which are half as long. T = 4 of 4 heads, the mlp's ring 256 / 4 columns. */
static void test_footprint__what_no_ring_takes_is_scratch(void **state)
{
    (void)state;
    struct small_plan small;
    small_plan_init(&small, 1, 4);
    small.plan.model.heads = small.plan.model.kv_heads = 4;
    small.plan.model.head_dim = 16;
    assert_int_equal(footprint_ring_bytes(&small.plan), 8192 * 4);
    small.layers[2] = (struct layer_strategy){.tensor_parallel = 2, .precision = PRECISION_BF16};
    uint64_t bytes = footprint_scratch_bytes(&small.plan, 2);
    small.layers[2].zero_stage = 3; /* gradient 16384 * 4, parameters 16384 * 2 */
    assert_int_equal(footprint_scratch_bytes(&small.plan, 2), bytes + 16 * PAGE);
    small.layers[2].tensor_parallel = 4;
    small.layers[2].zero_stage = 0;
    bytes = footprint_scratch_bytes(&small.plan, 2);
    small.layers[2].zero_stage = 3;
    assert_int_equal(footprint_scratch_bytes(&small.plan, 2), bytes);
    /* a table of 8 rows, 512 elements, would fit, but rings are for blocks
     */
    small.plan.model.vocab = 8;
    bytes = footprint_scratch_bytes(&small.plan, 0);
    small.layers[0].zero_stage = 2;
    assert_int_equal(footprint_scratch_bytes(&small.plan, 0), bytes + PAGE);
    /* three heads are not four ranks': the ring is the mlp's alone */
    small.plan.model.heads = small.plan.model.kv_heads = 3;
    small.plan.model.ffn = 4;
    assert_int_equal(footprint_ring_bytes(&small.plan), 2 * 64 * 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_footprint__one_stage_by_hand),
        cmocka_unit_test(test_footprint__sharded_by_hand),
        cmocka_unit_test(test_footprint__two_stages_by_hand),
        cmocka_unit_test(test_footprint__streams_follow_the_widest_spread),
        cmocka_unit_test(test_footprint__rings_follow_the_highest_zero_stage),
        cmocka_unit_test(test_footprint__what_no_ring_takes_is_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
