/* Spans of bf16 or fp16 to and from fp32, by the calling thread. Loops with more arithmetic than a
 * product run on fp32 chunks in the first-level cache: mixed widths would halve their vectors. */
#ifndef TEMPER_OPS_CONVERT_H
#define TEMPER_OPS_CONVERT_H

#include "ir/layer.h"
#include <stddef.h>
#include <stdint.h>

enum { CONVERT_CHUNK = 512 }; /* elements; 2 KiB of fp32 */

/* `precision` is that of the 16-bit side. */
void convert_widen(const uint16_t *from, float *to, size_t count, enum precision precision);
void convert_narrow(const float *from, uint16_t *to, size_t count, enum precision precision);
/* to[i] += from[i] of bf16, rounded once. */
void convert_add_bf16(const float *from, uint16_t *to, size_t count);
/* Each value to the nearest one that the precision has, in place. */
void convert_round(float *data, size_t count, enum precision precision);

#endif
