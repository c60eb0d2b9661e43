/* Between layers of different spread, and between stages: every pair of degrees, each rank's shares
 * compared with what they must be, and trainings of three ranks. Run under mpirun with 2, 3, 4 and
 * 6 ranks; of 6, the degrees 2 and 3 do not divide each other. */
#include "support.h"

#include "executor/reshard.h"
#include "trained.h"

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
    const struct memory_layout layout = {
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

/* ---- in a training ---- */

enum { STEPS = 3 };

/* Three ranks share what divides by three, one by one: `degrees` of embedding, attention, mlp,
 * attention, ... and head. */
struct three_ways {
    const char *model;
    int64_t hidden, heads, ffn;
    int embedding, attention, mlp, head;
    bool sequence_parallel; /* where three share a layer */
    int zero_stage;
};

static const struct three_ways trainings[] = {
    {"gpt2", 36, 6, 144, 3, 3, 3, 3, false, 0},
    {"gpt2", 36, 6, 144, 3, 3, 3, 3, true, 3}, /* nobody to shard over */
    {"tinyllama-1.1b", 36, 6, 48, 3, 3, 1, 1, true, 3},
    {"tinyllama-1.1b", 36, 6, 48, 1, 3, 1, 3, false, 2},
    {"gpt2", 32, 4, 96, 3, 1, 3, 3, false, 1}, /* three ranks share 32 elements of a token */
    {"tinyllama-1.1b", 32, 4, 48, 3, 1, 3, 1, true, 2},
};

static void build(struct plan *out, const struct three_ways *what, int ranks)
{
    const int degrees[LAYER_KIND_COUNT] = {what->embedding, what->attention, what->mlp, what->head};
    struct model_overrides sizes = {.layers = 2,
                                    .hidden = what->hidden,
                                    .heads = what->heads,
                                    .kv_heads = what->heads,
                                    .ffn = what->ffn,
                                    .vocab_size = 251,
                                    .positions = 15,
                                    .seq_length = 15};
    struct error err = {0};
    *out = (struct plan){.ranks = ranks,
                         .data_parallel = 1,
                         .tensor_parallel = ranks,
                         .pipeline = 1,
                         .virtual_stages = 1,
                         .schedule = SCHEDULE_1F1B,
                         .threads = 1,
                         .global_batch = 6,
                         .micro_batch = 3,
                         .micro_batches = 2};
    assert_ok(model_load(&out->model, what->model, &sizes, &err), &err);
    out->layer_count = model_layer_count(&out->model);
    out->layers = calloc(out->layer_count, sizeof *out->layers);
    assert_non_null(out->layers);
    for (size_t i = 0; i < out->layer_count; i++) {
        int degree = ranks == 1 ? 1 : degrees[model_layer(&out->model, i).kind];
        out->layers[i] =
            (struct layer_strategy){.tensor_parallel = degree,
                                    .sequence_parallel = degree > 1 && what->sequence_parallel,
                                    .zero_stage = ranks > 1 ? what->zero_stage : 0};
    }
    assert_ok(plan_validate(out, "test", &err), &err);
}

static void train(const struct three_ways *what, struct comm *comm, double *losses)
{
    static const struct optimizer_options optimizer = {.learning_rate = 1e-3,
                                                       .min_learning_rate = 1e-3,
                                                       .beta1 = 0.9,
                                                       .beta2 = 0.95,
                                                       .epsilon = 1e-2,
                                                       .clip_norm = 0.25};
    struct plan plan;
    struct trained trained;
    struct error err = {0};
    char path[64] = "";
    write_tokens(path, 5000, 251); /* the same at each rank */
    build(&plan, what, comm_size(comm));
    trained_open_plan(&trained, &plan, path, &optimizer, comm);
    trained_steps(&trained, STEPS, losses);
    assert_ok(trainer_evaluate(trained.trainer, 4, &losses[STEPS], &err), &err);
    trained_close(&trained);
    (void)unlink(path);
}

/* Only the order of fp32 additions differs. */
static void test_reshard__three_ranks_train_as_one(void **state)
{
    (void)state;
    struct comm *alone = NULL;
    struct error err = {0};
    if (comm_size(world) != 3)
        return;
    assert_ok(comm_open_alone(&alone, &err), &err);
    for (size_t i = 0; i < COUNT(trainings); i++) {
        double expected[STEPS + 1], got[STEPS + 1];
        train(&trainings[i], alone, expected);
        train(&trainings[i], world, got);
        for (int k = 0; k <= STEPS; k++)
            if (!(got[k] / expected[k] - 1 < 1e-5 && got[k] / expected[k] - 1 > -1e-5))
                fail_msg("training %zu, step %d: %.9g, not %.9g", i, k + 1, got[k], expected[k]);
    }
    comm_close(alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reshard__every_pair_of_spreads),
        cmocka_unit_test(test_reshard__travels_as_the_narrower_side_or_single),
        cmocka_unit_test(test_reshard__three_ranks_train_as_one),
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
