/* Which settings are measured, and how the time is shared among them. */
#include "profiler/sweep.h"
#include "support.h"

static struct comm *comm; /* MPI is started once a process */

struct fixture {
    struct model model;
    struct heard *heard;
    struct profile_request request;
    struct session session;
    struct chain chain;
};

static const double RATES[PRECISION_COUNT] = {1e10, 3e10};
/* Of precisions; of recompute modes with the kernels that admit them. */
enum { RATE_COUNT = 2, MODE_COUNT = RECOMPUTE_COUNT * ATTENTION_KERNEL_COUNT };

static struct fixture *fixture_open(void)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error err;
    assert_non_null(fixture);
    fixture->heard = calloc(1, sizeof(*fixture->heard));
    assert_non_null(fixture->heard);
    fixture->model = tiny_model();
    fixture->request = tiny_request(&fixture->model, fixture->heard);
    fixture->session.request = &fixture->request;
    fixture->session.memory_limit_bytes = UINT64_C(1) << 40;
    fixture->session.comm = comm;
    assert_int_equal(device_open(&fixture->session.device, 1, &err), STATUS_OK);
    assert_int_equal(chain_open(&fixture->chain, &fixture->session, true, UINT64_MAX, &err),
                     STATUS_OK);
    return fixture;
}

static void fixture_close(struct fixture *fixture)
{
    chain_close(&fixture->chain);
    assert_int_equal(fixture->session.allocated_bytes, 0); /* all was given back */
    device_close(fixture->session.device);
    free(fixture->heard);
    free(fixture);
}

static void test_sweep__has_every_precision_and_recompute_mode(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open();
    struct sweep sweep;
    struct error err;
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, 1e9, &err), STATUS_OK);
    assert_false(sweep.is_automatic);
    assert_int_equal(sweep.size_count, 3);
    assert_int_equal(sweep_pieces(&sweep), 3 * RATE_COUNT * MODE_COUNT);
    for (size_t s = 0; s < sweep.size_count; s++) {
        bool seen[PRECISION_COUNT][RECOMPUTE_COUNT][ATTENTION_KERNEL_COUNT] = {{{false}}};
        assert_int_equal(sweep.sizes[s].micro_batch, fixture->request.micro_batches[s]);
        for (size_t i = 0; i < sweep.sizes[s].setting_count; i++) {
            struct chain_setting setting = sweep.sizes[s].settings[i].setting;
            bool *is_seen = &seen[setting.precision][setting.recompute][setting.attention];
            assert_false(*is_seen);
            *is_seen = true;
            assert_int_equal(setting.with_head, setting.recompute == RECOMPUTE_NONE &&
                                                    setting.attention == ATTENTION_PLAIN);
        }
    }
    fixture_close(fixture);
}

static void test_sweep__leaves_out_precisions_without_a_rate(void **state)
{
    (void)state;
    static const double rates[PRECISION_COUNT] = {1e10, 0};
    struct fixture *fixture = fixture_open();
    struct sweep sweep;
    struct error err;
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, rates, 1e9, &err), STATUS_OK);
    assert_int_equal(sweep_pieces(&sweep), 3 * MODE_COUNT);
    for (size_t i = 0; i < sweep.sizes[0].setting_count; i++)
        assert_int_equal(sweep.sizes[0].settings[i].setting.precision, PRECISION_FP32);
    fixture_close(fixture);
}

/* Spending each share of what is left in turn uses up everything. */
static void test_sweep__shares_use_up_the_time(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open();
    struct sweep sweep;
    struct error err;
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, 1e9, &err), STATUS_OK);
    double left_s = 10, total_estimate_s = 0;
    for (size_t s = 0; s < sweep.size_count; s++)
        for (size_t i = 0; i < sweep.sizes[s].setting_count; i++)
            total_estimate_s += sweep.sizes[s].settings[i].estimate_s;
    for (size_t s = 0; s < sweep.size_count; s++) {
        for (size_t i = 0; i < sweep.sizes[s].setting_count; i++) {
            double spent_s = left_s * sweep_share(&sweep, s, i);
            double fair_s = 10 * sweep.sizes[s].settings[i].estimate_s / total_estimate_s;
            assert_near(spent_s, fair_s, 1e-9);
            left_s -= spent_s;
        }
    }
    assert_near(left_s, 0, 1e-9);
    fixture_close(fixture);
}

static void test_sweep__keeps_to_the_memory_limit(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open();
    struct sweep sweep;
    struct error err;
    struct chain_setting largest = {
        .precision = PRECISION_FP32, .micro_batch = 32, .split = {.ways = 1}, .with_head = true};
    uint64_t all_bytes =
        chain_static_bytes(&fixture->chain) + chain_activation_bytes(&fixture->chain, largest);
    fixture->session.memory_limit_bytes = all_bytes;
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, 1e9, &err), STATUS_OK);
    assert_int_equal(sweep_pieces(&sweep), 3 * RATE_COUNT * MODE_COUNT);
    assert_int_equal(fixture->heard->warning_count, 0);

    fixture->session.memory_limit_bytes = all_bytes - 1;
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, 1e9, &err), STATUS_OK);
    assert_int_equal(sweep_pieces(&sweep), 3 * RATE_COUNT * MODE_COUNT - 1);
    assert_int_equal(fixture->heard->warning_count, 1);
    assert_non_null(strstr(fixture->heard->warnings[0], "micro-batch 32 in fp32"));

    fixture->session.memory_limit_bytes = 1024;
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, 1e9, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "1.00 KiB"));
    fixture_close(fixture);
}

static void test_sweep__automatic_sizes_fit_the_time(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open();
    struct sweep sweep;
    struct error err;
    fixture->request.micro_batch_count = 0;
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, 1e9, &err), STATUS_OK);
    assert_true(sweep.is_automatic);
    size_t all = sweep.size_count;
    assert_true(all >= 4);
    double needed_s = 0;
    for (size_t i = 0; i < all; i++) {
        assert_int_equal(sweep.sizes[i].micro_batch, INT64_C(1) << i);
        needed_s += sweep_minimum_s(&sweep, &sweep.sizes[i]);
    }
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, needed_s * 1.001, &err), STATUS_OK);
    assert_int_equal(sweep.size_count, all);
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, needed_s * 0.999, &err), STATUS_OK);
    assert_int_equal(sweep.size_count, all - 1);
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, 0, &err), STATUS_OK);
    assert_int_equal(sweep.size_count, 1); /* one size always is measured */
    fixture_close(fixture);
}

static void test_sweep__a_chain_shrinks_to_its_limit(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open();
    struct chain small;
    struct error err;
    assert_int_equal(fixture->chain.model.blocks, fixture->model.blocks);
    uint64_t limit = chain_static_bytes(&fixture->chain) - 1;
    assert_int_equal(chain_open(&small, &fixture->session, true, limit, &err), STATUS_OK);
    assert_int_equal(small.model.blocks, fixture->model.blocks - 1);
    assert_true(chain_static_bytes(&small) <= limit);
    chain_close(&small);
    chain_close(&small); /* nothing is left to free */
    fixture_close(fixture);
}

/* Whole layers, then both ways to share them for each number of ways that divides the ranks. */
static void test_sweep__splits_divide_the_ranks(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open();
    struct sweep sweep;
    struct error err;
    size_t found = 0;
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, 1e9, &err), STATUS_OK);
    for (int ways = 1; ways <= comm_size(comm); ways++) {
        for (int sp = 0; sp <= (ways > 1) && comm_size(comm) % ways == 0; sp++) {
            assert_true(found < sweep.split_count);
            assert_int_equal(sweep.splits[found].ways, ways);
            assert_int_equal(sweep.splits[found++].sequence_parallel, sp);
        }
    }
    assert_int_equal(sweep.split_count, found);
    fixture_close(fixture);
}

/* Of five sizes, parts at the first two and the fourth; whole layers at all. */
static void test_sweep__parts_are_measured_at_fewer_sizes(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open();
    struct sweep sweep;
    struct error err;
    for (size_t i = 0; i < 5; i++)
        fixture->request.micro_batches[i] = (int64_t)i + 1;
    fixture->request.micro_batch_count = 5;
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, 1e9, &err), STATUS_OK);
    assert_int_equal(sweep.size_count, 5);
    for (size_t s = 0; s < 5; s++) {
        size_t splits = s == 2 || s == 4 ? 1 : sweep.split_count;
        assert_int_equal(sweep.sizes[s].setting_count, splits * RATE_COUNT * MODE_COUNT);
        for (size_t i = 0; i < sweep.sizes[s].setting_count; i++) {
            struct sweep_setting *planned = &sweep.sizes[s].settings[i];
            assert_int_equal(planned->split, i / (RATE_COUNT * MODE_COUNT));
            assert_int_equal(planned->setting.split.ways, sweep.splits[planned->split].ways);
        }
    }
    fixture_close(fixture);
}

/* Tokens that do not divide by the ways cannot be shared between ranks. */
static void test_sweep__sequence_parallel_parts_share_whole_tokens(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open();
    struct sweep sweep;
    struct error err;
    fixture->chain.model.seq_length = 31;
    fixture->request.micro_batches[1] = 2;
    fixture->request.micro_batch_count = 2;
    assert_int_equal(sweep_plan(&sweep, &fixture->chain, RATES, 1e9, &err), STATUS_OK);
    for (size_t s = 0; s < 2; s++) {
        for (size_t i = 0; i < sweep.sizes[s].setting_count; i++) {
            struct chain_setting setting = sweep.sizes[s].settings[i].setting;
            if (setting.split.sequence_parallel)
                assert_int_equal(setting.micro_batch * 31 % setting.split.ways, 0);
        }
    }
    fixture->chain.model.seq_length = fixture->model.seq_length;
    fixture_close(fixture);
}

static void expect_finite(const struct chain *chain, const float *values, double least)
{
    const struct chain_layer *block = &chain->layers[1];
    double largest = 0;
    for (uint64_t i = 0; i < block->count; i++) {
        assert_true(isfinite(values[block->first + i]));
        largest = fmax(largest, fabs((double)values[block->first + i]));
    }
    assert_true(largest > least && largest < 1.0);
}

/* Over many passes no value may run away or vanish, or the time of denormal or infinite numbers
 * would be measured: without the head, and in parts. */
static void test_sweep__repeated_passes_stay_finite(void **state)
{
    (void)state;
    static const struct chain_setting settings[] = {
        {PRECISION_FP32, RECOMPUTE_FULL, ATTENTION_PLAIN, 2, {.ways = 1}, false},
        {PRECISION_FP32, RECOMPUTE_FULL, ATTENTION_PLAIN, 2, {.ways = 2}, false},
        {PRECISION_FP32, RECOMPUTE_SELECTIVE, ATTENTION_PLAIN, 2, {2, true}, false},
        {PRECISION_FP16, RECOMPUTE_NONE, ATTENTION_PLAIN, 2, {2, true}, false},
    };
    struct error err;
    struct chain_time times[64];
    int64_t update_ns[64];
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        if (comm_size(comm) % settings[i].split.ways != 0)
            continue;
        struct fixture *fixture = fixture_open();
        struct chain *chain = &fixture->chain;
        assert_true(chain->layer_count < sizeof(times) / sizeof(times[0]));
        assert_int_equal(chain_reserve(chain, chain_activation_bytes(chain, settings[i]), &err),
                         STATUS_OK);
        assert_int_equal(chain_bind(chain, settings[i], &err), STATUS_OK);
        for (int pass = 0; pass < 200; pass++) {
            bool is_fp16 = settings[i].precision == PRECISION_FP16;
            enum precision copy = is_fp16 ? PRECISION_FP16 : PRECISION_BF16;
            struct chain_update update = {settings[i].split.ways,
                                          pass % 2 == 0 ? copy : PRECISION_FP32, pass + 1};
            assert_int_equal(chain_forward(chain, times, &err), STATUS_OK);
            assert_int_equal(chain_backward(chain, pass % 4 != 0, NULL, times, &err), STATUS_OK);
            chain_optimize(chain, &update, update_ns);
        }
        expect_finite(chain, chain->gradients, 1e-8);
        fixture_close(fixture);
    }
}

/* Heads that do not divide: attention is left out of the pass, the others are timed. */
static void test_sweep__a_kind_that_cannot_be_split_takes_no_part(void **state)
{
    (void)state;
    if (comm_size(comm) != 4)
        skip();
    struct fixture *fixture = fixture_open();
    struct chain *chain = &fixture->chain;
    struct chain_setting setting = {
        .precision = PRECISION_FP32, .micro_batch = 1, .split = {4, true}, .with_head = true};
    struct chain_update update = {.ways = 4, .time = 1};
    struct error err;
    struct chain_time forward[64], backward[64];
    int64_t update_ns[64];
    assert_int_equal(fixture->model.heads, 2);
    assert_int_equal(chain_reserve(chain, chain_activation_bytes(chain, setting), &err), STATUS_OK);
    assert_int_equal(chain_bind(chain, setting, &err), STATUS_OK);
    assert_int_equal(chain_forward(chain, forward, &err), STATUS_OK);
    assert_int_equal(chain_backward(chain, false, NULL, backward, &err), STATUS_OK);
    chain_optimize(chain, &update, update_ns);
    for (size_t i = 0; i < chain->layer_count; i++) {
        bool expected = chain->layers[i].kind != LAYER_ATTENTION;
        assert_int_equal(chain->layers[i].takes_part, expected);
        assert_int_equal(forward[i].compute > 0, expected);
        assert_int_equal(backward[i].compute > 0, expected);
        assert_int_equal(forward[i].exchange > 0, expected);
        assert_int_equal(backward[i].exchange > 0, expected);
        assert_int_equal(update_ns[i] > 0, expected);
    }
    assert_true(update_ns[chain->layer_count] > 0); /* a tied head that owns its table */
    fixture_close(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sweep__has_every_precision_and_recompute_mode),
        cmocka_unit_test(test_sweep__leaves_out_precisions_without_a_rate),
        cmocka_unit_test(test_sweep__shares_use_up_the_time),
        cmocka_unit_test(test_sweep__keeps_to_the_memory_limit),
        cmocka_unit_test(test_sweep__automatic_sizes_fit_the_time),
        cmocka_unit_test(test_sweep__a_chain_shrinks_to_its_limit),
        cmocka_unit_test(test_sweep__repeated_passes_stay_finite),
        cmocka_unit_test(test_sweep__a_kind_that_cannot_be_split_takes_no_part),
    };
    const struct CMUnitTest any_ranks[] = {
        cmocka_unit_test(test_sweep__splits_divide_the_ranks),
        cmocka_unit_test(test_sweep__parts_are_measured_at_fewer_sizes),
        cmocka_unit_test(test_sweep__sequence_parallel_parts_share_whole_tokens),
    };
    struct error err;
    if (comm_open(&comm, &err) != STATUS_OK)
        return 1;
    int failed = cmocka_run_group_tests(any_ranks, NULL, NULL);
    if (comm_size(comm) == 1)
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(comm);
    return failed;
}
