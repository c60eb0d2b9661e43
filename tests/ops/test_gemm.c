#include "expect.h"

#include "executor/ops/convert.h"
#include "executor/ops/gemm.h"
#include "executor/ops/update.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct product {
    struct device *device;
    size_t m, n, k;
    float *a, *b, *c, *bias; /* a and b hold values that the 16 bit can */
    uint16_t *a_16, *b_16, *c_16;
};

static void *allocate(size_t count, size_t bytes)
{
    void *data = calloc(count, bytes);
    assert_non_null(data);
    return data;
}

static struct product product_open(size_t m, size_t n, size_t k, int threads,
                                   enum precision precision_16)
{
    struct product p = {.m = m, .n = n, .k = k};
    struct error err;
    expect_ok(device_open(&p.device, threads, &err), &err);
    p.a = allocate(m * k, sizeof(float));
    p.b = allocate(k * n, sizeof(float));
    p.c = allocate(m * n, sizeof(float));
    p.bias = allocate(n, sizeof(float));
    p.a_16 = allocate(m * k, sizeof(uint16_t));
    p.b_16 = allocate(k * n, sizeof(uint16_t));
    p.c_16 = allocate(m * n, sizeof(uint16_t));
    ops_fill_normal(p.device, p.a, 0, m * k, 1.0, m, n);
    ops_fill_normal(p.device, p.b, 0, k * n, 1.0, n, k);
    ops_fill_normal(p.device, p.bias, 0, n, 1.0, n, 0);
    convert_narrow(p.a, p.a_16, m * k, precision_16);
    convert_widen(p.a_16, p.a, m * k, precision_16);
    convert_narrow(p.b, p.b_16, k * n, precision_16);
    convert_widen(p.b_16, p.b, k * n, precision_16);
    return p;
}

static void product_close(struct product *p)
{
    free(p->a);
    free(p->b);
    free(p->c);
    free(p->bias);
    free(p->a_16);
    free(p->b_16);
    free(p->c_16);
    device_close(p->device);
}

static void reference(const struct product *p, const struct gemm *gemm, float *c)
{
    for (size_t i = 0; i < p->m; i++) {
        for (size_t j = 0; j < p->n; j++) {
            double sum = gemm->bias != NULL ? (double)gemm->bias[j] : 0.0;
            if (gemm->accumulate)
                sum += (double)p->c[i * p->n + j];
            for (size_t l = 0; l < p->k; l++) {
                float a = gemm->a_transposed ? p->a[l * p->m + i] : p->a[i * p->k + l];
                float b = gemm->b_transposed ? p->b[j * p->k + l] : p->b[l * p->n + j];
                sum += (double)a * (double)b;
            }
            c[i * p->n + j] = (float)sum;
        }
    }
}

/* `variant`: 0 overwrite, 1 accumulate, 2 bias */
static void check_variant(struct product *p, enum precision operands, enum precision result,
                          bool a_transposed, bool b_transposed, int variant)
{
    struct error err;
    bool is_16 = operands != PRECISION_FP32, out_is_16 = result != PRECISION_FP32;
    struct gemm gemm = {
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .a = is_16 ? (const void *)p->a_16 : p->a,
        .b = is_16 ? (const void *)p->b_16 : p->b,
        .c = out_is_16 ? (void *)p->c_16 : p->c,
        .a_transposed = a_transposed,
        .b_transposed = b_transposed,
        .accumulate = variant == 1,
        .bias = variant == 2 ? p->bias : NULL,
        .operands = operands,
        .result = result,
    };
    size_t count = p->m * p->n;
    float *expected = allocate(count, sizeof(float));
    if (variant == 1) {
        ops_fill_normal(p->device, p->c, 0, count, 1.0, 5, 5);
        convert_narrow(p->c, p->c_16, count, result);
        if (out_is_16)
            convert_widen(p->c_16, p->c, count, result);
    } else {
        memset(gemm.c, 0xff, count * (out_is_16 ? sizeof(uint16_t) : sizeof(float)));
    }
    reference(p, &gemm, expected);
    expect_ok(gemm_run(p->device, &gemm, &err), &err);
    if (out_is_16)
        convert_widen(p->c_16, p->c, count, result);
    double sum_unit = fmax(1e-6, sqrt((double)p->k) * 0x1p-24); /* docs/parity.md */
    double unit = result == PRECISION_BF16 ? 0x1p-8 : result == PRECISION_FP16 ? 0x1p-11 : sum_unit;
    expect_near("product", p->c, expected, count, unit);
    free(expected);
}

static void check(size_t m, size_t n, size_t k, int threads, enum precision operands)
{
    bool is_fp32 = operands == PRECISION_FP32;
    struct product p = product_open(m, n, k, threads, is_fp32 ? PRECISION_BF16 : operands);
    for (int way = 0; way < 4 && device_supports(p.device, operands); way++) {
        for (int variant = 0; variant < 3; variant++) {
            bool at = way & 1, bt = way & 2;
            check_variant(&p, operands, PRECISION_FP32, at, bt, variant);
            bool adds_in_16 = at && operands == PRECISION_BF16; /* a weight's gradient */
            if (!is_fp32 && (variant != 1 || adds_in_16))
                check_variant(&p, operands, operands, at, bt, variant);
        }
    }
    product_close(&p);
}

static void test_gemm__all_layouts_match_the_definition(void **state)
{
    (void)state;
    for (int precision = 0; precision < PRECISION_COUNT; precision++) {
        check(1, 1, 1, 1, (enum precision)precision);
        check(1, 17, 5, 2, (enum precision)precision);
        check(33, 1, 7, 2, (enum precision)precision);
        check(65, 47, 31, 2, (enum precision)precision);
        check(128, 64, 256, 1, (enum precision)precision);
    }
}

/* From sizes on, other kernels are chosen: by rows, and by the length of the sum. */
static void test_gemm__large_products_match_the_definition(void **state)
{
    (void)state;
    for (int precision = 0; precision < PRECISION_COUNT; precision++) {
        check(512, 65, 33, 2, (enum precision)precision);
        check(3, 17, 8201, 2, (enum precision)precision);
    }
}

/* Large enough that threads may share a sum. */
static void test_gemm__repeats_itself_to_the_bit(void **state)
{
    (void)state;
    const enum precision precisions[] = {PRECISION_FP32, PRECISION_BF16, PRECISION_FP16};
    for (size_t i = 0; i < sizeof(precisions) / sizeof(precisions[0]); i++) {
        bool is_fp32 = precisions[i] == PRECISION_FP32;
        struct error err;
        struct product p = product_open(96, 80, 4096, 2, is_fp32 ? PRECISION_BF16 : precisions[i]);
        struct gemm gemm = {.m = p.m,
                            .n = p.n,
                            .k = p.k,
                            .a = is_fp32 ? (const void *)p.a : p.a_16,
                            .b = is_fp32 ? (const void *)p.b : p.b_16,
                            .c = p.c,
                            .operands = precisions[i],
                            .result = PRECISION_FP32};
        float *first = allocate(p.m * p.n, sizeof(float));
        for (int way = 0; way < 4 && device_supports(p.device, precisions[i]); way++) {
            gemm.a_transposed = way & 1;
            gemm.b_transposed = way & 2;
            for (int run = 0; run < 20; run++) {
                expect_ok(gemm_run(p.device, &gemm, &err), &err);
                if (run == 0)
                    memcpy(first, p.c, p.m * p.n * sizeof(float));
                assert_memory_equal(p.c, first, p.m * p.n * sizeof(float));
            }
        }
        free(first);
        product_close(&p);
    }
}

/* Larger than two slabs in rows, and in columns, with a remainder; fp32 is cut, and bf16 with a
 * transposed and a result in bf16. */
static void test_gemm__slabs_leave_no_gap(void **state)
{
    (void)state;
    check(2531, 1037, 3, 2, PRECISION_FP32);
    check(1037, 2531, 3, 2, PRECISION_FP32);
    check(2531, 1037, 3, 2, PRECISION_BF16);
}

/* Larger than a panel of fp16 in each direction. */
static void test_gemm__panels_leave_no_gap(void **state)
{
    (void)state;
    check(1037, 65, 7, 2, PRECISION_FP16);
    check(65, 2053, 7, 1, PRECISION_FP16);
    check(47, 33, 1029, 2, PRECISION_FP16);
}

static void test_gemm__piece_reads_strided_rows(void **state)
{
    (void)state;
    const float a[] = {1, 2, 99, 3, 4, 99}, b[] = {1, 0, 2, 98, 0, 1, 5, 98};
    float c[] = {10, 10, 10, 7, 10, 10, 10, 7};
    gemm_piece(2, 3, 2, 2.0f, (struct piece){a, 3, false}, (struct piece){b, 4, false}, 1.0f, c, 4);
    const float expected[] = {12, 14, 34, 7, 16, 18, 62, 7};
    assert_memory_equal(c, expected, sizeof(c));
    gemm_piece(2, 2, 2, 1.0f, (struct piece){a, 3, true}, (struct piece){b, 4, true}, 0.0f, c, 4);
    const float turned[] = {1, 3, 34, 7, 2, 4, 62, 7};
    assert_memory_equal(c, turned, sizeof(c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm__all_layouts_match_the_definition),
        cmocka_unit_test(test_gemm__large_products_match_the_definition),
        cmocka_unit_test(test_gemm__repeats_itself_to_the_bit),
        cmocka_unit_test(test_gemm__slabs_leave_no_gap),
        cmocka_unit_test(test_gemm__panels_leave_no_gap),
        cmocka_unit_test(test_gemm__piece_reads_strided_rows),
    };
    return cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
}
