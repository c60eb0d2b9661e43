/* A training that is saved under one plan and goes on under another, also on another number of
 * ranks: what is loaded is what was saved, tensor by tensor, and the losses, gradient norms and
 * weights afterwards keep the bounds of docs/parity.md against one device that never stopped. Run
 * alone, and under mpirun with 2 and 4 ranks. */
#include "base/file.h"
#include "base/hash.h"
#include "base/rng.h"
#include "parity_run.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

enum { PAIRS = 12, ATTEMPTS_MAX = 40 };

/* As in test_parity.c: these are fewer. */
static const double comparisons = 1e5;

static struct comm *world, *alone;
static char data_path[64];

static bool is_first(void)
{
    return comm_rank(world) == 0;
}

/* ---- pairs of plans ---- */

/* Where a half of the training runs: on all ranks, or on the first of them alone. */
struct half {
    struct parity_case what;
    struct comm *comm;
};

static bool takes_part(const struct half *half)
{
    return half->comm == world || is_first();
}

static bool is_supported(const struct parity_case *what)
{
    struct plan plan;
    struct device *device = NULL;
    struct error err = {0};
    bool supported = true;
    assert_int_equal(parity_plan(&plan, what, &err), STATUS_OK);
    assert_int_equal(device_open(&device, 1, &err), STATUS_OK);
    for (size_t i = 0; i < plan.layer_count; i++)
        supported = supported && device_supports(device, plan.layers[i].precision);
    device_close(device);
    plan_clear(&plan);
    return supported;
}

static struct half random_half(const struct parity_cases *cases, struct comm *comm, int precision,
                               uint64_t seed)
{
    for (uint64_t i = 0;; i++) {
        const struct parity_case *what = &cases->rows[rng_below(seed, 7, i, cases->count)];
        if (what->value[PARITY_PRECISION] == precision)
            return (struct half){*what, comm};
    }
}

/* ---- one training in two halves ---- */

static void open_half(struct trained *out, const struct half *half,
                      const struct parity_device *device)
{
    const struct parity_training *training = &device->training;
    double learning_rate = training->steps[0].learning_rate; /* the same in every step */
    const struct optimizer_options optimizer = {
        .learning_rate = learning_rate,
        .min_learning_rate = learning_rate,
        .beta1 = training->beta1,
        .beta2 = training->beta2,
        .epsilon = training->epsilon,
        .weight_decay = training->weight_decay,
        .clip_norm = training->clip_norm,
    };
    struct plan plan;
    struct error err = {0};
    assert_int_equal(parity_plan(&plan, &half->what, &err), STATUS_OK);
    trained_open_plan(out, &plan, data_path, &optimizer, half->comm);
}

static void do_steps(struct trained *trained, struct parity_outcome *outcome, int first, int end)
{
    for (int step = first; step < end; step++) {
        struct step_result result = {.skipped = true};
        struct error err = {0};
        while (result.skipped) {
            assert_true(outcome->attempts++ < ATTEMPTS_MAX);
            if (trainer_step(trained->trainer, &result, &err) != STATUS_OK)
                fail_msg("step %d: %s", step + 1, err.message);
        }
        outcome->steps[step] =
            (struct parity_step){result.learning_rate, result.loss, result.gradient_norm};
    }
}

/* Tensor by tensor: weights and both moments. */
static void assert_same_content(const struct trained_state *saved,
                                const struct trained_state *loaded)
{
    assert_int_equal(saved->count, loaded->count);
    for (size_t i = 0; i < saved->count; i++) {
        const struct trained_tensor *a = &saved->tensors[i], *b = &loaded->tensors[i];
        size_t bytes = a->count * sizeof(float);
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->count, b->count);
        if (hash_bytes(a->weights, bytes) != hash_bytes(b->weights, bytes) ||
            hash_bytes(a->first_moment, bytes) != hash_bytes(b->first_moment, bytes) ||
            hash_bytes(a->second_moment, bytes) != hash_bytes(b->second_moment, bytes))
            fail_msg("%s is not what was saved", a->name);
    }
}

/* Until `end` steps are done; the checkpoint goes to `folder`, what it holds to `saved`. */
static void train_first(const struct half *half, const struct parity_device *device,
                        const char *folder, int end, struct parity_outcome *outcome,
                        struct trained_state *saved)
{
    struct trained trained;
    char aside[64];
    struct error err = {0};
    trained_folder(half->comm, aside);
    open_half(&trained, half, device);
    do_steps(&trained, outcome, 0, end);
    trained_read(&trained, aside, saved);
    if (trainer_save_checkpoint(trained.trainer, folder, 1, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    trained_close(&trained);
}

static void train_second(const struct half *half, const struct parity_device *device,
                         const char *folder, int first, struct parity_outcome *outcome,
                         const struct trained_state *saved)
{
    struct trained trained;
    struct trained_state loaded;
    char aside[64];
    struct error err = {0};
    trained_folder(half->comm, aside);
    open_half(&trained, half, device);
    if (trainer_load_checkpoint(trained.trainer, folder, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    trained_read(&trained, aside, &loaded);
    if (is_first())
        assert_same_content(saved, &loaded);
    trained_state_clear(&loaded);
    do_steps(&trained, outcome, first, PARITY_STEPS);
    trained_read(&trained, aside, &outcome->state);
    trained_close(&trained);
}

/* The ratio to the bound at rank 0. */
static double train_in_two_halves(const struct half halves[2], const struct parity_device *device,
                                  int end)
{
    struct parity_outcome outcome = {0};
    struct parity_verdict verdict;
    struct trained_state saved = {0};
    struct error err = {0};
    char folder[64], names[2][PARITY_NAME_BYTES], line[3 * PARITY_NAME_BYTES];
    trained_folder(world, folder);
    if (takes_part(&halves[0]))
        train_first(&halves[0], device, folder, end, &outcome, &saved);
    assert_int_equal(comm_broadcast(world, outcome.steps, sizeof outcome.steps, 0, &err),
                     STATUS_OK);
    assert_int_equal(comm_broadcast(world, &outcome.attempts, sizeof outcome.attempts, 0, &err),
                     STATUS_OK);
    if (takes_part(&halves[1]))
        train_second(&halves[1], device, folder, end, &outcome, &saved);
    double ratio = 0;
    if (is_first()) {
        parity_compare(device, &outcome, &verdict);
        (void)snprintf(line, sizeof line, "%d of %d steps: %s, then %d: %s", end, PARITY_STEPS,
                       parity_case_name(&halves[0].what, names[0]), halves[1].what.ranks,
                       parity_case_name(&halves[1].what, names[1]));
        parity_print(stdout, &verdict, line);
        ratio = parity_worst(&verdict);
        assert_int_equal(folder_remove(folder, &err), STATUS_OK);
    }
    parity_outcome_clear(&outcome);
    trained_state_clear(&saved);
    assert_int_equal(comm_barrier(world, &err), STATUS_OK);
    return ratio;
}

static void check_model(const char *model)
{
    struct parity_cases all, single;
    struct error err = {0};
    assert_int_equal(parity_cases_all(&all, model, comm_size(world), &err), STATUS_OK);
    assert_int_equal(parity_cases_all(&single, model, 1, &err), STATUS_OK);
    for (uint64_t pair = 0; pair < PAIRS; pair++) {
        /* fp32, bf16, fp16; the third pair of each begins, the fourth ends on one rank. */
        int precision = (int)(pair % 3);
        bool alone_first = pair / 3 == 2, alone_then = pair / 3 == 3;
        const struct half halves[2] = {
            random_half(alone_first ? &single : &all, alone_first ? alone : world, precision,
                        2 * pair),
            random_half(alone_then ? &single : &all, alone_then ? alone : world, precision,
                        2 * pair + 1),
        };
        if (!is_supported(&halves[0].what))
            continue;
        struct parity_device device;
        const struct parity_case cases[2] = {halves[0].what, halves[1].what};
        parity_device_open(&device, &halves[0].what, data_path, comparisons);
        parity_device_expect(&device, cases, 2);
        double ratio = train_in_two_halves(halves, &device, 1 + (int)(pair / 3 % 2));
        parity_device_close(&device);
        if (ratio > 1)
            fail_msg("%s, pair %d: %.3f times its bound", model, (int)pair, ratio);
    }
    parity_cases_clear(&all);
    parity_cases_clear(&single);
}

static void test_parity_resume__gpt2_goes_on_under_any_plan(void **state)
{
    (void)state;
    check_model("gpt2");
}

static void test_parity_resume__llama_goes_on_under_any_plan(void **state)
{
    (void)state;
    check_model("llama");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity_resume__gpt2_goes_on_under_any_plan),
        cmocka_unit_test(test_parity_resume__llama_goes_on_under_any_plan),
    };
    struct error err = {0};
    if (comm_open(&world, &err) != STATUS_OK || comm_open_alone(&alone, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (is_first())
        write_tokens(data_path, 20000, 251);
    if (comm_broadcast(world, data_path, sizeof data_path, 0, &err) != STATUS_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (is_first())
        unlink(data_path);
    comm_close(alone);
    comm_close(world);
    return failed;
}
