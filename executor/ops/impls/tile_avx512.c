/* Tiles in fp32 on vectors of 16 floats. */
#include "executor/ops/impls/tile.h"

#ifdef TILE_X86
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma")
#include <immintrin.h>

#define TILE_LANES                 16
#define TILE_VECTORS               4
#define TILE_ACCUMULATORS          24
#define TILE_EXP2_DEGREE           6
#define TILE_MAX(a, b)             ((vec)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define TILE_MULTIPLY_ADD(c, a, b) ((c) + (a) * (b))
#include "executor/ops/impls/tile_fp32.h"

static bool is_supported(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}

const struct tile_ops tile_fp32_avx512 = TILE_OPS_FP32("fp32 avx512", is_supported);
#else
typedef int tile_not_for_this_machine;
#endif
