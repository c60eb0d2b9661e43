/* Arithmetic on vectors of floats: what the loops of this folder are built from.
 *
 * A function marked OPS_CLONES is compiled for plain x86-64, for AVX2 and for AVX-512, and the
 * loader picks by the CPU it finds. The clones hold loops only, no OpenMP regions: the body of a
 * region becomes a function of its own, which would not be cloned. */
#ifndef TEMPER_OPS_VECTOR_H
#define TEMPER_OPS_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Sanitizers instrument the resolver too, which runs before they are set up. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define OPS_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define OPS_CLONES
#endif

#define OPS_INLINE static inline __attribute__((always_inline))

OPS_INLINE uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

OPS_INLINE float float_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* bf16 is the upper half of a float. Round to nearest, ties to even; NaN stays NaN. */
OPS_INLINE uint16_t bf16_from_float(float x)
{
    const uint32_t quiet_nan = 0x7fc0;
    uint32_t bits = float_bits(x);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(x != x ? quiet_nan : rounded);
}

OPS_INLINE float float_from_bf16(uint16_t x)
{
    return float_from_bits((uint32_t)x << 16);
}

/* Element `index` of an array that is bf16 or fp32; `bf16` is a constant after inlining. */
OPS_INLINE float load_element(const void *data, size_t index, bool bf16)
{
    return bf16 ? float_from_bf16(((const uint16_t *)data)[index]) : ((const float *)data)[index];
}

OPS_INLINE void store_element(void *data, size_t index, float value, bool bf16)
{
    if (bf16)
        ((uint16_t *)data)[index] = bf16_from_float(value);
    else
        ((float *)data)[index] = value;
}

/* e^x within 2 units in the last place; beyond [-87.3, 88.3] it stays at the value of that end, so
 * that it is never 0, infinite or subnormal. NaN gives NaN.
 *
 * x = n ln 2 + r with |r| <= ln(2)/2, e^x = 2^n e^r. ln 2 is split in two so that n times its first
 * part is exact. e^r = 1 + r + r^2 q(r), with q the interpolation of (e^r - 1 - r) / r^2 at the
 * Chebyshev points of degree 4 over |r| <= ln(2)/2: relative error 1.0e-8. */
OPS_INLINE float exp_vector(float x)
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

/* 1 / (1 + e^-x) */
OPS_INLINE float sigmoid_vector(float x)
{
    return 1.0f / (1.0f + exp_vector(-x));
}

#endif
