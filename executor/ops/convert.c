#include "executor/ops/convert.h"

#include "executor/ops/vector.h"

INLINED void widen_loop(const uint16_t *from, float *to, size_t count, enum precision precision)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        to[i] = float_from_16(from[i], precision);
}

CLONES
void convert_widen(const uint16_t *from, float *to, size_t count, enum precision precision)
{
    if (precision == PRECISION_BF16)
        widen_loop(from, to, count, PRECISION_BF16);
    else
        widen_loop(from, to, count, PRECISION_FP16);
}

INLINED void narrow_loop(const float *from, uint16_t *to, size_t count, enum precision precision)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        to[i] = float_to_16(from[i], precision);
}

CLONES
void convert_narrow(const float *from, uint16_t *to, size_t count, enum precision precision)
{
    if (precision == PRECISION_BF16)
        narrow_loop(from, to, count, PRECISION_BF16);
    else
        narrow_loop(from, to, count, PRECISION_FP16);
}

CLONES
void convert_add_bf16(const float *from, uint16_t *to, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        to[i] = bf16_from_float(float_from_bf16(to[i]) + from[i]);
}

INLINED void round_loop(float *data, size_t count, enum precision precision)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        data[i] = float_from_16(float_to_16(data[i], precision), precision);
}

CLONES
void convert_round(float *data, size_t count, enum precision precision)
{
    if (precision == PRECISION_BF16)
        round_loop(data, count, PRECISION_BF16);
    else
        round_loop(data, count, PRECISION_FP16);
}
