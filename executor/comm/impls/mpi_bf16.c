#include "executor/comm/impls/mpi_bf16.h"

#include <string.h>

/* Compiled for plain x86-64, for AVX2 and for AVX-512; the loader picks. Sanitizers instrument the
 * resolver too, which runs before they are set up. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

/* What a loop works on at once: in the first-level cache, and out of the way of what overlaps. */
enum { SPAN = 512 };

INLINE uint16_t narrowed(float x)
{
    const uint32_t quiet_nan = 0x7fc0;
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(x != x ? quiet_nan : rounded);
}

INLINE float widened(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, sizeof(out));
    return out;
}

INLINE size_t span_at(size_t begin, size_t count)
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
            span[i] = narrowed(data[begin + i]);
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
            data[begin + i] = widened(span[i]);
    }
}

CLONES void bf16_round(float *restrict data, uint16_t *restrict narrow, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        narrow[i] = narrowed(data[i]);
        data[i] = widened(narrow[i]);
    }
}

INLINE void add_span(float *restrict sum, const uint16_t *restrict block, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += widened(block[i]);
}

CLONES void bf16_add(float *sum, const struct bf16_blocks *blocks, size_t count)
{
    for (size_t begin = 0; begin < count; begin += SPAN) {
        size_t length = span_at(begin, count);
        float all[SPAN] = {0};
        for (int rank = 0; rank < blocks->ranks; rank++) {
            size_t place = (size_t)(rank < blocks->mine ? rank : rank - 1);
            if (rank == blocks->mine)
                for (size_t i = 0; i < length; i++)
                    all[i] += widened(narrowed(blocks->own[begin + i]));
            else
                add_span(all, blocks->others + place * blocks->stride + begin, length);
        }
        memcpy(sum + begin, all, length * sizeof(*all));
    }
}
