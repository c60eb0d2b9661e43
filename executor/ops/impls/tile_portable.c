/* Tiles in fp32 on vectors of 4 floats, in plain C: for any machine. */
#define TILE_LANES                 4
#define TILE_VECTORS               2
#define TILE_ACCUMULATORS          12
#define TILE_EXP2_DEGREE           6
#define TILE_MAX(a, b)             choose((a) > (b), (a), (b))
#define TILE_MULTIPLY_ADD(c, a, b) ((c) + (a) * (b))
#include "executor/ops/impls/tile_fp32.h"

static bool is_supported(void)
{
    return true;
}

const struct tile_ops tile_fp32_portable = TILE_OPS_FP32("fp32 portable", is_supported);
