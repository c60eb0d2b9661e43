/* Between layers of different spread, and between stages: every pair of degrees, each rank's shares
 * compared with what they must be. Run under mpirun with 2, 3, 4 and 6 ranks; of 6, the degrees 2
 * and 3 do not divide each other. */
#include "support.h"

#include "executor/reshard.h"

enum { LAYERS_MAX = 8, HIDDEN = 10, SEQUENCE = 3, MICRO_BATCH = 6 };
enum { WHOLE = MICRO_BATCH * SEQUENCE * HIDDEN };

static struct comm *world;

/* A plan of one layer for each divisor of T. */
struct degrees {
    struct plan plan;
    struct layer_strategy layers[LAYERS_MAX];
    struct journal journal;
    struct groups groups;
    struct device *device;
    struct reshard reshard;
};

static void degrees_open(struct degrees *out, int tensor_parallel)
{
    struct error err = {0};
    *out = (struct degrees){.plan = {.ranks = comm_size(world),
                                     .data_parallel = comm_size(world) / tensor_parallel,
                                     .tensor_parallel = tensor_parallel,
                                     .pipeline = 1,
                                     .virtual_stages = 1,
                                     .micro_batch = MICRO_BATCH,
                                     .model = {.hidden = HIDDEN, .seq_length = SEQUENCE}}};
    out->plan.layers = out->layers;
    for (int degree = 1; degree <= tensor_parallel; degree++)
        if (tensor_parallel % degree == 0)
            out->layers[out->plan.layer_count++].tensor_parallel = degree;
    assert_ok(device_open(&out->device, 1, &err), &err);
    assert_ok(groups_open(&out->groups, &out->plan, world, &out->journal, &err), &err);
    const struct layout layout = {
        .plan = &out->plan, .device = out->device, .place = comm_rank(world)};
    out->reshard = reshard_of(&layout, &out->groups, &out->journal);
}

static void degrees_close(struct degrees *degrees)
{
    groups_close(&degrees->groups);
    device_close(degrees->device);
}

/* What each element of a replica's micro-batch is. */
static float value_of(const struct degrees *degrees, uint64_t element)
{
    int replica = comm_rank(world) / degrees->plan.tensor_parallel;
    return (float)(element + (uint64_t)replica * WHOLE);
}

/* The shares of this rank's spread begin here. */
static uint64_t first_of(const struct degrees *degrees, int spread)
{
    int ways = degrees->plan.tensor_parallel, column = comm_rank(world) % ways;
    return (uint64_t)(column / spread * spread) * WHOLE / (uint64_t)ways;
}

static void fill(const struct degrees *degrees, float *data, int spread)
{
    uint64_t first = first_of(degrees, spread);
    for (uint64_t i = 0; i < reshard_count(&degrees->reshard, spread); i++)
        data[i] = value_of(degrees, first + i);
}

static void assert_held(const struct degrees *degrees, const float *data, int spread)
{
    uint64_t first = first_of(degrees, spread), count = reshard_count(&degrees->reshard, spread);
    for (uint64_t i = 0; i < count; i++)
        assert_true(data[i] == value_of(degrees, first + i));
    assert_true(data[count] == -1); /* nothing behind it was written */
}

static void clear(float *data)
{
    for (int i = 0; i <= WHOLE; i++)
        data[i] = -1;
}

/* One change of spread inside a stage, and one between stages: this rank is its own neighbour. */
static void check_pair(const struct degrees *degrees, int have, int want)
{
    static float from[WHOLE + 1], to[WHOLE + 1], travelled[WHOLE + 1];
    struct error err = {0};
    int travel = reshard_travel_spread(have, want);
    uint64_t count = reshard_count(&degrees->reshard, travel);
    clear(from);
    clear(to);
    clear(travelled);
    fill(degrees, from, have);
    assert_ok(reshard_copy(&degrees->reshard, from, have, to, want, &err), &err);
    assert_held(degrees, to, want);
    assert_held(degrees, from, have);
    clear(to);
    memcpy(travelled, reshard_at(&degrees->reshard, from, have, travel), count * sizeof(float));
    assert_held(degrees, travelled, travel);
    assert_true(travel <= have && travel <= want);
    assert_ok(reshard_copy(&degrees->reshard, travelled, travel, to, want, &err), &err);
    assert_held(degrees, to, want);
}

static void check_all_pairs(int tensor_parallel)
{
    struct degrees degrees;
    degrees_open(&degrees, tensor_parallel);
    for (size_t i = 0; i < degrees.plan.layer_count; i++)
        for (size_t k = 0; k < degrees.plan.layer_count; k++)
            check_pair(&degrees, degrees.layers[i].tensor_parallel,
                       degrees.layers[k].tensor_parallel);
    degrees_close(&degrees);
}

static void test_reshard__every_pair_of_spreads(void **state)
{
    (void)state;
    for (int ways = 1; ways <= comm_size(world); ways++)
        if (comm_size(world) % ways == 0)
            check_all_pairs(ways);
}

/* What does not hold the other whole travels as single shares: nobody sends what two hold. */
static void test_reshard__travels_as_the_narrower_side_or_single(void **state)
{
    (void)state;
    assert_int_equal(reshard_travel_spread(4, 2), 2);
    assert_int_equal(reshard_travel_spread(4, 4), 4);
    assert_int_equal(reshard_travel_spread(4, 1), 1);
    assert_int_equal(reshard_travel_spread(2, 4), 1);
    assert_int_equal(reshard_travel_spread(2, 3), 1);
    assert_int_equal(reshard_travel_spread(1, 4), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reshard__every_pair_of_spreads),
        cmocka_unit_test(test_reshard__travels_as_the_narrower_side_or_single),
    };
    struct error err = {0};
    if (comm_open(&world, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(world);
    return failed;
}
