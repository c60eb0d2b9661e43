#include "support.h"

#include "held.h"

#include "base/rng.h"
#include "executor/shards.h"
#include "ir/mesh.h"
#include "ir/state.h"

enum { PLANS = 300 };

/* Plan `number` of the tests: small models on up to 24 ranks; some have a table of several pieces.
 */
static struct plan plan_number(uint64_t number)
{
    static const char *const builtins[] = {"gpt2", "tinyllama-1.1b"};
    bool is_large = number % 30 == 0;
    int64_t vocab =
        is_large ? 80000 + (int64_t)(number % 7) : 10 + (int64_t)rng_below(3, 0, number, 20);
    struct model model = held_model(builtins[number % 2], number / 2 % 2 == 0, vocab);
    return held_plan_random(&model, 1 + (int)rng_below(3, 1, number, is_large ? 6 : 24), number);
}

/* ---- what is expected, element by element ---- */

/* The whole tensor's element at each of the part's, or -1: padding. */
static int64_t *expected_wholes(const struct tensor_part *tensor)
{
    uint64_t count = tensor_part_count(tensor);
    int64_t *wholes = malloc((count + 1) * sizeof(*wholes));
    assert_non_null(wholes);
    memset(wholes, 0xff, (count + 1) * sizeof(*wholes));
    for (size_t s = 0; s < tensor->slice_count; s++) {
        const struct tensor_slice *slice = &tensor->slices[s];
        for (int64_t r = 0; r < slice->rows; r++)
            for (int64_t c = 0; c < slice->cols; c++)
                wholes[(slice->local_row + r) * tensor->cols + slice->local_col + c] =
                    (slice->row + r) * tensor->whole.cols + slice->col + c;
    }
    return wholes;
}

/* Where in its shard the rank has each element of the part's matrices; -1: another rank does. */
static int64_t *expected_shards(const struct partition *partition, int block)
{
    int64_t *shards = malloc((partition->count + 1) * sizeof(*shards));
    int64_t next = 0;
    assert_non_null(shards);
    memset(shards, 0xff, (partition->count + 1) * sizeof(*shards));
    for (size_t i = 0; i < partition_piece_count(partition); i++) {
        struct partition_piece piece = partition_piece_at(partition, i);
        for (uint64_t k = 0; k < piece.block; k++)
            shards[piece.first + (uint64_t)block * piece.block + k] = next++;
    }
    assert_int_equal(next, partition_share(partition));
    return shards;
}

/* ---- runs ---- */

/* The runs are the mapping that the slices and the partition describe, each element once. */
static void check_runs(const struct holding *holding, size_t index, bool owned_only,
                       const int64_t *shards)
{
    const struct held_tensor *held = &holding->tensors[index];
    bool is_vector = held->tensor.whole.stays_whole;
    int64_t *wholes = expected_wholes(&held->tensor);
    uint64_t count = tensor_part_count(&held->tensor), found = 0, expected = 0;
    for (uint64_t i = 0; i < count; i++)
        if (wholes[i] >= 0 && (is_vector || !owned_only || shards[held->first + i] >= 0))
            expected++;
    struct shard_walk walk = shard_runs(holding, index, owned_only);
    struct shard_run run;
    while (shard_run_next(&walk, &run)) {
        assert_true(run.count > 0 && run.part >= held->first &&
                    run.part + run.count <= held->first + count);
        for (uint64_t k = 0; k < run.count; k++) {
            uint64_t at = run.part - held->first + k;
            assert_int_equal(wholes[at], run.whole + k);
            if (owned_only)
                assert_int_equal(is_vector ? (int64_t)(run.part + k) : shards[run.part + k],
                                 run.shard + k);
            wholes[at] = -1; /* not a second time */
        }
        found += run.count;
    }
    assert_int_equal(found, expected);
    free(wholes);
}

static void test_shards__runs_are_what_slices_and_blocks_say(void **state)
{
    (void)state;
    for (uint64_t number = 0; number < PLANS; number++) {
        struct plan plan = plan_number(number);
        int rank = (int)rng_below(3, 2, number, (uint64_t)plan.ranks);
        for (size_t l = 0; l < plan.layer_count; l++) {
            struct holding holding;
            if (mesh_layer_stage(&plan, l) != mesh_stage_of(&plan, rank))
                continue;
            holding_at(&plan, l, mesh_place_of(&plan, rank), &holding);
            int64_t *shards = expected_shards(&holding.partition, holding.block);
            for (size_t i = 0; i < holding.tensor_count; i++) {
                check_runs(&holding, i, false, shards);
                check_runs(&holding, i, true, shards);
            }
            free(shards);
        }
        plan_clear(&plan);
    }
}

/* ---- copies ---- */

/* The tensor in the files that a held one is. */
static const struct tensor_place *place_of(const struct tensor_place *places, size_t count,
                                           size_t layer, const struct held_tensor *held)
{
    enum tensor_role role = held->is_copy ? ROLE_TOKEN_EMBEDDING : held->tensor.whole.role;
    for (size_t i = 0; i < count; i++)
        if (places[i].role == role && places[i].layer == (held->is_copy ? 0 : layer))
            return &places[i];
    fail();
    return NULL;
}

/* What the rank holds of one tensor, after held_fill; padding is 0. */
static void check_values(const struct local_layer *layer, const struct holding *holding,
                         const struct held_tensor *held, const struct tensor_place *place)
{
    int64_t *wholes = expected_wholes(&held->tensor);
    int64_t *shards = expected_shards(&holding->partition, holding->block);
    const float *vectors[] = {layer->vectors, layer->vector_first_moment,
                              layer->vector_second_moment};
    const float *sharded[] = {layer->shard_fp32, layer->first_moment, layer->second_moment};
    for (uint64_t i = 0; i < tensor_part_count(&held->tensor); i++)
        for (int array = 0; array < ARRAY_COUNT; array++) {
            float value = wholes[i] < 0
                              ? 0.0f
                              : held_value(place, (enum tensor_array)array, 1, (uint64_t)wholes[i]);
            uint64_t part = held->first + i;
            if (held->tensor.whole.stays_whole) {
                assert_true(vectors[array][part] == value);
                continue;
            }
            if (array == ARRAY_PARAMETERS && layer->whole_fp32)
                assert_true(layer->whole_fp32[part] == value);
            if (sharded[array] && shards[part] >= 0)
                assert_true(sharded[array][shards[part]] == value);
        }
    free(wholes);
    free(shards);
}

static void test_shards__every_rank_gets_what_it_holds(void **state)
{
    (void)state;
    struct device *device;
    struct error err;
    assert_ok(device_open(&device, 1, &err), &err);
    for (uint64_t number = 1; number < PLANS / 3; number++) {
        struct plan plan = plan_number(number);
        struct tensor_place *places;
        struct memory_layout layout;
        size_t count;
        int rank = (int)rng_below(3, 6, number, (uint64_t)plan.ranks);
        if (number % 30 == 0)
            rank = plan.ranks - 1; /* the head's copy of a table of several pieces */
        assert_ok(tensor_places(&plan.model, &places, &count, &err), &err);
        held_open(&layout, device, &plan, rank, true);
        held_fill(&layout, 1);
        for (size_t l = 0; l < layout.layer_count; l++) {
            struct holding holding;
            const struct local_layer *layer = &layout.layers[l];
            holding_of(&plan.model, layer, &holding);
            for (size_t i = 0; i < holding.tensor_count; i++)
                check_values(layer, &holding, &holding.tensors[i],
                             place_of(places, count, layer->index, &holding.tensors[i]));
        }
        held_close(&layout);
        free(places);
        plan_clear(&plan);
    }
    device_close(device);
}

/* ---- who speaks ---- */

static void count_in(const struct plan *plan, size_t layer, enum tensor_role role, uint8_t *spoken)
{
    for (int at = 0; at < mesh_stage_ranks(plan); at++) {
        struct holding holding;
        size_t index;
        holding_at(plan, layer, at, &holding);
        if (!holding_find(&holding, role, &index))
            continue;
        struct shard_walk walk = shard_runs(&holding, index, true);
        struct shard_run run;
        while (holding.tensors[index].speaks && shard_run_next(&walk, &run))
            for (uint64_t k = 0; k < run.count; k++)
                spoken[run.whole + k]++;
    }
}

/* A tied head's table is the embedding's. */
static void count_spoken(const struct plan *plan, const struct tensor_place *place, uint8_t *spoken)
{
    count_in(plan, place->layer, place->role, spoken);
    if (place->role == ROLE_TOKEN_EMBEDDING && plan->model.tied_head)
        count_in(plan, plan->layer_count - 1, ROLE_HEAD_WEIGHT, spoken);
}

static void test_shards__what_is_spoken_for_is_every_element_once(void **state)
{
    (void)state;
    for (uint64_t number = 0; number < PLANS; number++) {
        struct plan plan = plan_number(number);
        struct tensor_place *places;
        size_t count;
        struct error err;
        assert_ok(tensor_places(&plan.model, &places, &count, &err), &err);
        for (size_t i = 0; i < count; i++) {
            uint8_t *spoken = calloc(places[i].count, 1);
            assert_non_null(spoken);
            count_spoken(&plan, &places[i], spoken);
            for (uint64_t k = 0; k < places[i].count; k++)
                if (spoken[k] != 1)
                    fail_msg("plan %d: %s[%d] is spoken for %d times", (int)number, places[i].name,
                             (int)k, spoken[k]);
            free(spoken);
        }
        free(places);
        plan_clear(&plan);
    }
}

/* Ranks of the same share own the same elements, others none in common. */
static void test_shards__equal_shares_are_equal_elements(void **state)
{
    (void)state;
    for (uint64_t number = 1; number < PLANS; number += 3) {
        struct plan plan = plan_number(number);
        size_t layer = rng_below(3, 3, number, plan.layer_count);
        int ranks = mesh_stage_ranks(&plan);
        struct holding holdings[2];
        for (int a = 0; a < ranks; a++)
            for (int b = 0; b < a; b++) {
                holding_at(&plan, layer, a, &holdings[0]);
                holding_at(&plan, layer, b, &holdings[1]);
                for (size_t i = 0; i < holdings[0].tensor_count; i++) {
                    struct shard_walk walks[2];
                    struct shard_run runs[2] = {{0}, {0}};
                    for (int k = 0; k < 2; k++)
                        walks[k] = shard_runs(&holdings[k], i, true);
                    bool has[2] = {shard_run_next(&walks[0], &runs[0]),
                                   shard_run_next(&walks[1], &runs[1])};
                    bool same_share = holdings[0].tensors[i].share == holdings[1].tensors[i].share;
                    if (same_share)
                        assert_int_equal(has[0], has[1]);
                    if (has[0] && has[1])
                        assert_int_equal(runs[0].whole == runs[1].whole, same_share);
                }
            }
        plan_clear(&plan);
    }
}

static void test_shards__a_local_layer_says_the_same_as_its_plan(void **state)
{
    (void)state;
    for (uint64_t number = 1; number < 30; number++) {
        struct plan plan = plan_number(number);
        for (int rank = 0; rank < plan.ranks; rank++) {
            struct memory_layout layout;
            held_open(&layout, NULL, &plan, rank, false);
            for (size_t i = 0; i < layout.layer_count; i++) {
                struct holding local, planned;
                memset(&local, 0, sizeof(local));
                memset(&planned, 0, sizeof(planned));
                holding_of(&plan.model, &layout.layers[i], &local);
                holding_at(&plan, layout.layers[i].index, layout.place, &planned);
                assert_int_equal(local.tensor_count, planned.tensor_count);
                assert_int_equal(local.block, planned.block);
                assert_int_equal(local.partition.count, planned.partition.count);
                for (size_t k = 0; k < local.tensor_count; k++) {
                    assert_int_equal(local.tensors[k].first, planned.tensors[k].first);
                    assert_int_equal(local.tensors[k].share, planned.tensors[k].share);
                    assert_int_equal(local.tensors[k].speaks, planned.tensors[k].speaks);
                }
            }
            held_close(&layout);
        }
        plan_clear(&plan);
    }
}

/* ---- segments ---- */

static const struct held_tensor *tensor_with(const struct holding *holding, bool is_vector,
                                             uint64_t element)
{
    for (size_t i = 0; i < holding->tensor_count; i++) {
        const struct held_tensor *held = &holding->tensors[i];
        if (held->tensor.whole.stays_whole == is_vector && element >= held->first &&
            element < held->first + tensor_part_count(&held->tensor))
            return held;
    }
    return NULL;
}

static void check_segment(const struct holding *holding, const struct shard_segment *segment,
                          int64_t *shards)
{
    for (uint64_t k = 0; k < segment->count; k++) {
        const struct held_tensor *held =
            tensor_with(holding, segment->is_vector, segment->part + k);
        assert_non_null(held);
        assert_int_equal(segment->decays, held->tensor.whole.decays);
        assert_int_equal(segment->speaks, held->speaks);
        if (segment->is_vector) {
            assert_int_equal(segment->shard, segment->part);
            continue;
        }
        assert_int_equal(shards[segment->part + k], segment->shard + k);
        shards[segment->part + k] = -1; /* not a second time */
    }
    if (!segment->is_vector && holding->partition.ways > 1) {
        struct partition_piece piece = partition_piece_at(&holding->partition, segment->piece);
        uint64_t first = piece.first + (uint64_t)holding->block * piece.block;
        assert_true(segment->part >= first &&
                    segment->part + segment->count <= first + piece.block);
    }
}

static void test_shards__segments_are_what_the_rank_owns(void **state)
{
    (void)state;
    for (uint64_t number = 0; number < PLANS; number++) {
        struct plan plan = plan_number(number);
        size_t layer = rng_below(3, 4, number, plan.layer_count);
        int place = (int)rng_below(3, 5, number, (uint64_t)mesh_stage_ranks(&plan));
        struct holding holding;
        struct shard_segment segment;
        uint64_t vectors = 0, matrices = 0;
        uint64_t found[2] = {0, 0}; /* of matrices and vectors */
        holding_at(&plan, layer, place, &holding);
        int64_t *shards = expected_shards(&holding.partition, holding.block);
        for (size_t i = 0; i < holding.tensor_count; i++) {
            uint64_t count = tensor_part_count(&holding.tensors[i].tensor);
            *(holding.tensors[i].tensor.whole.stays_whole ? &vectors : &matrices) += count;
        }
        uint64_t owned = 0;
        for (uint64_t i = 0; i < matrices; i++)
            owned += shards[i] >= 0;
        struct segment_walk walk = shard_segments(&holding);
        while (shard_segment_next(&walk, &segment)) {
            check_segment(&holding, &segment, shards);
            found[segment.is_vector] += segment.count;
        }
        assert_int_equal(found[0], owned);
        assert_int_equal(found[1], vectors);
        free(shards);
        plan_clear(&plan);
    }
}

static void test_shards__zero_one_over_two_ranks_by_hand(void **state)
{
    (void)state;
    struct model model = held_model("tinyllama-1.1b", true, 16);
    struct plan plan = held_plan_of_one(&model);
    plan.ranks = plan.data_parallel = 2;
    plan.layers[0].zero_stage = 1; /* the table, [16, 8] = 128 elements: blocks of 64 */
    for (int place = 0; place < 2; place++) {
        struct holding holding;
        struct shard_run run;
        holding_at(&plan, 0, place, &holding);
        assert_int_equal(holding.tensor_count, 1);
        assert_true(holding.tensors[0].speaks);
        struct shard_walk walk = shard_runs(&holding, 0, true);
        assert_true(shard_run_next(&walk, &run));
        assert_int_equal(run.whole, 64 * place);
        assert_int_equal(run.part, 64 * place);
        assert_int_equal(run.shard, 0);
        assert_int_equal(run.count, 64);
        assert_false(shard_run_next(&walk, &run));
        walk = shard_runs(&holding, 0, false);
        assert_true(shard_run_next(&walk, &run));
        assert_int_equal(run.count, 128);
        holding_at(&plan, 1, place, &holding); /* ZeRO 0: the first replica speaks */
        for (size_t i = 0; i < holding.tensor_count; i++)
            assert_int_equal(holding.tensors[i].speaks, place == 0);
    }
    plan_clear(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards__runs_are_what_slices_and_blocks_say),
        cmocka_unit_test(test_shards__every_rank_gets_what_it_holds),
        cmocka_unit_test(test_shards__what_is_spoken_for_is_every_element_once),
        cmocka_unit_test(test_shards__equal_shares_are_equal_elements),
        cmocka_unit_test(test_shards__a_local_layer_says_the_same_as_its_plan),
        cmocka_unit_test(test_shards__segments_are_what_the_rank_owns),
        cmocka_unit_test(test_shards__zero_one_over_two_ranks_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
