/* Tiles in fp32 on vectors of 8 floats. */
#include "executor/ops/impls/tile.h"

#ifdef TILE_X86
#pragma GCC target("avx2,fma")
#include <immintrin.h>

#define TILE_LANES                 8
#define TILE_VECTORS               2
#define TILE_ACCUMULATORS          12
#define TILE_EXP2_DEGREE           6
#define TILE_MAX(a, b)             ((vec)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define TILE_MULTIPLY_ADD(c, a, b) ((c) + (a) * (b))
#include "executor/ops/impls/tile_fp32.h"

static bool is_supported(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const struct tile_ops tile_fp32_avx2 = TILE_OPS_FP32("fp32 avx2", is_supported);
#else
typedef int tile_not_for_this_machine;
#endif
