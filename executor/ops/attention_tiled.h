/* What forward and backward of tiled attention share: one tile of queries of one head, and the
 * keys and values of its sequence as operands of products. */
#ifndef TEMPER_OPS_ATTENTION_TILED_H
#define TEMPER_OPS_ATTENTION_TILED_H

#include "executor/ops/attention.h"
#include "executor/ops/attention_tile.h"

/* A matrix in the forms that attention_tile.h describes; with pack 1 `across` is `along`. */
struct tile_operand {
    void *along, *across, *transposed;
};

/* A thread's scratch, cut up. L is the length and W the width of a head, rounded up to
 * TILE_GRAIN. */
struct tiled_thread {
    struct tile_operand k, v;        /* [L, W] of one unit; not transposed */
    float *k_gradient, *v_gradient;  /* [L, W], of one unit */
    struct tile_operand q, gradient; /* [TILE, W]; gradient: of the context */
    float *sums;                     /* [W, TILE]: context, or gradient of q, transposed */
    float *rows;                     /* [TILE, W]: the same, not transposed */
    float *scores, *slopes;          /* [TILE, TILE] */
    struct tile_softmax softmax;
    float *log_sum, *dot; /* [TILE] */
    /* Operands made of scores and slopes: as struct tile_slopes has them. */
    void *probs_along, *slopes_along, *slopes_across;

    bool is_backward;
    size_t width, pack;
    size_t unit;                     /* whose k and v are in place, */
    size_t first_packed, end_packed; /* of which tiles of keys */
};

/* A tile of queries. */
struct query_tile {
    size_t sequence, head, unit;
    size_t begin, height;       /* queries */
    size_t lanes;               /* height rounded up to TILE_GRAIN */
    size_t first_key, end_keys; /* tiles of keys that some query sees: [first_key, end_keys) */
    size_t q_at, context_at;    /* index of its first element in qkv and in context */
};

/* Which queries one thread has: tiles of all heads, numbered head by head. */
struct tiling {
    size_t heads;     /* sequences x heads */
    size_t tiles;     /* of queries, of one head */
    size_t head_cost; /* pairs of tiles of one head */
};

struct tiled_thread tiled_thread_of(const struct attention *z, size_t thread);
struct tiling tiling_of(const struct attention *z);
struct query_tile query_tile_of(const struct attention *z, size_t head, size_t tile);
/* Where `part` of `parts` begins that cost about the same: an index of tiles of `heads` heads. */
size_t tiling_cut(const struct attention *z, size_t heads, size_t part, size_t parts);

/* Rows of an array in `precision`, `stride` elements apart, to along [padded_rows, width], in the
 * pack's format. */
void tile_rows_in(const struct attention *z, const void *data, enum precision precision,
                  size_t stride, size_t rows, size_t padded_rows, void *along);
/* scale x rows [rows, width] to an array in the layer's precision; may scale them in place. */
void tile_rows_out(const struct attention *z, float *rows, size_t row_count, float scale, void *out,
                   size_t at, size_t stride);
/* Bring in the query tile's q, transposed, and the keys and values that it sees. */
void tile_queries_in(const struct attention *z, struct tiled_thread *t, const struct query_tile *q);
/* The scores of the query tile and one tile of keys. */
struct tile_scores tile_scores_of(const struct attention *z, const struct tiled_thread *t,
                                  const struct query_tile *q, size_t key_tile);
/* sums [head_dim, lanes] += a^T b over the keys of each chunk; `a` across, b as scores are. */
void tile_sum_up(const struct attention *z, const struct tiled_thread *t,
                 const struct tile_scores *scores, size_t first_key, const void *a, const void *b);
/* sums transposed back, [lanes, width] in rows. */
void tile_sums_out(const struct attention *z, const struct tiled_thread *t,
                   const struct query_tile *q);

void attention_tiled_forward(struct device *device, const struct attention *z);
/* Reads context and log_sums as forward left them. */
void attention_tiled_backward(struct device *device, const struct attention *z);

static inline size_t tile_grains(size_t count)
{
    return (count + TILE_GRAIN - 1) / TILE_GRAIN * TILE_GRAIN;
}

/* An element of 4 bytes further on. */
static inline const void *tile_at(const void *elements, size_t index)
{
    return (const char *)elements + index * sizeof(float);
}

#endif
