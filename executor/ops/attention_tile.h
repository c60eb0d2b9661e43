/* Arithmetic on tiles of attention: what one query tile and one key tile of a head make of each
 * other. One implementation a kind of CPU, in impls/; attention_tiled.c puts tiles together.
 *
 * Queries lie side by side in the lanes of vectors: scores are [keys, queries], so that maxima,
 * sums and corrections of a query are made lane by lane and keys and values are read one element at
 * a time, without transposing them. Every product then is
 *
 *     c[rows, columns] = a[rows, depth] b[depth, columns]
 *
 * with vectors along the columns, and a read element by element.
 *
 * An element of a and b is 4 bytes: a float, or a pair of bf16 that are neighbours along the depth
 * (`pack` 2). A matrix of rows x width values is held in three forms:
 *   along:      [rows, width / pack], pairs are neighbours in a row
 *   across:     [rows / pack, width], pairs are neighbours in a column; with pack 1 the same
 *   transposed: [width / pack, TILE]
 * with zeros where there is no value.
 *
 * To add an implementation: a file beside impls/tile_avx2.c and its row in attention_tile.c. */
#ifndef TEMPER_OPS_ATTENTION_TILE_H
#define TEMPER_OPS_ATTENTION_TILE_H

#include "ir/layer.h"
#include <stdbool.h>
#include <stddef.h>

enum { TILE = ATTENTION_TILE, TILE_GRAIN = ATTENTION_TILE_GRAIN, TILE_CHUNKS = TILE / TILE_GRAIN };

struct tile_product {
    size_t rows, columns, depth; /* columns: a multiple of TILE_GRAIN; depth in elements */
    const void *a;
    size_t a_row, a_depth; /* elements between neighbours along the rows and along the depth */
    const void *b;
    size_t b_stride; /* elements */
    float *c;
    size_t c_stride;
    bool accumulate; /* add to c */
};

/* Keys of a tile together with the queries that see some of them. */
struct tile_chunk {
    size_t key, keys;   /* of the tile; key is a multiple of TILE_GRAIN */
    size_t lane, lanes; /* multiples of TILE_GRAIN */
    bool is_masked;     /* not every one of these queries sees every one of these keys */
};

/* The scores of a query tile and a key tile. Query `lane` sees key `key` when 0 <= lane - key +
 * distance < window. */
struct tile_scores {
    struct tile_chunk chunks[TILE_CHUNKS];
    size_t chunk_count, lanes;
    int distance; /* of the tiles' first query from their first key, in tokens */
    int window;
    float factor;  /* the exponential of a score x is 2^(factor x) */
    float *scores; /* [TILE, TILE] */
};

/* Online softmax (Milakov, Gimelshein 2018), [TILE] each. */
struct tile_softmax {
    float *maximum;    /* of the scores so far */
    float *sum;        /* of 2^(factor (score - maximum)) */
    float *correction; /* that the last tile makes to what was summed up before it */
    void *weights;     /* [keys / pack, TILE] across: the exponentials; with pack 1 the scores */
};

/* Before the first tile. No score is as low. */
#define TILE_NO_SCORE (-1e30f)

/* Backward, with D = sum over head_dim of gradient x context (Dao et al. 2022). */
struct tile_slopes {
    const float *log_sum; /* [TILE]: log2 of the sum of 2^(factor score) */
    const float *dot;     /* [TILE]: D */
    float *slopes;        /* [TILE, TILE]: in: the gradient by the probabilities */
    /* Out; with pack 1 over the scores and over `slopes`. */
    void *probs_along;  /* [TILE, TILE / pack] */
    void *slopes_along; /* the gradient by factor x score, for log2 e = 1 */
    void *slopes_across;
};

struct tile_ops {
    const char *name; /* "fp32 avx512" */
    size_t pack;
    bool (*is_supported)(void); /* by this CPU */
    void (*product)(const struct tile_product *product);
    /* Elements [rows, columns], multiples of 4, to [columns, rows]. */
    void (*transpose)(const void *from, size_t from_stride, size_t rows, size_t columns, void *to,
                      size_t to_stride);
    /* Values [rows, width] along to across, rows even; NULL with pack 1. */
    void (*interleave)(const void *along, size_t rows, size_t width, void *across);
    /* Takes a tile's scores in; false: no maximum changed, the corrections are all 1. */
    bool (*softmax)(const struct tile_scores *scores, const struct tile_softmax *softmax);
    void (*slope)(const struct tile_scores *scores, const struct tile_slopes *slopes);
};

/* The best for this CPU, of those that compute with operands in `precision`: bf16 falls back to
 * fp32, which has the only ones for fp16. */
const struct tile_ops *tile_ops_for(enum precision precision);
/* All that were built in, best first; returns how many. For tests. */
size_t tile_ops_all(const struct tile_ops *const **out);

#endif
