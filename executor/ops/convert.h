/* Spans of bf16 to and from fp32, by the calling thread. Loops with more arithmetic than a product
 * run on fp32 chunks in the first-level cache: mixed widths would halve their vectors. */
#ifndef TEMPER_OPS_CONVERT_H
#define TEMPER_OPS_CONVERT_H

#include <stddef.h>
#include <stdint.h>

enum { CONVERT_CHUNK = 512 }; /* elements; 2 KiB of fp32 */

void bf16_widen(const uint16_t *from, float *to, size_t count);
void bf16_narrow(const float *from, uint16_t *to, size_t count);

#endif
