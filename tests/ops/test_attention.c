/* Tiled attention against the plain kernel, against sums in double precision, and as part of whole
 * layers. */
#include "chain.h"
#include "expect.h"
#include "heads.h"

#include "executor/ops/convert.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* docs/parity.md: a path through attention alone. Its sums are of head_dim and s terms forward; the
 * same, and of s for each query head that shares a key, backward. In 16 bit values are rounded at 2
 * points forward (exponentials, context) and 4 backward (exponentials, gradients of the context and
 * of the scores, result). */
struct bounds {
    double context, gradient;
};

static double bound_of(double terms, int points, const struct heads_shape *shape)
{
    const double confidence = 5.8;
    double gap = shape->precision == PRECISION_FP32   ? 0.0
                 : shape->precision == PRECISION_BF16 ? 0x1p-8
                                                      : 0x1p-11;
    double independent = (double)(shape->heads * shape->head_dim);
    return (1.0 + confidence / sqrt(independent)) *
           sqrt(2.0 * terms * 0x1p-48 + gap * gap * 2.0 * points / 3.0);
}

static struct bounds bounds_of(const struct heads_shape *shape)
{
    double width = (double)shape->head_dim, length = (double)shape->length;
    double shared = (double)(shape->heads / shape->kv_heads);
    double forward = width + 2.0 * length + 12.0;
    double backward = 2.0 * width + (2.0 + shared) * length + 12.0;
    return (struct bounds){bound_of(forward, 2, shape), bound_of(forward + backward, 6, shape)};
}

static float *floats(size_t count)
{
    float *data = calloc(count, sizeof(float));
    assert_non_null(data);
    return data;
}

static float *widened(const struct heads *heads, const void *data, size_t count)
{
    float *out = floats(count);
    heads_widen(heads, data, out, count);
    return out;
}

static void expect_arrays_near(const struct heads *heads, const char *name, const void *a,
                               const void *b, size_t count, double bound)
{
    float *x = widened(heads, a, count), *y = widened(heads, b, count);
    expect_near(name, x, y, count, bound);
    free(x);
    free(y);
}

static void run(const struct heads *heads, const struct attention *attention)
{
    struct attention backward = *attention;
    if (attention->tile == NULL)
        backward.context = NULL;
    attention_heads_forward(heads->device, attention);
    attention_heads_backward(heads->device, &backward);
}

/* Fill what a run must write by itself with NaN. */
static void poison(const struct heads *heads, const struct attention *z)
{
    size_t element_bytes = z->dims.is_16 ? sizeof(uint16_t) : sizeof(float);
    size_t rows = z->dims.sequences * z->dims.heads * z->dims.length;
    size_t threads = (size_t)device_threads(heads->device);
    memset(z->context, 0xff, heads->context_count * element_bytes);
    memset(z->qkv_gradient, 0xff, heads->qkv_count * element_bytes);
    memset(z->log_sums, 0xff, rows * sizeof(float));
    memset(z->scratch, 0xff, threads * z->scratch_floats * sizeof(float));
}

static void check_shape(const struct heads_shape *shape)
{
    struct error err;
    struct heads heads;
    char name[160];
    struct bounds bounds = bounds_of(shape);
    expect_ok(heads_open(&heads, shape, &err), &err);
    run(&heads, &heads.plain);
    const struct tile_ops *const *all;
    size_t count = tile_ops_all(&all);
    for (size_t i = 0; i < count; i++) {
        if (!all[i]->is_supported() || (all[i]->pack == 2 && shape->precision != PRECISION_BF16))
            continue;
        heads.tiled.tile = all[i];
        poison(&heads, &heads.tiled);
        run(&heads, &heads.tiled);
        snprintf(name, sizeof(name),
                 "%s, %s, %zu x %zu, %zu/%zu heads of %zu, window %zu, %d threads", all[i]->name,
                 precision_name(shape->precision), shape->sequences, shape->length, shape->heads,
                 shape->kv_heads, shape->head_dim, shape->window, shape->threads);
        expect_arrays_near(&heads, name, heads.tiled.context, heads.plain.context,
                           heads.context_count, bounds.context);
        expect_arrays_near(&heads, name, heads.tiled.qkv_gradient, heads.plain.qkv_gradient,
                           heads.qkv_count, bounds.gradient);
    }
    heads_close(&heads);
}

static void test_attention__tiled_is_near_plain(void **state)
{
    (void)state;
    static const struct heads_shape shapes[] = {
        /* lengths around tiles and grains */
        {2, 1, 3, 3, 16, 0, PRECISION_FP32, 1},
        {2, 7, 3, 3, 16, 0, PRECISION_FP32, 2},
        {1, 16, 2, 2, 64, 0, PRECISION_FP32, 1},
        {1, 17, 2, 2, 64, 0, PRECISION_FP32, 3},
        {1, 63, 2, 2, 64, 0, PRECISION_FP32, 2},
        {1, 64, 2, 2, 64, 0, PRECISION_FP32, 2},
        {1, 65, 2, 2, 64, 0, PRECISION_FP32, 3},
        {2, 150, 3, 3, 64, 0, PRECISION_FP32, 2},
        {1, 333, 2, 2, 64, 0, PRECISION_FP32, 3},
        /* widths of heads, in and out of step with vectors */
        {1, 90, 2, 2, 5, 0, PRECISION_FP32, 2},
        {1, 90, 2, 2, 16, 0, PRECISION_FP32, 2},
        {1, 90, 2, 2, 32, 0, PRECISION_FP32, 2},
        {1, 90, 2, 2, 80, 0, PRECISION_FP32, 2},
        {1, 90, 2, 2, 96, 0, PRECISION_FP32, 2},
        {1, 90, 2, 2, 128, 0, PRECISION_FP32, 2},
        /* shared keys; units that threads share, alone or in teams */
        {1, 200, 4, 2, 32, 0, PRECISION_FP32, 3},
        {1, 200, 6, 1, 32, 0, PRECISION_FP32, 2},
        {1, 200, 6, 1, 32, 0, PRECISION_FP32, 3},
        {1, 130, 3, 3, 32, 0, PRECISION_FP32, 2},
        {1, 130, 3, 3, 32, 0, PRECISION_FP32, 5},
        {3, 70, 8, 4, 16, 0, PRECISION_FP32, 5},
        /* windows */
        {1, 90, 2, 2, 32, 1, PRECISION_FP32, 2},
        {1, 200, 2, 2, 32, 11, PRECISION_FP32, 2},
        {1, 300, 4, 2, 32, 64, PRECISION_FP32, 2},
        {1, 300, 4, 2, 32, 65, PRECISION_FP32, 3},
        {1, 300, 2, 1, 32, 150, PRECISION_FP32, 1},
        {1, 300, 2, 1, 32, 1000, PRECISION_FP32, 2},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        for (int precision = 0; precision < PRECISION_COUNT; precision++) {
            struct heads_shape shape = shapes[i];
            shape.precision = (enum precision)precision;
            check_shape(&shape);
        }
    }
}

/* ---- who sees whom ---- */

/* A token's k and v reach the contexts of the queries that see it and, to the bit, no others. */
static void check_sight(const struct heads_shape *shape, size_t token)
{
    struct error err;
    struct heads heads;
    expect_ok(heads_open(&heads, shape, &err), &err);
    size_t element_bytes = (size_t)precision_bytes(shape->precision);
    size_t row_bytes = shape->heads * shape->head_dim * element_bytes;
    size_t qkv_bytes = 3 * row_bytes, count = shape->length * row_bytes;
    run(&heads, &heads.tiled);
    char *before = malloc(count);
    assert_non_null(before);
    memcpy(before, heads.tiled.context, count);
    /* The next token's in its place: q stays. */
    char *row = (char *)heads.memory[0] + token * qkv_bytes;
    assert_ptr_equal(heads.memory[0], heads.tiled.qkv);
    memcpy(row + row_bytes, row + qkv_bytes + row_bytes, 2 * row_bytes);
    run(&heads, &heads.tiled);
    for (size_t i = 0; i < shape->length; i++) {
        const char *after = (const char *)heads.tiled.context + i * row_bytes;
        bool same = memcmp(before + i * row_bytes, after, row_bytes) == 0;
        bool seen = i >= token && (shape->window == 0 || i < token + shape->window);
        if (same == seen)
            fail_msg("token %zu of %s: query %zu %s it", token, precision_name(shape->precision), i,
                     same ? "misses" : "sees");
    }
    free(before);
    heads_close(&heads);
}

static void test_attention__tiled_sees_what_it_should(void **state)
{
    (void)state;
    const size_t tokens[] = {0, 1, 15, 16, 63, 64, 70, 127, 128, 148};
    const size_t windows[] = {0, 1, 20, 64, 100};
    for (int precision = 0; precision < PRECISION_COUNT; precision++) {
        for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
            const struct heads_shape shape = {
                1, 150, 2, 2, 64, windows[i], (enum precision)precision, 2};
            for (size_t j = 0; j < sizeof(tokens) / sizeof(tokens[0]); j++)
                check_sight(&shape, tokens[j]);
        }
    }
}

/* ---- large scores ---- */

/* Scores of some hundreds overflow without their maxima; the first key has them all. */
static void test_attention__large_scores_stay_finite(void **state)
{
    (void)state;
    struct error err;
    struct heads heads;
    const struct heads_shape shape = {1, 200, 2, 2, 64, 0, PRECISION_FP32, 2};
    expect_ok(heads_open(&heads, &shape, &err), &err);
    float *qkv = heads.memory[0];
    assert_ptr_equal(qkv, heads.tiled.qkv);
    for (size_t i = 0; i < heads.qkv_count; i++)
        qkv[i] *= i % 384 < 256 ? 10.0f : 1.0f;
    run(&heads, &heads.plain);
    run(&heads, &heads.tiled);
    /* Scores of 400 have 24 bits: their exponentials are off by 400 x 2^-24. */
    expect_arrays_near(&heads, "context", heads.tiled.context, heads.plain.context,
                       heads.context_count, 400.0 * 0x1p-23);
    expect_arrays_near(&heads, "gradient", heads.tiled.qkv_gradient, heads.plain.qkv_gradient,
                       heads.qkv_count, 400.0 * 0x1p-23);
    heads_close(&heads);
}

/* ---- bits ---- */

/* Twice the same, whatever was in scratch before; and the same context for any number of
 * threads. */
static void test_attention__tiled_repeats_to_the_bit(void **state)
{
    (void)state;
    char *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        struct error err;
        struct heads heads;
        const struct heads_shape shape = {1, 210, 4, 2, 32, 0, PRECISION_FP32, threads};
        expect_ok(heads_open(&heads, &shape, &err), &err);
        size_t context_bytes = heads.context_count * sizeof(float);
        size_t gradient_bytes = heads.qkv_count * sizeof(float);
        char *copy = malloc(gradient_bytes);
        assert_non_null(copy);
        run(&heads, &heads.tiled);
        memcpy(copy, heads.tiled.qkv_gradient, gradient_bytes);
        poison(&heads, &heads.tiled);
        run(&heads, &heads.tiled);
        assert_memory_equal(copy, heads.tiled.qkv_gradient, gradient_bytes);
        free(copy);
        if (first == NULL) {
            first = malloc(context_bytes);
            assert_non_null(first);
            memcpy(first, heads.tiled.context, context_bytes);
        }
        assert_memory_equal(first, heads.tiled.context, context_bytes);
        heads_close(&heads);
    }
    free(first);
}

/* ---- against double precision ---- */

struct exact {
    double *q, *k, *v, *gradient; /* [length, head_dim] of one head */
    double *context, *q_gradient, *k_gradient, *v_gradient;
    double *probs, *slopes; /* [length] of one query */
};

static bool sees(const struct heads_shape *shape, size_t query, size_t key)
{
    return key <= query && (shape->window == 0 || key + shape->window > query);
}

/* Softmax attention of one query and its gradients, as the formulas are written. */
static void exact_query(const struct heads_shape *shape, struct exact *x, size_t query)
{
    size_t width = shape->head_dim, length = shape->length;
    const double *q = x->q + query * width, *gradient = x->gradient + query * width;
    double sum = 0.0, mean = 0.0, scale = 1.0 / sqrt((double)width);
    for (size_t key = 0; key < length; key++) {
        double score = 0.0;
        x->slopes[key] = 0.0;
        for (size_t i = 0; i < width; i++) {
            score += q[i] * x->k[key * width + i];
            x->slopes[key] += gradient[i] * x->v[key * width + i];
        }
        x->probs[key] = sees(shape, query, key) ? exp(score * scale) : 0.0;
        sum += x->probs[key];
    }
    for (size_t key = 0; key < length; key++) {
        x->probs[key] /= sum;
        mean += x->probs[key] * x->slopes[key];
    }
    for (size_t key = 0; key < length; key++) {
        double p = x->probs[key], slope = p * (x->slopes[key] - mean) * scale;
        for (size_t i = 0; i < width; i++) {
            x->context[query * width + i] += p * x->v[key * width + i];
            x->v_gradient[key * width + i] += p * gradient[i];
            x->k_gradient[key * width + i] += slope * q[i];
            x->q_gradient[query * width + i] += slope * x->k[key * width + i];
        }
    }
}

static void take_columns(const float *rows, size_t stride, size_t count, size_t width, double *out)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < width; j++)
            out[i * width + j] = (double)rows[i * stride + j];
    }
}

static void put_columns(const double *values, size_t stride, size_t count, size_t width, float *out)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < width; j++)
            out[i * stride + j] = (float)values[i * width + j];
    }
}

/* One sequence with one head. */
static void check_exact(const struct heads_shape *shape)
{
    struct error err;
    struct heads heads;
    struct bounds bounds = bounds_of(shape);
    size_t width = shape->head_dim, length = shape->length, count = width * length;
    expect_ok(heads_open(&heads, shape, &err), &err);
    double *memory = calloc(8 * count + 2 * length, sizeof(double));
    assert_non_null(memory);
    struct exact x = {.q = memory,
                      .k = memory + count,
                      .v = memory + 2 * count,
                      .gradient = memory + 3 * count,
                      .context = memory + 4 * count,
                      .q_gradient = memory + 5 * count,
                      .k_gradient = memory + 6 * count,
                      .v_gradient = memory + 7 * count,
                      .probs = memory + 8 * count,
                      .slopes = memory + 8 * count + length};
    float *qkv = widened(&heads, heads.tiled.qkv, heads.qkv_count);
    take_columns(qkv, 3 * width, length, width, x.q);
    take_columns(qkv + width, 3 * width, length, width, x.k);
    take_columns(qkv + 2 * width, 3 * width, length, width, x.v);
    take_columns(heads.tiled.context_gradient, width, length, width, x.gradient);
    for (size_t query = 0; query < length; query++)
        exact_query(shape, &x, query);
    float *context = floats(count), *gradient = floats(3 * count);
    put_columns(x.context, width, length, width, context);
    put_columns(x.q_gradient, 3 * width, length, width, gradient);
    put_columns(x.k_gradient, 3 * width, length, width, gradient + width);
    put_columns(x.v_gradient, 3 * width, length, width, gradient + 2 * width);

    run(&heads, &heads.tiled);
    float *tiled = widened(&heads, heads.tiled.context, count);
    expect_near("context", tiled, context, count, bounds.context);
    free(tiled);
    tiled = widened(&heads, heads.tiled.qkv_gradient, 3 * count);
    expect_near("gradient", tiled, gradient, 3 * count, bounds.gradient);
    free(tiled);
    free(gradient);
    free(context);
    free(qkv);
    free(memory);
    heads_close(&heads);
}

static void test_attention__tiled_is_near_the_formulas(void **state)
{
    (void)state;
    for (int precision = 0; precision < PRECISION_COUNT; precision++) {
        const struct heads_shape causal = {1, 190, 1, 1, 64, 0, (enum precision)precision, 2};
        const struct heads_shape window = {1, 190, 1, 1, 48, 37, (enum precision)precision, 1};
        check_exact(&causal);
        check_exact(&window);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention__tiled_is_near_plain),
        cmocka_unit_test(test_attention__tiled_is_near_the_formulas),
        cmocka_unit_test(test_attention__tiled_sees_what_it_should),
        cmocka_unit_test(test_attention__large_scores_stay_finite),
        cmocka_unit_test(test_attention__tiled_repeats_to_the_bit),
    };
    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
