/* What implementations of tiles are made of: products, transposition and exponentials on vectors of
 * TILE_LANES floats. Each includes it once, is compiled for its own CPU, and says before:
 *
 *     TILE_LANES                  floats in a vector
 *     TILE_VECTORS                vectors that a block of a product is wide: 2 or 4
 *     TILE_ACCUMULATORS           of a block at most: the registers, less what feeds them
 *     TILE_MAX(a, b)              the larger one, b where one of them is NaN
 *     TILE_MULTIPLY_ADD(c, a, b)  c + a b of elements
 *     TILE_EXP2_DEGREE            of the polynomial: 4 or 6 */
#include "executor/ops/impls/tile.h"

#include <stdint.h>
#include <string.h>

#define TILE_INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(TILE_LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(TILE_LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(TILE_LANES * 4)));
typedef float quad __attribute__((vector_size(16)));
typedef int32_t iquad __attribute__((vector_size(16)));

TILE_INLINE vec load(const float *from)
{
    vec x;
    memcpy(&x, from, sizeof(x));
    return x;
}

TILE_INLINE void store(float *to, vec x)
{
    memcpy(to, &x, sizeof(x));
}

/* An element of any kind in every lane: moved as an integer, so that its bits stay. */
TILE_INLINE vec splat(const float *from)
{
    int32_t bits;
    memcpy(&bits, from, sizeof(bits));
    return (vec)(bits + (ivec){0});
}

/* ---- products ---- */

enum { BLOCK_ROWS_MAX = 8, BLOCK_VECTORS_MAX = 4 };

/* A block of c, [rows, vectors x lanes], in registers over the whole depth. Rows and vectors are
 * constants at every call. */
TILE_INLINE void block(int rows, int vectors, const struct tile_product *p, const float *a,
                       const float *b, float *c)
{
    vec sums[BLOCK_ROWS_MAX][BLOCK_VECTORS_MAX];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            const float *at = c + (size_t)i * p->c_stride + j * TILE_LANES;
            sums[i][j] = p->accumulate ? load(at) : (vec){0};
        }
    }
    size_t a_row = p->a_row, a_depth = p->a_depth, b_stride = p->b_stride;
    for (size_t k = 0; k < p->depth; k++) {
        vec right[BLOCK_VECTORS_MAX];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            right[j] = load(b + k * b_stride + j * TILE_LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            vec left = splat(a + (size_t)i * a_row + k * a_depth);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                sums[i][j] = TILE_MULTIPLY_ADD(sums[i][j], left, right[j]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            store(c + (size_t)i * p->c_stride + j * TILE_LANES, sums[i][j]);
    }
}

/* One function a size of block, so that each has all registers. */
#define DEFINE_BLOCK(rows, vectors)                                                                \
    static void block_##rows##x##vectors(const struct tile_product *p, const float *a,             \
                                         const float *b, float *c)                                 \
    {                                                                                              \
        block(rows, vectors, p, a, b, c);                                                          \
    }

#define DEFINE_BLOCKS(vectors)                                                                     \
    DEFINE_BLOCK(8, vectors)                                                                       \
    DEFINE_BLOCK(4, vectors)                                                                       \
    DEFINE_BLOCK(2, vectors)                                                                       \
    DEFINE_BLOCK(1, vectors)

#define BLOCK_SIZES(vectors)                                                                       \
    {                                                                                              \
        block_8x##vectors, block_4x##vectors, block_2x##vectors, block_1x##vectors                 \
    }

typedef void block_function(const struct tile_product *p, const float *a, const float *b, float *c);

#if TILE_VECTORS == 4
DEFINE_BLOCKS(1)
DEFINE_BLOCKS(2)
DEFINE_BLOCKS(3)
DEFINE_BLOCKS(4)
static block_function *const blocks[][4] = {
    {0}, BLOCK_SIZES(1), BLOCK_SIZES(2), BLOCK_SIZES(3), BLOCK_SIZES(4)};
#else
DEFINE_BLOCKS(2)
static block_function *const blocks[][4] = {{0}, {0}, BLOCK_SIZES(2)};
#endif

/* Columns [column, column + vectors x lanes) of a product. */
static void product_panel(const struct tile_product *p, size_t column, size_t vectors)
{
    const float *a = p->a, *b = (const float *)p->b + column;
    float *c = p->c + column;
    /* Larger blocks have more accumulators than there are registers. */
    size_t size = vectors * 8 > TILE_ACCUMULATORS ? 1 : 0;
    for (size_t row = 0; row < p->rows;) {
        size_t height = (size_t)8 >> size;
        if (p->rows - row < height) {
            size++;
            continue;
        }
        blocks[vectors][size](p, a + row * p->a_row, b, c + row * p->c_stride);
        row += height;
    }
}

static void tile_product(const struct tile_product *p)
{
    const size_t lanes = TILE_LANES;
    for (size_t column = 0; column < p->columns; column += TILE_VECTORS * lanes) {
        size_t vectors = (p->columns - column) / lanes;
        product_panel(p, column, vectors < TILE_VECTORS ? vectors : TILE_VECTORS);
    }
}

/* ---- transposition ---- */

/* clang knows only the one, GCC before 12 only the other. */
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (iquad){__VA_ARGS__})
#endif

TILE_INLINE void transpose_quad(const float *from, size_t from_stride, float *to, size_t to_stride)
{
    quad x[4], y[4];
    for (size_t i = 0; i < 4; i++)
        memcpy(&x[i], from + i * from_stride, sizeof(quad));
    y[0] = SHUFFLE(x[0], x[1], 0, 4, 1, 5);
    y[1] = SHUFFLE(x[0], x[1], 2, 6, 3, 7);
    y[2] = SHUFFLE(x[2], x[3], 0, 4, 1, 5);
    y[3] = SHUFFLE(x[2], x[3], 2, 6, 3, 7);
    x[0] = SHUFFLE(y[0], y[2], 0, 1, 4, 5);
    x[1] = SHUFFLE(y[0], y[2], 2, 3, 6, 7);
    x[2] = SHUFFLE(y[1], y[3], 0, 1, 4, 5);
    x[3] = SHUFFLE(y[1], y[3], 2, 3, 6, 7);
    for (size_t i = 0; i < 4; i++)
        memcpy(to + i * to_stride, &x[i], sizeof(quad));
}

static void tile_transpose(const void *from, size_t from_stride, size_t rows, size_t columns,
                           void *to, size_t to_stride)
{
    for (size_t i = 0; i < rows; i += 4) {
        for (size_t j = 0; j < columns; j += 4) {
            transpose_quad((const float *)from + i * from_stride + j, from_stride,
                           (float *)to + j * to_stride + i, to_stride);
        }
    }
}

/* ---- exponentials and masks ---- */

TILE_INLINE vec choose(ivec mask, vec where_set, vec elsewhere)
{
    return (vec)(((ivec)where_set & mask) | ((ivec)elsewhere & ~mask));
}

/* 2^x for x <= 127, from -126 down 2^-126; NaN gives NaN. x = n + r with |r| <= 1/2; 2^r is the
 * interpolation at the Chebyshev points of |r| <= 1/2 that is 1 at 0: of degree 4 with a relative
 * error of 3.6e-6, for exponentials that become bf16; of degree 6 with 1.9e-8. */
TILE_INLINE vec exp2_of(vec x)
{
    const vec to_integer = (vec){0} + 0x1.8p+23f;
    x = TILE_MAX((vec){0} - 126.0f, x);
    vec shifted = x + to_integer, r = x - (shifted - to_integer);
#if TILE_EXP2_DEGREE == 4
    vec y = 0x1.3cbf6p-7f + (vec){0};
    y = y * r + 0x1.ca1ce2p-5f;
    y = y * r + 0x1.ebfa4cp-3f;
    y = y * r + 0x1.62e0c2p-1f;
#else
    vec y = 0x1.444p-13f + (vec){0};
    y = y * r + 0x1.5f48cp-10f;
    y = y * r + 0x1.3b2a1cp-7f;
    y = y * r + 0x1.c6aeccp-5f;
    y = y * r + 0x1.ebfbep-3f;
    y = y * r + 0x1.62e43p-1f;
#endif
    y = y * r + 1.0f;
    /* 2^n by adding n to the exponent of a number near 1 */
    return (vec)((uvec)y + ((uvec)shifted << 23));
}

/* Lanes [lane, lane + TILE_LANES) of the queries that see a key: all bits or none. */
TILE_INLINE ivec visible(const struct tile_scores *s, size_t key, size_t lane)
{
    ivec ahead = {0};
    for (int i = 0; i < TILE_LANES; i++)
        ahead[i] = i;
    ahead += (int)lane - (int)key + s->distance;
    return (ahead >= 0) & (ahead < s->window);
}

/* The maxima with those of a new tile in them; hides scores that are not seen. */
TILE_INLINE void raise_maxima(const struct tile_scores *s, float *maxima)
{
    for (size_t i = 0; i < s->chunk_count; i++) {
        const struct tile_chunk *c = &s->chunks[i];
        for (size_t lane = c->lane; lane < c->lane + c->lanes; lane += TILE_LANES) {
            vec maximum = load(maxima + lane);
            for (size_t key = c->key; key < c->key + c->keys; key++) {
                float *at = s->scores + key * TILE + lane;
                vec x = load(at);
                if (c->is_masked) {
                    x = choose(visible(s, key, lane), x, (vec){0} + TILE_NO_SCORE);
                    store(at, x);
                }
                maximum = TILE_MAX(x, maximum);
            }
            store(maxima + lane, maximum);
        }
    }
}

/* From the old maxima to the new: corrections, and the sums so far; false: nothing changed. */
TILE_INLINE bool correct_sums(const struct tile_scores *s, const struct tile_softmax *softmax,
                              const float *maxima)
{
    ivec changed = {0};
    for (size_t lane = 0; lane < s->lanes; lane += TILE_LANES) {
        vec before = load(softmax->maximum + lane), now = load(maxima + lane);
        vec correction = exp2_of((before - now) * s->factor);
        changed |= before != now;
        store(softmax->correction + lane, correction);
        store(softmax->sum + lane, load(softmax->sum + lane) * correction);
        store(softmax->maximum + lane, now);
    }
    int32_t any = 0;
    for (int i = 0; i < TILE_LANES; i++)
        any |= changed[i];
    return any != 0;
}

/* The exponential of a score in `maximum`, which is factor x maximum; 0 where it is hidden. */
TILE_INLINE vec weight_of(const struct tile_scores *s, const struct tile_chunk *chunk, vec score,
                          vec maximum)
{
    vec weight = exp2_of(score * s->factor - maximum);
    if (chunk->is_masked)
        weight = choose(score == TILE_NO_SCORE, (vec){0}, weight);
    return weight;
}
