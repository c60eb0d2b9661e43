#include "executor/comm/impls/mpi_bf16.h"

#include "base/bf16.h"
#include <string.h>

/* What a loop works on at once: in the first-level cache, and out of the way of what overlaps. */
enum { SPAN = 512 };

INLINED size_t span_at(size_t begin, size_t count)
{
    return count - begin < SPAN ? count - begin : SPAN;
}

/* Element i goes to half its offset: what is overwritten has been read. */
CLONES uint16_t *bf16_narrow_in_place(float *data, size_t count)
{
    uint16_t *out = (uint16_t *)(void *)data;
    for (size_t begin = 0; begin < count; begin += SPAN) {
        size_t length = span_at(begin, count);
        uint16_t span[SPAN] = {0};
        for (size_t i = 0; i < length; i++)
            span[i] = bf16_from_float(data[begin + i]);
        memcpy((char *)data + begin * sizeof(*out), span, length * sizeof(*span));
    }
    return out;
}

/* Element i of the second half is behind where it goes until the last. */
CLONES void bf16_widen_in_place(float *data, size_t count)
{
    const char *in = (const char *)data + count * sizeof(uint16_t);
    for (size_t begin = 0; begin < count; begin += SPAN) {
        size_t length = span_at(begin, count);
        uint16_t span[SPAN];
        memcpy(span, in + begin * sizeof(*span), length * sizeof(*span));
        for (size_t i = 0; i < length; i++)
            data[begin + i] = float_from_bf16(span[i]);
    }
}

INLINED void add_span(float *restrict sum, const uint16_t *restrict block, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += float_from_bf16(block[i]);
}

INLINED void round_span(float *restrict data, uint16_t *restrict narrow, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        narrow[i] = bf16_from_float(data[i]);
        data[i] = float_from_bf16(narrow[i]);
    }
}

CLONES void bf16_add(float *sum, uint16_t *narrow, const struct bf16_blocks *blocks, size_t count)
{
    for (size_t begin = 0; begin < count; begin += SPAN) {
        size_t length = span_at(begin, count);
        float all[SPAN] = {0};
        for (int rank = 0; rank < blocks->ranks; rank++) {
            size_t place = (size_t)(rank < blocks->mine ? rank : rank - 1);
            if (rank == blocks->mine)
                for (size_t i = 0; i < length; i++)
                    all[i] += float_from_bf16(bf16_from_float(blocks->own[begin + i]));
            else
                add_span(all, blocks->others + place * blocks->stride + begin, length);
        }
        if (narrow != NULL)
            round_span(all, narrow + begin, length);
        memcpy(sum + begin, all, length * sizeof(*all));
    }
}
