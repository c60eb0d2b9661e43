/* The implementations of tiles, for the table in attention_tile.c. */
#ifndef TEMPER_OPS_IMPLS_TILE_H
#define TEMPER_OPS_IMPLS_TILE_H

#include "executor/ops/attention_tile.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TILE_X86
extern const struct tile_ops tile_bf16_avx512, tile_fp32_avx512, tile_fp32_avx2;
#endif
extern const struct tile_ops tile_fp32_portable;

#endif
