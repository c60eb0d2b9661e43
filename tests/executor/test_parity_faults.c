/* Bugs that a parity test is there for, planted one at a time: the same training as test_parity.c's
 * must then leave its bounds by far. Run under mpirun with 2 ranks. */
#include "parity_comm.h"
#include "parity_run.h"

#include "ir/state.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static const double comparisons = 1e5;

static struct comm *world;
static char data_path[64];

struct planted {
    const char *name, *model;
    int data_parallel, tensor_parallel, pipeline;
    int zero_stage;
    enum fault_kind kind;
    enum fault_group group;
    enum gradient_reduction gradients;
};

static const struct planted missing[] = {
    {"missing all-reduce", "gpt2", 2, 1, 1, 0, FAULT_MISSING, FAULT_DATA, GRADIENTS_FP32},
    {"missing all-reduce", "llama", 2, 1, 1, 0, FAULT_MISSING, FAULT_DATA, GRADIENTS_FP32},
    {"missing reduce-scatter, ZeRO 1", "gpt2", 2, 1, 1, 1, FAULT_MISSING, FAULT_DATA,
     GRADIENTS_FP32},
    {"missing reduce-scatter, ZeRO 3", "llama", 2, 1, 1, 3, FAULT_MISSING, FAULT_DATA,
     GRADIENTS_FP32},
    {"missing all-reduce in bf16", "gpt2", 2, 1, 1, 0, FAULT_MISSING, FAULT_DATA, GRADIENTS_BF16},
    {"missing reduce-scatter in bf16, ZeRO 1", "llama", 2, 1, 1, 1, FAULT_MISSING, FAULT_DATA,
     GRADIENTS_BF16},
    {"missing reduce-scatter in bf16, ZeRO 2", "gpt2", 2, 1, 1, 2, FAULT_MISSING, FAULT_DATA,
     GRADIENTS_BF16},
    {"missing sum of a split layer", "gpt2", 1, 2, 1, 0, FAULT_MISSING, FAULT_TENSOR,
     GRADIENTS_FP32},
    {"missing sum of a split layer", "llama", 1, 2, 1, 0, FAULT_MISSING, FAULT_TENSOR,
     GRADIENTS_FP32},
};
static const struct planted once[] = {
    {"one layer not reduced in one step", "gpt2", 2, 1, 1, 0, FAULT_ONE, FAULT_DATA,
     GRADIENTS_FP32},
    {"one layer not reduced in one step", "llama", 2, 1, 1, 2, FAULT_ONE, FAULT_DATA,
     GRADIENTS_FP32},
    {"one layer not reduced in bf16 in one step", "gpt2", 2, 1, 1, 0, FAULT_ONE, FAULT_DATA,
     GRADIENTS_BF16},
};
static const struct planted scaled[] = {
    {"gradient scaled by dp", "gpt2", 2, 1, 1, 0, FAULT_SCALED, FAULT_DATA, GRADIENTS_FP32},
    {"gradient scaled by dp, ZeRO 2", "llama", 2, 1, 1, 2, FAULT_SCALED, FAULT_DATA,
     GRADIENTS_FP32},
    {"gradient in bf16 scaled by dp", "gpt2", 2, 1, 1, 0, FAULT_SCALED, FAULT_DATA, GRADIENTS_BF16},
};
static const struct planted stale[] = {
    {"stale tied embedding", "gpt2", 1, 1, 2, 0, FAULT_MISSING, FAULT_TABLE, GRADIENTS_FP32},
    {"stale tied embedding in bf16", "gpt2", 1, 1, 2, 0, FAULT_MISSING, FAULT_TABLE,
     GRADIENTS_BF16},
};

static struct parity_case case_of(const struct planted *planted, enum precision precision)
{
    struct parity_case what = {.model = planted->model, .ranks = 2};
    what.value[PARITY_MESH] =
        parity_mesh(planted->data_parallel, planted->tensor_parallel, planted->pipeline);
    what.value[PARITY_SCHEDULE] = SCHEDULE_1F1B;
    what.value[PARITY_ZERO] = planted->zero_stage;
    what.value[PARITY_PRECISION] = (int)precision;
    what.value[PARITY_MICRO_BATCH] = 2; /* 4 sequences */
    what.value[PARITY_GRADIENTS] = (int)planted->gradients;
    return what;
}

/* The largest ratio of any difference to its bound, at rank 0. */
static double run(const struct parity_case *what, struct fault *fault,
                  const struct parity_device *device, struct parity_verdict *verdict)
{
    struct plan plan, trained_plan;
    struct parity_outcome outcome;
    struct comm *faulty = NULL;
    struct error err = {0};
    assert_int_equal(parity_plan(&plan, what, &err), STATUS_OK);
    assert_int_equal(parity_plan(&trained_plan, what, &err), STATUS_OK);
    assert_int_equal(comm_open_faulty(&faulty, world, &plan, fault, &err), STATUS_OK);
    parity_train(&outcome, &trained_plan, data_path, faulty);
    comm_close(faulty);
    plan_clear(&plan);
    if (comm_rank(world) == 0)
        parity_compare(device, &outcome, verdict);
    parity_outcome_clear(&outcome);
    return comm_rank(world) == 0 ? parity_worst(verdict) : 0;
}

static void assert_caught(const struct planted *planted, enum precision precision,
                          double least_factor)
{
    const struct parity_case what = case_of(planted, precision);
    struct parity_device device = {0};
    struct parity_verdict verdict = {0};
    struct fault none = {.kind = FAULT_NONE};
    struct fault fault = {.kind = planted->kind, .group = planted->group};
    if (comm_rank(world) == 0)
        parity_device_open(&device, &what, data_path, comparisons);
    double sound = run(&what, &none, &device, &verdict);
    double factor = run(&what, &fault, &device, &verdict);
    assert_true(fault.planted > 0);
    if (comm_rank(world) != 0)
        return;
    char text[96];
    snprintf(text, sizeof text, "%s %s: %s", planted->model, precision_name(precision),
             planted->name);
    parity_print(stdout, &verdict, text);
    if (!(sound <= 1 && factor >= least_factor))
        fail_msg("%s: %g of the bound without the fault, %g with it; at least %g expected", text,
                 sound, factor, least_factor);
    parity_device_close(&device);
}

static bool supports(enum precision precision)
{
    struct device *device = NULL;
    struct error err = {0};
    assert_int_equal(device_open(&device, 1, &err), STATUS_OK);
    bool supported = device_supports(device, precision);
    device_close(device);
    return supported;
}

/* Does any layer's gradient stand in what was planted? */
static bool is_reached(const struct planted *planted, enum precision precision)
{
    const struct parity_case what = case_of(planted, precision);
    struct plan plan;
    struct error err = {0};
    bool reached = planted->gradients == GRADIENTS_FP32;
    assert_int_equal(parity_plan(&plan, &what, &err), STATUS_OK);
    for (size_t i = 0; i < plan.layer_count && !reached; i++)
        reached = layer_gradient_precision(&plan, i) == PRECISION_BF16;
    plan_clear(&plan);
    return reached;
}

/* How far a fault must leave the bounds. It changes gradients by about their own size; what bounds
 * allow is 3e-5 of it in fp32, 2e-2 in fp16 and where gradients are in bf16, 0.2 in bf16. */
static void assert_all_caught(const struct planted *planted, size_t count)
{
    static const double least_factors[PRECISION_COUNT] = {
        [PRECISION_FP32] = 100, [PRECISION_BF16] = 1.5, [PRECISION_FP16] = 5};
    for (int p = 0; p < PRECISION_COUNT; p++)
        for (size_t i = 0; i < count && supports((enum precision)p); i++) {
            if (!is_reached(&planted[i], (enum precision)p))
                continue;
            assert_caught(&planted[i], (enum precision)p,
                          planted[i].gradients == GRADIENTS_BF16
                              ? fmin(least_factors[p], least_factors[PRECISION_FP16])
                              : least_factors[p]);
        }
}

static void test_parity_faults__missing_sum(void **state)
{
    (void)state;
    assert_all_caught(missing, sizeof missing / sizeof missing[0]);
}

static void test_parity_faults__gradient_scaled_by_dp(void **state)
{
    (void)state;
    assert_all_caught(scaled, sizeof scaled / sizeof scaled[0]);
}

static void test_parity_faults__stale_tied_embedding(void **state)
{
    (void)state;
    assert_all_caught(stale, sizeof stale / sizeof stale[0]);
}

/* The least that can go wrong: tensor by tensor it is still seen. */
static void test_parity_faults__one_layer_in_one_step(void **state)
{
    (void)state;
    assert_all_caught(once, sizeof once / sizeof once[0]);
}

static void share_data(void)
{
    struct error err = {0};
    if (comm_rank(world) == 0)
        write_tokens(data_path, 20000, 251);
    assert_int_equal(comm_broadcast(world, data_path, sizeof data_path, 0, &err), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity_faults__missing_sum),
        cmocka_unit_test(test_parity_faults__gradient_scaled_by_dp),
        cmocka_unit_test(test_parity_faults__stale_tied_embedding),
        cmocka_unit_test(test_parity_faults__one_layer_in_one_step),
    };
    struct error err = {0};
    if (comm_open(&world, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (comm_size(world) != 2) {
        comm_close(world);
        return 0;
    }
    share_data();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (comm_rank(world) == 0)
        unlink(data_path);
    comm_close(world);
    return failed;
}
