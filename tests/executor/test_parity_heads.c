/* What each kernel of attention rounds to 16 bit, as docs/parity.md counts it, against the errors
 * of the heads of one layer. */
#include "heads.h"
#include "parity_bound.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

/* The root of the mean square of the differences of two arrays, relative to the second. */
static double apart(const float *a, const float *b, size_t count)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        difference += pow((double)a[i] - b[i], 2);
        size += pow(b[i], 2);
    }
    return sqrt(difference / size);
}

struct heads_result {
    float *context, *gradient; /* [context_count], [qkv_count]; owned */
};

static struct heads_result run_heads(const struct heads *heads, const struct attention *z)
{
    struct heads_result out = {calloc(heads->context_count, sizeof(float)),
                               calloc(heads->qkv_count, sizeof(float))};
    struct attention kept = *z;
    attention_heads_forward(heads->device, &kept);
    if (z->tile == NULL)
        kept.context = NULL; /* not made again */
    attention_heads_backward(heads->device, &kept);
    assert_true(out.context != NULL && out.gradient != NULL);
    heads_widen(heads, z->context, out.context, heads->context_count);
    heads_widen(heads, z->qkv_gradient, out.gradient, heads->qkv_count);
    return out;
}

static void heads_result_clear(struct heads_result *result)
{
    free(result->context);
    free(result->gradient);
}

static const struct heads_shape heads_shape = {4, 96, 4, 2, 32, 0, PRECISION_FP32, 1};

/* The heads in fp32 with what the 16-bit heads read. */
static struct heads_result exact_heads(const struct heads *narrow)
{
    struct heads heads;
    struct error err = {0};
    assert_int_equal(heads_open(&heads, &heads_shape, &err), STATUS_OK);
    float *qkv = calloc(heads.qkv_count, sizeof *qkv);
    assert_non_null(qkv);
    heads_widen(narrow, narrow->plain.qkv, qkv, heads.qkv_count);
    heads.plain.qkv = qkv;
    struct heads_result exact = run_heads(&heads, &heads.plain);
    free(qkv);
    heads_close(&heads);
    return exact;
}

static struct parity_points points_of(const struct attention *z)
{
    if (z->tile == NULL)
        return parity_points_of(ATTENTION_PLAIN, false);
    return parity_points_of(ATTENTION_TILED, z->tile->pack == 2);
}

/* What the tiled kernel rounds more often than the plain one: on some paths, if not on all. */
static int points_more(const struct heads *heads)
{
    struct parity_points tiled = points_of(&heads->tiled), plain = points_of(&heads->plain);
    return tiled.forward + tiled.backward - plain.forward - plain.backward;
}

/* Of one kernel in 16 bit, its count of roundings against the errors that it makes: context and
 * gradient of qkv stay below the estimate, and reach a quarter of the mean square (the binades'
 * difference) of what rounds every element of them: of the probabilities and of the gradient of
 * scores no element of qkv's gradient meets both. Returns the gradient's error. */
static double check_points(const struct heads *heads, const struct attention *z,
                           const struct heads_result *exact)
{
    enum precision precision = z->dims.precision;
    bool is_tiled = z->tile != NULL, is_narrow = is_tiled && z->tile->pack == 2;
    double w = parity_roundoff(precision);
    struct parity_points points = points_of(z);
    struct heads_result got = run_heads(heads, z);
    double context = apart(got.context, exact->context, heads->context_count);
    double gradient = apart(got.gradient, exact->gradient, heads->qkv_count);
    double both = points.forward + points.backward;
    printf("%s, %s: context %.2f of the estimate, gradient %.2f\n",
           is_tiled ? z->tile->name : "plain", precision_name(precision),
           context / parity_single_roundings(points.forward, w),
           gradient / parity_single_roundings(both, w));
    assert_true(context <= parity_single_roundings(points.forward, w));
    assert_true(context >= parity_single_roundings(points.forward, w) / 2);
    assert_true(gradient <= parity_single_roundings(both, w));
    assert_true(gradient >= parity_single_roundings(points.backward - is_narrow, w) / 2);
    heads_result_clear(&got);
    return gradient;
}

/* Every kernel in 16 bit, against fp32. What tiles of bf16 round in addition is seen: the
 * gradient's mean square grows by what the count says at most, and at least by a quarter of the two
 * that every element meets. */
static void test_parity_heads__roundings_are_those_counted(void **state)
{
    (void)state;
    const struct tile_ops *const *all;
    size_t count = tile_ops_all(&all);
    for (int p = PRECISION_FP32 + 1; p < PRECISION_COUNT; p++) {
        struct heads_shape shape = heads_shape;
        struct heads heads;
        struct error err = {0};
        shape.precision = (enum precision)p;
        double w = parity_roundoff(shape.precision);
        assert_int_equal(heads_open(&heads, &shape, &err), STATUS_OK);
        struct heads_result exact = exact_heads(&heads);
        double plain = check_points(&heads, &heads.plain, &exact);
        for (size_t i = 0; i < count; i++) {
            if (!all[i]->is_supported() || (all[i]->pack == 2 && p != PRECISION_BF16))
                continue;
            heads.tiled.tile = all[i];
            double tiled = check_points(&heads, &heads.tiled, &exact);
            double more = (tiled * tiled - plain * plain) / (w * w / 3);
            int count_more = points_more(&heads);
            printf("%s, %s: mean square of %.2f roundings more than plain, counted %d\n",
                   all[i]->name, precision_name(shape.precision), more, count_more);
            assert_true(more <= fmax(count_more, 0));
            assert_true(more >= (count_more > 0 ? (count_more - 1) / 4.0 : count_more));
        }
        heads_result_clear(&exact);
        heads_close(&heads);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity_heads__roundings_are_those_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
