#include "base/rng.h"
#include <assert.h>
#include <math.h>

__extension__ typedef unsigned __int128 wide;

static const uint64_t golden = 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */

/* The finaliser of splitmix64: a bijection of 64 bits in which every input bit reaches every
 * output bit. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t key = mix(mix(seed + golden) + (stream + 1) * golden);
    return mix(key + (index + 1) * golden);
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

/* Box and Muller 1958; the second uniform value is derived from the first's 64 bits, so that one
 * index gives one value and no state is kept. */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    const double two_pi = 6.283185307179586476925;
    uint64_t bits = rng_u64(seed, stream, index);
    double radius = sqrt(-2.0 * log(1.0 - unit_interval(bits)));
    return radius * cos(two_pi * unit_interval(mix(bits + golden)));
}
