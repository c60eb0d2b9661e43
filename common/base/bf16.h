/* bf16, the upper half of a float. */
#ifndef TEMPER_BASE_BF16_H
#define TEMPER_BASE_BF16_H

#include "base/clones.h"
#include <stdint.h>
#include <string.h>

INLINED uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

INLINED float float_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* Round to nearest, ties to even; NaN stays NaN. */
INLINED uint16_t bf16_from_float(float x)
{
    const uint32_t quiet_nan = 0x7fc0;
    uint32_t bits = float_bits(x);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(x != x ? quiet_nan : rounded);
}

INLINED float float_from_bf16(uint16_t x)
{
    return float_from_bits((uint32_t)x << 16);
}

#endif
