/* Gradients in bf16: the count of their roundings (docs/parity.md) against sums of random numbers,
 * and the first step of trainings, whose forward pass has the same bits as with fp32 gradients, so
 * that nothing but these roundings is between the two. Run alone, and under mpirun with 2 and 4
 * ranks. */
#include "base/rng.h"
#include "parity_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

/* Plans of a model, at least: as many more as it takes that every two values meet. */
enum { CASES = 12 };

static struct comm *world;
static char data_path[64];

static double draw_normal(void)
{
    static uint64_t drawn = 0;
    return rng_normal(3, 1, drawn++);
}

/* ---- sums ---- */

static double to_bf16(double x)
{
    int exponent;
    double fraction = frexp(x, &exponent);
    return ldexp(nearbyint(ldexp(fraction, 8)), exponent - 8);
}

/* Added up exactly, and as a gradient in bf16 is. */
struct added {
    double exact, rounded;
};

/* What one rank adds in a micro-batch, to `rounded`, of one part. */
static void add_micro_batch(int64_t chunks, double (*summand)(void), struct added *sum)
{
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        double value = summand();
        sum->exact += value;
        sum->rounded = to_bf16(sum->rounded + value);
    }
}

static double round_if(bool is_rounded, double value)
{
    return is_rounded ? to_bf16(value) : value;
}

/* One element, over `ranks`; of a table's copies one. */
static struct added add_up(const struct parity_gradient_sum *how, int ranks,
                           double (*summand)(void))
{
    struct added all = {0};
    for (int rank = 0; rank < ranks && how->zero_stage < 2; rank++) {
        struct added own = {0};
        for (int64_t micro_batch = 0; micro_batch < how->micro_batches; micro_batch++)
            for (int part = 0; part < how->parts; part++)
                add_micro_batch(part == 0 ? how->chunks : 1, summand, &own);
        all.exact += own.exact;
        all.rounded += own.rounded;
    }
    all.rounded = round_if(how->is_reduced, all.rounded);
    for (int64_t i = 0; i < how->micro_batches * how->parts && how->zero_stage >= 2; i++) {
        double scattered = 0;
        for (int rank = 0; rank < ranks; rank++) {
            struct added own = {0};
            add_micro_batch(i % how->parts == 0 ? how->chunks : 1, summand, &own);
            all.exact += own.exact;
            scattered += own.rounded;
        }
        all.rounded = round_if(i > 0, all.rounded + round_if(how->is_reduced, scattered));
    }
    return all;
}

/* The error of `ELEMENTS` of them, relative, root of the mean square. */
static double sum_error(const struct parity_gradient_sum *how, int ranks, double (*summand)(void))
{
    enum { ELEMENTS = 4000 };
    double error = 0, size = 0;
    for (int i = 0; i < ELEMENTS; i++) {
        struct added sum = add_up(how, ranks, summand);
        if (how->has_copies) {
            struct added other = add_up(how, ranks, summand);
            sum.exact += other.exact;
            sum.rounded = to_bf16(sum.rounded + other.rounded);
        }
        error += pow(sum.rounded - sum.exact, 2);
        size += pow(sum.exact, 2);
    }
    return sqrt(error / size);
}

static double draw_positive(void)
{
    return fabs(draw_normal());
}

/* Summands of random sign: below the estimate, and by no more than the binades' difference (a
 * rounding is at worst w of a number just above a power of two, half of it below the next).
 * Summands that agree: below it. */
static void test_parity_gradients__sums_are_within_their_count(void **state)
{
    (void)state;
    static const struct parity_gradient_sum plain = {.chunks = 1, .parts = 1};
    double w = parity_roundoff(PRECISION_BF16);
    for (int variant = 0; variant < 2 * 2 * 2 * 2; variant++)
        for (int64_t micro_batches = 1; micro_batches <= 16; micro_batches *= 4)
            for (int ranks = 1; ranks <= 8; ranks *= 8) {
                struct parity_gradient_sum how = plain;
                how.zero_stage = variant & 1 ? 2 : 0;
                how.chunks = variant & 2 ? 4 : 1;
                how.parts = variant & 4 ? 2 : 1;
                how.has_copies = variant & 8;
                how.micro_batches = micro_batches;
                how.is_reduced = ranks > 1;
                double estimate = parity_single_roundings(parity_gradient_roundings(&how), w);
                double random = sum_error(&how, ranks, draw_normal) / estimate;
                double agreeing = sum_error(&how, ranks, draw_positive) / estimate;
                if (!(random <= 1 && random >= 0.5 && agreeing <= 1))
                    fail_msg("ZeRO %d, %d micro-batches, %d chunks, %d parts, %d ranks%s: %.2f of "
                             "the estimate, %.2f where they agree",
                             how.zero_stage, (int)micro_batches, (int)how.chunks, how.parts, ranks,
                             how.has_copies ? ", copies" : "", random, agreeing);
            }
}

/* ---- the first step ---- */

struct first_step {
    struct trained_state state; /* at rank 0 */
    double loss;
};

/* Not clipped: a norm would pass roundings on to every tensor. */
static void take_first_step(const struct parity_case *what, struct first_step *out)
{
    static const struct optimizer_options optimizer = {
        .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-2};
    struct trained trained;
    struct plan plan;
    struct step_result result;
    struct error err = {0};
    char folder[64];
    assert_int_equal(parity_plan(&plan, what, &err), STATUS_OK);
    trained_folder(world, folder);
    trained_open_plan(&trained, &plan, data_path, &optimizer, world);
    if (trainer_step(trained.trainer, &result, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    out->loss = result.loss;
    trained_read(&trained, folder, &out->state);
    trained_close(&trained);
}

static double moments_apart(const struct trained_tensor *a, const struct trained_tensor *b)
{
    double difference = 0, size = 0;
    for (uint64_t i = 0; i < a->count; i++) {
        difference += pow((double)a->first_moment[i] - b->first_moment[i], 2);
        size += pow(b->first_moment[i], 2);
    }
    return sqrt(difference / size);
}

/* Vectors have the same bits. A matrix's gradient is rounded at least once, at the end, which makes
 * half of a rounding's estimate, and is within the bound of all its roundings. Returns the largest
 * ratio. */
static double compare_steps(const struct first_step *narrow, const struct first_step *wide,
                            const double *roundings, double confidence, const char *name)
{
    double w = parity_roundoff(PRECISION_BF16), largest = 0;
    if (narrow->loss != wide->loss)
        fail_msg("%s: a loss of %.17g instead of %.17g", name, narrow->loss, wide->loss);
    for (size_t i = 0; i < wide->state.count; i++) {
        const struct trained_tensor *a = &narrow->state.tensors[i], *b = &wide->state.tensors[i];
        double apart = moments_apart(a, b);
        double bound = confidence * parity_single_roundings(roundings[i], w);
        double least = roundings[i] > 0 ? parity_single_roundings(1, w) / 2 : 0;
        if (!(apart <= bound && apart >= least))
            fail_msg("%s: %s differs by %g, expected %g to %g", name, a->name, apart, least, bound);
        largest = fmax(largest, roundings[i] > 0 ? apart / bound : 0);
    }
    return largest;
}

static double check_case(const struct parity_case *what, double confidence)
{
    struct parity_case fp32 = *what;
    struct first_step narrow = {0}, wide = {0};
    struct plan plan;
    struct error err = {0};
    char name[PARITY_NAME_BYTES];
    double ratio = 0;
    fp32.value[PARITY_GRADIENTS] = GRADIENTS_FP32;
    take_first_step(&fp32, &wide);
    take_first_step(what, &narrow);
    if (comm_rank(world) == 0) {
        double *roundings = calloc(wide.state.count, sizeof *roundings);
        assert_non_null(roundings);
        assert_int_equal(parity_plan(&plan, what, &err), STATUS_OK);
        assert_int_equal(parity_tensor_roundings(&plan, roundings), wide.state.count);
        ratio = compare_steps(&narrow, &wide, roundings, confidence, parity_case_name(what, name));
        printf("%.2f of the bound: %s %s\n", ratio, what->model, name);
        plan_clear(&plan);
        free(roundings);
    }
    trained_state_clear(&narrow.state);
    trained_state_clear(&wide.state);
    return ratio;
}

static bool is_supported(const struct parity_case *what)
{
    struct device *device = NULL;
    struct error err = {0};
    bool is_bf16 = what->value[PARITY_PRECISION] != PRECISION_FP32;
    assert_int_equal(device_open(&device, 1, &err), STATUS_OK);
    bool supported = !is_bf16 || device_supports(device, PRECISION_BF16);
    device_close(device);
    return supported;
}

/* fp16 skips steps. */
static bool is_wanted(const struct parity_case *what)
{
    return what->value[PARITY_GRADIENTS] == GRADIENTS_BF16 &&
           what->value[PARITY_PRECISION] != PRECISION_FP16 && is_supported(what);
}

static void check_model(const char *model)
{
    struct parity_cases cases;
    struct model sizes;
    struct error err = {0};
    double largest = 0;
    size_t kept = 0;
    assert_int_equal(parity_model(&sizes, model, &err), STATUS_OK);
    assert_int_equal(parity_cases_all(&cases, model, comm_size(world), &err), STATUS_OK);
    for (size_t i = 0; i < cases.count; i++)
        if (is_wanted(&cases.rows[i]))
            cases.rows[kept++] = cases.rows[i];
    cases.count = kept;
    parity_cases_select(&cases, CASES);
    double lambda = parity_confidence(1e4, 1e-2); /* tensors of the plans of all programs */
    for (size_t i = 0; i < cases.count; i++)
        largest = fmax(largest, check_case(&cases.rows[i], parity_norm_confidence(lambda, &sizes)));
    if (comm_rank(world) == 0)
        printf("%s: %zu plans, at most %.2f of the bound\n", model, cases.count, largest);
    parity_cases_clear(&cases);
}

static void test_parity_gradients__first_step_of_gpt2(void **state)
{
    (void)state;
    check_model("gpt2");
}

static void test_parity_gradients__first_step_of_llama(void **state)
{
    (void)state;
    check_model("llama");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity_gradients__sums_are_within_their_count),
        cmocka_unit_test(test_parity_gradients__first_step_of_gpt2),
        cmocka_unit_test(test_parity_gradients__first_step_of_llama),
    };
    struct error err = {0};
    if (comm_open(&world, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (comm_rank(world) == 0)
        write_tokens(data_path, 20000, 251);
    if (comm_broadcast(world, data_path, sizeof data_path, 0, &err) != STATUS_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (comm_rank(world) == 0)
        unlink(data_path);
    comm_close(world);
    return failed;
}
