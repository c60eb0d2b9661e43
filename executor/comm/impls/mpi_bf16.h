/* Arithmetic of sums whose blocks travel in bf16: fp32 rounded and widened, additions in fp32. */
#ifndef TEMPER_COMM_IMPLS_MPI_BF16_H
#define TEMPER_COMM_IMPLS_MPI_BF16_H

#include <stddef.h>
#include <stdint.h>

/* bf16 is the upper half of an fp32: to nearest, ties to even; infinities and NaN stay what they
 * are. */

/* [count] fp32 at `data` become [count] bf16 in the first half of the same bytes. Returns them. */
uint16_t *bf16_narrow_in_place(float *data, size_t count);
/* [count] bf16 in the second half of the bytes at `data` become [count] fp32 there. */
void bf16_widen_in_place(float *data, size_t count);

/* The blocks of `ranks` ranks, [count] each, added up in the order of the ranks; `own` is that of
 * rank `mine`, fp32, and rounded like those that have travelled. `others` are the others' in their
 * order, bf16, `stride` elements apart. `sum` [count] is `own`, or overlaps none of them. With
 * `narrow` [count] the sums are rounded, and it has them as bf16; it may be NULL. */
struct bf16_blocks {
    const float *own;
    const uint16_t *others;
    size_t stride;
    int ranks, mine;
};
void bf16_add(float *sum, uint16_t *narrow, const struct bf16_blocks *blocks, size_t count);

#endif
