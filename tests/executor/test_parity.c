/* Every split against one device: the same training under many plans, each loss, gradient norm and
 * tensor held to the bound that rounding explains (docs/parity.md). Run alone, and under mpirun
 * with 2, 4 and 8 ranks: each program runs the plans of its rank count and of one model,
 * PARITY_MODEL.
 *
 * By default a selection in which every two values meet; TEST_PARITY=COUNT takes that many plans.
 */
#include "parity_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

/* More than the 150 plans of two models, five quantities of each, up to 60 tensors. */
static const double comparisons = 1e5;

/* A mixture of precisions, too. */
enum { RUNS = (PRECISION_COUNT + 1) * GRADIENT_REDUCTION_COUNT * ATTENTION_KERNEL_COUNT };

static struct comm *world;
static char data_path[64];

/* Of one value each of PARITY_PRECISION, PARITY_GRADIENTS and PARITY_ATTENTION; at rank 0. */
struct precision_run {
    bool is_open;
    struct parity_device device;
    struct parity_verdict worst;
    int plans;
};

static bool supports(enum precision precision)
{
    struct device *device = NULL;
    struct error err = {0};
    assert_int_equal(device_open(&device, 1, &err), STATUS_OK);
    bool supported = device_supports(device, precision);
    device_close(device);
    return supported;
}

static bool plan_is_supported(const struct plan *plan)
{
    for (size_t i = 0; i < plan->layer_count; i++)
        if (!supports(plan->layers[i].precision))
            return false;
    return true;
}

static void keep_worst(struct parity_verdict *worst, const struct parity_verdict *verdict)
{
    for (int q = 0; q < PARITY_QUANTITIES; q++)
        if (verdict->of[q].ratio >= worst->of[q].ratio)
            worst->of[q] = verdict->of[q];
}

/* Rank 0's part: returns whether the plan kept its bounds. */
static bool judge(struct precision_run *run, const struct parity_case *what,
                  const struct parity_outcome *outcome)
{
    char name[PARITY_NAME_BYTES];
    struct parity_verdict verdict;
    if (!run->is_open)
        parity_device_open(&run->device, what, data_path, comparisons);
    run->is_open = true;
    parity_device_expect(&run->device, what, 1);
    parity_compare(&run->device, outcome, &verdict);
    parity_print(stdout, &verdict, parity_case_name(what, name));
    keep_worst(&run->worst, &verdict);
    run->plans++;
    return parity_worst(&verdict) <= 1;
}

static int run_of(const struct parity_case *what)
{
    int way =
        what->value[PARITY_PRECISION] * GRADIENT_REDUCTION_COUNT + what->value[PARITY_GRADIENTS];
    return way * ATTENTION_KERNEL_COUNT + what->value[PARITY_ATTENTION];
}

static void print_summary(const struct precision_run runs[RUNS])
{
    static const char *const names[] = {"fp32", "bf16", "fp16", "fp32+bf16"};
    for (int i = 0; i < RUNS; i++) {
        if (runs[i].plans == 0)
            continue;
        int kernel = i % ATTENTION_KERNEL_COUNT, way = i / ATTENTION_KERNEL_COUNT;
        printf("%s, gradients in %s, %s attention, %d plans on %d ranks:\n",
               names[way / GRADIENT_REDUCTION_COUNT],
               gradient_reduction_name((enum gradient_reduction)(way % GRADIENT_REDUCTION_COUNT)),
               attention_kernel_name((enum attention_kernel)kernel), runs[i].plans,
               comm_size(world));
        for (int q = 0; q < PARITY_QUANTITIES; q++) {
            const struct parity_finding *finding = &runs[i].worst.of[q];
            printf("  %-8s observed %9.2e  bound %9.2e  ratio %.4f  %s\n", parity_quantity_names[q],
                   finding->observed, finding->bound, finding->ratio, finding->where);
        }
    }
}

static void choose_cases(struct parity_cases *cases)
{
    const char *wanted = getenv("TEST_PARITY");
    struct error err = {0};
    if (parity_cases_all(cases, PARITY_MODEL, comm_size(world), &err) != STATUS_OK)
        fail_msg("%s", err.message);
    size_t count = parity_selection(comm_size(world));
    parity_cases_select(cases, wanted != NULL ? strtoul(wanted, NULL, 10) : count);
}

static void test_parity__every_plan_learns_what_one_device_learns(void **state)
{
    (void)state;
    struct precision_run runs[RUNS] = {0};
    struct parity_cases cases;
    size_t exceeded = 0, unsupported = 0;
    choose_cases(&cases);
    for (size_t i = 0; i < cases.count; i++) {
        struct plan plan;
        struct parity_outcome outcome;
        struct error err = {0};
        assert_int_equal(parity_plan(&plan, &cases.rows[i], &err), STATUS_OK);
        if (!plan_is_supported(&plan)) {
            unsupported++;
            plan_clear(&plan);
            continue;
        }
        parity_train(&outcome, &plan, data_path, world);
        if (comm_rank(world) == 0 &&
            !judge(&runs[run_of(&cases.rows[i])], &cases.rows[i], &outcome))
            exceeded++;
        parity_outcome_clear(&outcome);
    }
    if (comm_rank(world) == 0) {
        print_summary(runs);
        printf("%s: %zu plans, %zu beyond their bound, %zu without support on this device\n",
               PARITY_MODEL, cases.count, exceeded, unsupported);
    }
    for (int i = 0; i < RUNS; i++)
        if (runs[i].is_open)
            parity_device_close(&runs[i].device);
    parity_cases_clear(&cases);
    assert_int_equal(exceeded, 0);
}

/* One file for all ranks. */
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
        cmocka_unit_test(test_parity__every_plan_learns_what_one_device_learns),
    };
    struct error err = {0};
    if (comm_open(&world, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    share_data();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (comm_rank(world) == 0)
        unlink(data_path);
    comm_close(world);
    return failed;
}
