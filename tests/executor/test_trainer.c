/* One training, many plans: what a plan may change (recompute, micro-batch, threads, ranks) must
 * not change what is learnt. Run alone, and under mpirun with 2 and 3 ranks. */
#include "trained.h"

#include "base/file.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

enum { STEPS = 6 };

static struct comm *world;

static const struct trained_case base_case = {.model = "gpt2",
                                              .data_parallel = 1,
                                              .threads = 1,
                                              .global_batch = 12,
                                              .micro_batch = 12,
                                              .learning_rate = 3e-3,
                                              .clip_norm = 1};

static const char *const models[] = {"gpt2", "llama"};

struct outcome {
    double losses[STEPS];
    struct trained_state state; /* at rank 0 */
};

static void train(const struct trained_case *what, struct comm *comm, struct outcome *out)
{
    struct trained trained;
    char folder[64];
    trained_folder(comm, folder);
    trained_open(&trained, what, comm);
    trained_steps(&trained, STEPS, out->losses);
    trained_read(&trained, folder, &out->state);
    trained_close(&trained);
}

/* Weights of `what` over `comm` against the base case of the same model on one rank. */
static void assert_same_training(const struct trained_case *what, struct comm *comm,
                                 double loss_tolerance, double weight_tolerance)
{
    struct outcome expected = {0}, got = {0};
    struct comm *alone = NULL;
    struct error err = {0};
    struct trained_case reference = base_case;
    reference.model = what->model;
    reference.mode.attention = what->mode.attention;
    assert_int_equal(comm_open_alone(&alone, &err), STATUS_OK);
    train(&reference, alone, &expected);
    train(what, comm, &got);
    for (int i = 0; i < STEPS; i++)
        assert_true(fabs(got.losses[i] / expected.losses[i] - 1) <= loss_tolerance);
    if (comm_rank(comm) == 0)
        assert_true(trained_distance(&got.state, &expected.state) <= weight_tolerance);
    trained_state_clear(&expected.state);
    trained_state_clear(&got.state);
    comm_close(alone);
}

static void test_trainer__loss_falls(void **state)
{
    (void)state;
    for (size_t m = 0; m < 2; m++) {
        struct trained_case what = base_case;
        struct trained trained;
        struct comm *alone = NULL;
        struct error err = {0};
        double losses[40];
        what.model = models[m];
        assert_int_equal(comm_open_alone(&alone, &err), STATUS_OK);
        trained_open(&trained, &what, alone);
        trained_steps(&trained, 40, losses);
        /* Untrained: near the uniform guess over 256 bytes. */
        assert_true(fabs(losses[0] - log(256)) < 0.3);
        assert_true(losses[39] < 0.75 * losses[0]);
        double validation = 0;
        assert_int_equal(trainer_evaluate(trained.trainer, 0, &validation, &err), STATUS_OK);
        assert_true(fabs(validation / losses[39] - 1) < 0.15);
        trained_close(&trained);
        comm_close(alone);
    }
}

static void test_trainer__recompute_changes_no_bit(void **state)
{
    (void)state;
    enum { MODES = RECOMPUTE_COUNT * ATTENTION_KERNEL_COUNT };
    for (size_t m = 0; m < 2; m++)
        for (int mode = 0; mode < MODES; mode++) {
            struct trained_case what = base_case;
            what.model = models[m];
            what.mode.recompute = (enum recompute)(mode % RECOMPUTE_COUNT);
            what.mode.attention = (enum attention_kernel)(mode / RECOMPUTE_COUNT);
            if (what.mode.recompute == RECOMPUTE_NONE)
                continue;
            struct comm *alone = NULL;
            struct error err = {0};
            assert_int_equal(comm_open_alone(&alone, &err), STATUS_OK);
            assert_same_training(&what, alone, 0, 0);
            comm_close(alone);
        }
}

/* Sums are taken in another order: rounding of fp32 over a few hundred terms a step. */
static const double loss_rounding = 2e-6, weight_rounding = 2e-5;

static void test_trainer__accumulation_equals_the_full_batch(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 4, 6};
    for (size_t m = 0; m < 2; m++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct trained_case what = base_case;
            struct comm *alone = NULL;
            struct error err = {0};
            what.model = models[m];
            what.micro_batch = sizes[i];
            assert_int_equal(comm_open_alone(&alone, &err), STATUS_OK);
            assert_same_training(&what, alone, loss_rounding, weight_rounding);
            comm_close(alone);
        }
}

/* 512 tokens of 65536 logits are two chunks of the head (ir/layer.h), 256 are one. */
static void test_trainer__chunks_of_the_head_change_rounding_only(void **state)
{
    (void)state;
    struct trained_case what = base_case;
    struct comm *alone = NULL;
    struct error err = {0};
    struct outcome expected = {0}, got = {0};
    what.vocab = 65536;
    what.seq_length = HEAD_CHUNK_TOKENS;
    what.global_batch = what.micro_batch = 2;
    assert_int_equal(comm_open_alone(&alone, &err), STATUS_OK);
    train(&what, alone, &got);
    what.micro_batch = 1;
    train(&what, alone, &expected);
    for (int i = 0; i < STEPS; i++)
        assert_true(fabs(got.losses[i] / expected.losses[i] - 1) <= loss_rounding);
    assert_true(fabs(got.losses[0] / log(65536) - 1) < 0.05);
    assert_true(trained_distance(&got.state, &expected.state) <= weight_rounding);
    trained_state_clear(&expected.state);
    trained_state_clear(&got.state);
    comm_close(alone);
}

static void test_trainer__threads_change_rounding_only(void **state)
{
    (void)state;
    struct trained_case what = base_case;
    struct comm *alone = NULL;
    struct error err = {0};
    what.threads = 2;
    assert_int_equal(comm_open_alone(&alone, &err), STATUS_OK);
    assert_same_training(&what, alone, loss_rounding, weight_rounding);
    comm_close(alone);
}

static void test_trainer__ranks_change_rounding_only(void **state)
{
    (void)state;
    for (size_t m = 0; m < 2; m++) {
        struct trained_case what = base_case;
        what.model = models[m];
        what.data_parallel = comm_size(world);
        what.micro_batch = what.global_batch / what.data_parallel / 2;
        assert_same_training(&what, world, loss_rounding, weight_rounding);
    }
}

static void test_trainer__bf16_stays_near_fp32(void **state)
{
    (void)state;
    struct device *device = NULL;
    struct error err = {0};
    assert_int_equal(device_open(&device, 1, &err), STATUS_OK);
    bool supported = device_supports(device, PRECISION_BF16);
    device_close(device);
    if (!supported)
        skip();
    for (size_t m = 0; m < 2; m++) {
        struct trained_case what = base_case;
        struct comm *alone = NULL;
        what.model = models[m];
        what.mode.precision = PRECISION_BF16;
        assert_int_equal(comm_open_alone(&alone, &err), STATUS_OK);
        /* Unit roundoff of bf16 is 2^-8; losses are means over hundreds of tokens. */
        assert_same_training(&what, alone, 1.0 / 256, 4.0 / 256);
        comm_close(alone);
    }
}

/* Do both trainings hold the same bits? Collective. */
static void assert_same_bits(struct trained *a, struct trained *b)
{
    struct trained_state expected, got;
    char folder[64];
    trained_folder(a->comm, folder);
    trained_read(a, folder, &expected);
    trained_read(b, folder, &got);
    assert_int_equal(expected.count, got.count);
    for (size_t i = 0; i < expected.count; i++) {
        const struct trained_tensor *x = &expected.tensors[i], *y = &got.tensors[i];
        assert_memory_equal(x->weights, y->weights, x->count * sizeof *x->weights);
        assert_memory_equal(x->first_moment, y->first_moment, x->count * sizeof *x->first_moment);
    }
    trained_state_clear(&expected);
    trained_state_clear(&got);
}

/* Save after three steps, go on to six; load the three, go on to six: the same bits. */
static void assert_resumes(const struct trained_case *what)
{
    struct trained whole, resumed;
    struct error err = {0};
    char folder[64];
    double losses[3], resumed_losses[3];
    trained_folder(world, folder);
    trained_open(&whole, what, world);
    trained_steps(&whole, 3, NULL);
    assert_int_equal(trainer_save_checkpoint(whole.trainer, folder, 1, &err), STATUS_OK);
    trained_steps(&whole, 3, losses);
    trained_open(&resumed, what, world);
    assert_int_equal(trainer_load_checkpoint(resumed.trainer, folder, &err), STATUS_OK);
    assert_int_equal(trainer_step_count(resumed.trainer), 3);
    trained_steps(&resumed, 3, resumed_losses);
    assert_memory_equal(losses, resumed_losses, sizeof losses);
    assert_same_bits(&whole, &resumed);
    trained_close(&whole);
    trained_close(&resumed);
    if (comm_rank(world) == 0)
        assert_int_equal(folder_remove(folder, &err), STATUS_OK);
}

static void test_trainer__resume_is_bit_exact(void **state)
{
    (void)state;
    struct trained_case what = base_case;
    what.data_parallel = comm_size(world);
    what.micro_batch = 2;
    assert_resumes(&what);
}

/* The same where what is saved lies in shards, parts and stages. */
static void test_trainer__resume_is_bit_exact_under_splits(void **state)
{
    (void)state;
    if (comm_size(world) != 2)
        return;
    struct trained_case what = base_case;
    what.micro_batch = 2;
    what.data_parallel = 2;
    for (what.zero_stage = 1; what.zero_stage <= 3; what.zero_stage++)
        assert_resumes(&what);
    what.zero_stage = 0;
    what.data_parallel = 1;
    what.tensor_parallel = 2;
    assert_resumes(&what);
    what.tensor_parallel = 1;
    what.pipeline = 2;
    assert_resumes(&what);
}

/* A learning rate that throws the weights to infinity: steps are skipped, counted, then refused. */
static void test_trainer__nan_is_skipped_counted_and_stopped(void **state)
{
    (void)state;
    struct trained_case what = base_case;
    struct trained trained;
    struct comm *alone = NULL;
    struct error err = {0};
    struct step_result result = {0};
    what.learning_rate = 1e38;
    assert_int_equal(comm_open_alone(&alone, &err), STATUS_OK);
    trained_open(&trained, &what, alone);
    enum status status = STATUS_OK;
    int steps = 0;
    while (status == STATUS_OK && steps < 20) {
        status = trainer_step(trained.trainer, &result, &err);
        steps++;
    }
    assert_int_equal(status, STATUS_FAILED);
    assert_true(result.skipped);
    assert_int_equal(trainer_skipped_count(trained.trainer), 3);
    assert_non_null(strstr(err.message, "not finite for 3 steps in a row"));
    trained_close(&trained);
    comm_close(alone);
}

int main(void)
{
    const struct CMUnitTest alone[] = {
        cmocka_unit_test(test_trainer__loss_falls),
        cmocka_unit_test(test_trainer__recompute_changes_no_bit),
        cmocka_unit_test(test_trainer__accumulation_equals_the_full_batch),
        cmocka_unit_test(test_trainer__chunks_of_the_head_change_rounding_only),
        cmocka_unit_test(test_trainer__threads_change_rounding_only),
        cmocka_unit_test(test_trainer__bf16_stays_near_fp32),
        cmocka_unit_test(test_trainer__resume_is_bit_exact),
        cmocka_unit_test(test_trainer__nan_is_skipped_counted_and_stopped),
    };
    const struct CMUnitTest together[] = {
        cmocka_unit_test(test_trainer__ranks_change_rounding_only),
        cmocka_unit_test(test_trainer__resume_is_bit_exact),
        cmocka_unit_test(test_trainer__resume_is_bit_exact_under_splits),
    };
    struct error err = {0};
    if (comm_open(&world, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    int failed = comm_size(world) > 1 ? cmocka_run_group_tests(together, NULL, NULL)
                                      : cmocka_run_group_tests(alone, NULL, NULL);
    comm_close(world);
    return failed;
}
