/* Element-wise work on [tokens, width] arrays. */
#include "executor/ops/internal.h"
#include "executor/ops/vector.h"

CLONES
static void add_row(const float *addend, const float *row, float *out, size_t width)
{
#pragma omp simd
    for (size_t j = 0; j < width; j++)
        out[j] = addend[j] + row[j];
}

void rows_add(struct device *device, const float *addend, const float *row, float *out,
              size_t tokens, size_t width)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++) {
        if (row == NULL)
            memcpy(out + t * width, addend + t * width, width * sizeof(float));
        else
            add_row(addend + t * width, row, out + t * width, width);
    }
}

CLONES
static void add_onto(const float *addend, const float *row, float *out, size_t width)
{
#pragma omp simd
    for (size_t j = 0; j < width; j++)
        out[j] += addend[j] + (row != NULL ? row[j] : 0.0f);
}

void rows_add_onto(struct device *device, const float *addend, const float *row, float *out,
                   size_t tokens, size_t width)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++)
        add_onto(addend + t * width, row, out + t * width, width);
}

/* A thread keeps the sums of a strip of columns in registers. */
enum { STRIP_VECTORS = 4, STRIP = STRIP_VECTORS * LANES };

INLINED void sum_strip(const void *data, size_t offset, size_t stride, size_t tokens, float *sums,
                       enum precision precision)
{
    float_lanes parts[STRIP_VECTORS] = {0}, x;
    for (size_t t = 0; t < tokens; t++) {
#pragma GCC unroll 4
        for (size_t i = 0; i < STRIP_VECTORS; i++) {
            lanes_load(&x, data, offset + t * stride + i * LANES, precision);
            parts[i] += x;
        }
    }
    memcpy(sums, parts, sizeof(parts));
}

INLINED void sum_narrow(const void *data, size_t offset, size_t stride, size_t tokens, size_t width,
                        float *sums, enum precision precision)
{
    for (size_t t = 0; t < tokens; t++) {
#pragma omp simd
        for (size_t j = 0; j < width; j++)
            sums[j] += load_element(data, offset + t * stride + j, precision);
    }
}

INLINED void sum_part(const void *data, size_t offset, size_t stride, size_t tokens, size_t width,
                      float *sums, enum precision precision)
{
    if (width == STRIP)
        sum_strip(data, offset, stride, tokens, sums, precision);
    else
        sum_narrow(data, offset, stride, tokens, width, sums, precision);
}

/* `width` <= STRIP; `sums` are 0. */
CLONES
static void sum_columns(const void *data, enum precision precision, size_t offset, size_t stride,
                        size_t tokens, size_t width, float *sums)
{
    if (precision == PRECISION_FP32)
        sum_part(data, offset, stride, tokens, width, sums, PRECISION_FP32);
    else if (precision == PRECISION_BF16)
        sum_part(data, offset, stride, tokens, width, sums, PRECISION_BF16);
    else
        sum_part(data, offset, stride, tokens, width, sums, PRECISION_FP16);
}

void columns_sum(struct device *device, const void *data, enum precision precision, float *out,
                 size_t tokens, size_t width, bool accumulate)
{
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t begin = 0; begin < width; begin += STRIP) {
        size_t part = width - begin < STRIP ? width - begin : STRIP;
        float sums[STRIP] = {0};
        sum_columns(data, precision, begin, width, tokens, part, sums);
        for (size_t j = 0; j < part; j++)
            out[begin + j] = accumulate ? out[begin + j] + sums[j] : sums[j];
    }
}
