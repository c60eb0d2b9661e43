/* Arithmetic on vectors of floats: what the loops of this folder are built from. */
#ifndef TEMPER_OPS_VECTOR_H
#define TEMPER_OPS_VECTOR_H

#include "base/bf16.h"
#include "base/clones.h"
#include "ir/layer.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* fp16 (IEEE 754 binary16) has 5 bits of exponent with bias 15 and 10 of fraction. Round to
 * nearest, ties to even; from 65520 on the result is infinite; NaN stays NaN. Without branches, so
 * that loops of it become vectors on any CPU. */
INLINED uint16_t fp16_from_float(float x)
{
    const uint32_t infinity = 0x7f800000, rebias = (127 - 15) << 23;
    const uint32_t smallest_normal = 0x38800000; /* 2^-14 */
    const uint32_t overflow = 0x477ff000;        /* 65520, halfway between 65504 and 2^16 */
    uint32_t bits = float_bits(x), size = bits & 0x7fffffff;
    uint32_t normal = (size - rebias + 0xfff + ((size >> 13) & 1)) >> 13;
    /* The last place of a float in [0.5, 1) is 2^-24, that of fp16's subnormals: adding 0.5 rounds
     * to it. */
    uint32_t subnormal = float_bits(float_from_bits(size) + 0.5f) - float_bits(0.5f);
    uint32_t rounded = size < smallest_normal ? subnormal : normal;
    rounded = size >= overflow ? 0x7c00 : rounded;
    rounded = size > infinity ? 0x7e00 : rounded;
    return (uint16_t)(rounded | ((bits >> 16) & 0x8000));
}

INLINED float float_from_fp16(uint16_t x)
{
    const uint32_t first_special = 0x7c00 << 13;
    uint32_t size = (uint32_t)(x & 0x7fff) << 13, sign = (uint32_t)(x & 0x8000) << 16;
    uint32_t finite = float_bits(float_from_bits(size) * 0x1p112f); /* the biases' difference */
    return float_from_bits((size >= first_special ? size | 0x7f800000 : finite) | sign);
}

INLINED float float_from_16(uint16_t x, enum precision precision)
{
    return precision == PRECISION_BF16 ? float_from_bf16(x) : float_from_fp16(x);
}

INLINED uint16_t float_to_16(float x, enum precision precision)
{
    return precision == PRECISION_BF16 ? bf16_from_float(x) : fp16_from_float(x);
}

/* Element `index` of an array; `precision` is a constant after inlining. */
INLINED float load_element(const void *data, size_t index, enum precision precision)
{
    return precision == PRECISION_FP32 ? ((const float *)data)[index]
                                       : float_from_16(((const uint16_t *)data)[index], precision);
}

INLINED void store_element(void *data, size_t index, float value, enum precision precision)
{
    if (precision == PRECISION_FP32)
        ((float *)data)[index] = value;
    else
        ((uint16_t *)data)[index] = float_to_16(value, precision);
}

/* e^x within 2 units in the last place; beyond [-87.3, 88.3] it stays at the value of that end, so
 * that it is never 0, infinite or subnormal. NaN gives NaN.
 *
 * x = n ln 2 + r with |r| <= ln(2)/2, e^x = 2^n e^r. ln 2 is split in two so that n times its first
 * part is exact. e^r = 1 + r + r^2 q(r), with q the interpolation of (e^r - 1 - r) / r^2 at the
 * Chebyshev points of degree 4 over |r| <= ln(2)/2: relative error 1.0e-8. */
INLINED float exp_vector(float x)
{
    const float log2_e = 0x1.715476p+0f, ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
    const float to_integer = 0x1.8p+23f; /* adding it leaves the rounded integer in the low bits */

    x = x < -87.3f ? -87.3f : x;
    x = x > 88.3f ? 88.3f : x;
    float shifted = x * log2_e + to_integer;
    float n = shifted - to_integer;
    float r = (x - n * ln2_high) - n * ln2_low;
    float q = 0x1.6d113cp-10f;
    q = q * r + 0x1.120ba2p-7f;
    q = q * r + 0x1.55551ap-5f;
    q = q * r + 0x1.5554dcp-3f;
    q = q * r + 0x1p-1f;
    float exponential = (q * r) * r + r + 1.0f;
    uint32_t power = (float_bits(shifted) + 127) << 23;
    return exponential * float_from_bits(power);
}

/* 1 / (1 + 2^x) within 4 units in the last place; beyond [-126, 126] it stays at the value of that
 * end. NaN gives a number: callers multiply by what x was made of.
 *
 * The ends are cut on the bits, as integers, because compilers make branches of the same in
 * floats. With n the integer nearest to x and f = x - n, 2^x = 2^n 2^f, and 2^f = 1 + f q(f), with
 * q the interpolation of (2^f - 1) / f at the Chebyshev points of degree 4 over |f| <= 1/2:
 * relative error 2.0e-7. */
INLINED float sigmoid2_vector(float x)
{
    const uint32_t lowest = 0xc2fc0000; /* -126: the greater a negative number's bits, the lower */
    const int32_t highest = 0x42fc0000; /* 126; as int32_t negative numbers are below it */
    const float to_integer = 0x1.8p+23f;
    uint32_t bits = float_bits(x);
    bits = bits > lowest ? lowest : bits;
    bits = (int32_t)bits > highest ? (uint32_t)highest : bits;
    x = float_from_bits(bits);
    float shifted = x + to_integer;
    float f = x - (shifted - to_integer);
    float q = 0x1.5ec866p-10f;
    q = q * f + 0x1.3cbf6p-7f;
    q = q * f + 0x1.c6afeep-5f;
    q = q * f + 0x1.ebfa4cp-3f;
    q = q * f + 0x1.62e43p-1f;
    q = q * f + 1.0f;
    return 1.0f / (1.0f + q * float_from_bits((float_bits(shifted) + 127) << 23));
}

/* ---- sums: LANES of them side by side, in one vector, and then added up ---- */

enum { LANES = 16 };
/* By address: how vectors are passed and returned differs between CPUs. */
typedef float float_lanes __attribute__((vector_size(LANES * sizeof(float))));

/* Elements index .. index + LANES of an array; `precision` is a constant after inlining. */
INLINED void lanes_load(float_lanes *out, const void *data, size_t index, enum precision precision)
{
    float values[LANES];
    for (size_t i = 0; i < LANES; i++)
        values[i] = load_element(data, index + i, precision);
    memcpy(out, values, sizeof(values));
}

/* In halves: adding one lane after the other would wait for each sum. */
INLINED float lanes_sum(const float_lanes *x)
{
    typedef float eight __attribute__((vector_size(LANES / 2 * sizeof(float))));
    typedef float four __attribute__((vector_size(LANES / 4 * sizeof(float))));
    eight halves[2];
    four quarters[2];
    memcpy(halves, x, sizeof(halves));
    halves[0] += halves[1];
    memcpy(quarters, &halves[0], sizeof(quarters));
    quarters[0] += quarters[1];
    return (quarters[0][0] + quarters[0][2]) + (quarters[0][1] + quarters[0][3]);
}

#endif
