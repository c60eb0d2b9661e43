#include "plans.h"

#include "ir/mesh.h"

/* The ranks of a stage that have this index in the layer's tensor-parallel group (`by_part`) or in
 * its data-parallel group, as a set of places. */
static uint64_t places_with(const struct plan *plan, size_t layer, bool by_part, int index)
{
    uint64_t set = 0;
    for (int place = 0; place < mesh_stage_ranks(plan); place++) {
        int own =
            by_part ? mesh_part(plan, layer, place).index : mesh_data_index(plan, layer, place);
        if (own == index)
            set |= UINT64_C(1) << place;
    }
    return set;
}

static int size_of(uint64_t set)
{
    int count = 0;
    for (; set != 0; set &= set - 1)
        count++;
    return count;
}

static void check_groups(const struct plan *plan, size_t layer)
{
    int ways = plan->layers[layer].tensor_parallel, data_ways = mesh_data_ways(plan, layer);
    uint64_t all = (UINT64_C(1) << mesh_stage_ranks(plan)) - 1, seen = 0;
    assert_int_equal(ways * data_ways, mesh_stage_ranks(plan));
    for (int shard = 0; shard < data_ways; shard++) {
        uint64_t group = places_with(plan, layer, false, shard);
        int first = 0;
        while ((group >> first & 1) == 0)
            first++;
        assert_true(group == ((UINT64_C(1) << ways) - 1) << first); /* neighbours */
        assert_int_equal(mesh_replica_of(plan, first), mesh_replica_of(plan, first + ways - 1));
        assert_true((seen & group) == 0);
        seen |= group;
    }
    assert_true(seen == all);
    seen = 0;
    for (int index = 0; index < ways; index++) {
        uint64_t group = places_with(plan, layer, true, index);
        assert_int_equal(size_of(group), data_ways);
        assert_true((seen & group) == 0);
        seen |= group;
        for (int shard = 0; shard < data_ways; shard++)
            assert_int_equal(size_of(group & places_with(plan, layer, false, shard)), 1);
    }
    assert_true(seen == all);
    /* the groups of a replica share out its sequences */
    assert_int_equal(mesh_shape(plan, layer).sequences * (plan->tensor_parallel / ways),
                     plan->micro_batch);
}

static void test_mesh__groups_partition_the_ranks(void **state)
{
    (void)state;
    static const int degrees[][SMALL_LAYERS] = {{1, 1, 1, 1}, {2, 2, 2, 2}, {4, 2, 1, 4},
                                                {1, 4, 2, 1}, {4, 4, 4, 4}, {2, 1, 2, 2}};
    for (size_t i = 0; i < COUNT(degrees); i++) {
        for (int replicas = 1; replicas <= 5; replicas++) {
            struct small_plan small;
            small_plan_init(&small, replicas, 4);
            for (size_t layer = 0; layer < SMALL_LAYERS; layer++)
                small.layers[layer].tensor_parallel = degrees[i][layer];
            for (size_t layer = 0; layer < SMALL_LAYERS; layer++)
                check_groups(&small.plan, layer);
        }
    }
}

/* Two replicas of two stages of T = 4: place 6 is the third rank of the second replica. */
static void test_mesh__places_by_hand(void **state)
{
    (void)state;
    struct small_plan small;
    small_plan_init(&small, 2, 4);
    small.plan.pipeline = 2;
    assert_int_equal(mesh_stage_ranks(&small.plan), 8);
    assert_int_equal(mesh_stage_of(&small.plan, 14), 1);
    assert_int_equal(mesh_place_of(&small.plan, 14), 6);
    assert_int_equal(mesh_replica_of(&small.plan, 14), 1);
    assert_int_equal(mesh_rank_at(&small.plan, 1, 6), 14);
    for (int rank = 0; rank < 16; rank++)
        assert_int_equal(mesh_rank_at(&small.plan, mesh_stage_of(&small.plan, rank),
                                      mesh_place_of(&small.plan, rank)),
                         rank);
    small.layers[1] = (struct layer_strategy){.tensor_parallel = 2, .sequence_parallel = true};
    struct layer_part part = mesh_part(&small.plan, 1, 6);
    assert_int_equal(part.kind, LAYER_ATTENTION);
    assert_int_equal(part.ways, 2);
    assert_int_equal(part.index, 0);
    assert_true(part.sequence_parallel);
    assert_int_equal(mesh_data_index(&small.plan, 1, 6), 3);
    assert_int_equal(mesh_data_ways(&small.plan, 1), 4);
    assert_int_equal(mesh_shape(&small.plan, 1).sequences, 2);
    assert_int_equal(mesh_shape(&small.plan, 1).seq_length, 32);
}

static void test_mesh__chunks_partition_the_layers(void **state)
{
    (void)state;
    struct small_plan small;
    size_t first, end;
    small_plan_init(&small, 1, 1);
    small.plan.pipeline = 2;
    small.plan.virtual_stages = 2;
    for (int i = 0; i < SMALL_LAYERS; i++)
        small.layers[i].stage = i;
    for (size_t i = 0; i < SMALL_LAYERS; i++) {
        assert_int_equal(mesh_layer_stage(&small.plan, i), i % 2);
        assert_int_equal(mesh_layer_chunk(&small.plan, i), i / 2);
        mesh_chunk_layers(&small.plan, (int)i % 2, (int)i / 2, &first, &end);
        assert_int_equal(first, i);
        assert_int_equal(end, i + 1);
    }
    small.plan.virtual_stages = 1;
    small.layers[0].stage = 0;
    small.layers[1].stage = small.layers[2].stage = small.layers[3].stage = 1;
    mesh_chunk_layers(&small.plan, 0, 0, &first, &end);
    assert_true(first == 0 && end == 1);
    mesh_chunk_layers(&small.plan, 1, 0, &first, &end);
    assert_true(first == 1 && end == 4);
}

static void test_mesh__only_a_tied_head_of_a_pipeline_owns_its_table(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        for (int stages = 1; stages <= 2; stages++) {
            struct small_plan small;
            small_plan_init(&small, 1, 1);
            small.plan.model.tied_head = tied;
            small.plan.pipeline = stages;
            for (size_t i = 0; i < SMALL_LAYERS; i++)
                assert_int_equal(mesh_part(&small.plan, i, 0).owns_table,
                                 i == 3 && tied && stages == 2);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mesh__groups_partition_the_ranks),
        cmocka_unit_test(test_mesh__places_by_hand),
        cmocka_unit_test(test_mesh__chunks_partition_the_layers),
        cmocka_unit_test(test_mesh__only_a_tied_head_of_a_pipeline_owns_its_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
