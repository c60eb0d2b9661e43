#include "executor/ops/convert.h"

#include "executor/ops/vector.h"

OPS_CLONES
void bf16_widen(const uint16_t *from, float *to, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        to[i] = float_from_bf16(from[i]);
}

OPS_CLONES
void bf16_narrow(const float *from, uint16_t *to, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        to[i] = bf16_from_float(from[i]);
}
