#include "base/rng.h"
#include "base/clones.h"
#include <assert.h>
#include <math.h>
#include <string.h>

__extension__ typedef unsigned __int128 wide;

static const uint64_t golden = 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */

/* The finaliser of splitmix64: a bijection of 64 bits in which every input bit reaches every
 * output bit. */
INLINED uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t stream_key(uint64_t seed, uint64_t stream)
{
    return mix(mix(seed + golden) + (stream + 1) * golden);
}

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    return mix(stream_key(seed, stream) + (index + 1) * golden);
}

/* Multiply-high with rejection (Lemire 2019): every value has exactly the same probability. */
uint64_t rng_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t bound)
{
    assert(bound > 0);
    uint64_t draw = rng_u64(seed, stream, index);
    uint64_t refused_below = (0 - bound) % bound;
    wide product = (wide)draw * bound;
    while ((uint64_t)product < refused_below) {
        draw = mix(draw + golden);
        product = (wide)draw * bound;
    }
    return (uint64_t)(product >> 64);
}

static double unit_interval(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return unit_interval(rng_u64(seed, stream, index));
}

/* ---- normal values ----
 *
 * Box and Muller 1958: sqrt(-2 log u) cos(2 pi v), with v from the mixed bits of u, so that one
 * index gives one value and no state is kept. log and cos are series of basic operations, which
 * IEEE 754 rounds alike everywhere: the value is the same to the bit on every CPU and in every
 * clone of the loop (this file is compiled without contraction), and loops of it become vectors. */

INLINED double from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

INLINED uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

/* [1, 2) in steps of 2^-52. */
INLINED double one_to_two(uint64_t bits)
{
    return from_bits((bits >> 12) | UINT64_C(0x3ff0000000000000));
}

/* log x of a normal x in (0, 1], to about 2 units in the last place. x = 2^e m with m in
 * [sqrt(1/2), sqrt(2)); log m = 2 atanh s, s = (m - 1) / (m + 1), |s| < 0.1716: the first term left
 * out is below 2 s^21 / 21 < 1e-17 of s. */
INLINED double log_of(double x)
{
    const uint64_t half_root = UINT64_C(0x3fe6a09e667f3bcd); /* sqrt(1/2) */
    const uint64_t integers = UINT64_C(0x4338000000000000);  /* 1.5 * 2^52 */
    const double ln_2_high = 0x1.62e42feep-1, ln_2_low = 0x1.a39ef35793c76p-33;
    uint64_t exponent = (bits_of(x) - half_root) & UINT64_C(0xfff0000000000000);
    double m = from_bits(bits_of(x) - exponent);
    /* The exponent's field as a number from -64 to 0, put into the low bits of a large double. */
    double e = from_bits(integers - ((0 - exponent) >> 52)) - 0x1.8p52;
    double s = (m - 1) / (m + 1), z = s * s;
    double series = 1.0 / 19;
    series = series * z + 1.0 / 17;
    series = series * z + 1.0 / 15;
    series = series * z + 1.0 / 13;
    series = series * z + 1.0 / 11;
    series = series * z + 1.0 / 9;
    series = series * z + 1.0 / 7;
    series = series * z + 1.0 / 5;
    series = series * z + 1.0 / 3;
    return e * ln_2_high + (2 * s + (2 * s * z * series + e * ln_2_low));
}

/* cos(2 pi v) for v in [0, 1): sin(2 pi y) of y = |v - 1/2| - 1/4 in [-1/4, 1/4], whose Taylor
 * series ends where its next term is below 2e-18. */
INLINED double cos_of_turn(double v)
{
    const double two_pi = 6.283185307179586476925;
    double x = two_pi * (fabs(v - 0.5) - 0.25), z = x * x;
    double series = 1.0 / 51090942171709440000.0; /* 1 / 21! */
    series = series * z - 1.0 / 121645100408832000.0;
    series = series * z + 1.0 / 355687428096000.0;
    series = series * z - 1.0 / 1307674368000.0;
    series = series * z + 1.0 / 6227020800.0;
    series = series * z - 1.0 / 39916800.0;
    series = series * z + 1.0 / 362880.0;
    series = series * z - 1.0 / 5040.0;
    series = series * z + 1.0 / 120.0;
    series = series * z - 1.0 / 6.0;
    return x + x * z * series;
}

INLINED double normal_of(uint64_t key, uint64_t index)
{
    uint64_t bits = mix(key + (index + 1) * golden);
    double radius = sqrt(-2.0 * log_of(2.0 - one_to_two(bits)));
    return radius * cos_of_turn(one_to_two(mix(bits + golden)) - 1.0);
}

double rng_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    return normal_of(stream_key(seed, stream), index);
}

CLONES
void rng_normals(uint64_t seed, uint64_t stream, uint64_t first, uint64_t count, double deviation,
                 float *out)
{
    uint64_t key = stream_key(seed, stream);
    for (uint64_t i = 0; i < count; i++)
        out[i] = (float)(deviation * normal_of(key, first + i));
}
