#include "executor/ops/attention_tiled.h"

#include "executor/ops/convert.h"
#include "executor/ops/vector.h"
#include <assert.h>
#include <math.h>

static const float LOG2_E = 0x1.715476p+0f;

/* ---- a thread's scratch ---- */

static float *take(float **at, size_t count)
{
    float *taken = *at;
    *at += count;
    return taken;
}

/* [rows, width] in every form but transposed. */
static struct tile_operand take_operand(float **at, size_t rows, size_t width, size_t pack)
{
    struct tile_operand operand = {.along = take(at, rows * width / pack)};
    operand.across = pack == 1 ? operand.along : take(at, rows * width / pack);
    return operand;
}

struct tiled_thread tiled_thread_of(const struct attention *z, size_t thread)
{
    size_t length = tile_grains(z->dims.length), width = tile_grains(z->dims.head_dim);
    size_t pack = z->tile->pack;
    float *begin = z->scratch + thread * z->scratch_floats, *at = begin;
    struct tiled_thread t = {.width = width, .pack = pack, .unit = SIZE_MAX};
    t.k = take_operand(&at, length, width, pack);
    t.v = take_operand(&at, length, width, pack);
    t.k_gradient = take(&at, length * width);
    t.v_gradient = take(&at, length * width);
    t.q = take_operand(&at, TILE, width, pack);
    t.gradient = take_operand(&at, TILE, width, pack);
    t.q.transposed = take(&at, TILE * width / pack);
    t.gradient.transposed = take(&at, TILE * width / pack);
    t.sums = take(&at, TILE * width);
    t.rows = take(&at, TILE * width);
    t.scores = take(&at, TILE * TILE);
    t.slopes = take(&at, TILE * TILE);
    t.probs_along = t.scores;
    t.slopes_along = t.slopes_across = t.slopes;
    if (pack == 2) {
        t.probs_along = take(&at, TILE * TILE / 2);
        t.slopes_along = take(&at, TILE * TILE / 2);
        t.slopes_across = take(&at, TILE * TILE / 2);
    }
    t.softmax.weights = pack == 2 ? t.slopes_across : t.scores;
    t.softmax.maximum = take(&at, TILE);
    t.softmax.sum = take(&at, TILE);
    t.softmax.correction = take(&at, TILE);
    t.log_sum = take(&at, TILE);
    t.dot = take(&at, TILE);
    assert(at <= begin + z->scratch_floats);
    return t;
}

/* ---- which queries and keys ---- */

static size_t first_key_tile(const struct attention *z, size_t query)
{
    return z->window > 0 && query + 1 > z->window ? (query + 1 - z->window) / TILE : 0;
}

struct tiling tiling_of(const struct attention *z)
{
    struct tiling tiling = {.heads = z->dims.sequences * z->dims.heads};
    tiling.tiles = (z->dims.length + TILE - 1) / TILE;
    for (size_t tile = 0; tile < tiling.tiles; tile++)
        tiling.head_cost += tile + 1 - first_key_tile(z, tile * TILE);
    return tiling;
}

size_t tiling_cut(const struct attention *z, size_t heads, size_t part, size_t parts)
{
    struct tiling tiling = tiling_of(z);
    assert(tiling.head_cost > 0); /* a query sees itself */
    size_t cost = tiling.head_cost * heads * part / parts;
    size_t head = cost / tiling.head_cost, rest = cost % tiling.head_cost, tile = 0, sum = 0;
    while (sum < rest) {
        sum += tile + 1 - first_key_tile(z, tile * TILE);
        tile++;
    }
    return head * tiling.tiles + tile;
}

struct query_tile query_tile_of(const struct attention *z, size_t head, size_t tile)
{
    const struct layer_dims *d = &z->dims;
    struct query_tile q = {.sequence = head / d->heads, .head = head % d->heads};
    q.unit = q.sequence * d->kv_heads + q.head / (d->heads / d->kv_heads);
    q.begin = tile * TILE;
    q.height = d->length - q.begin < TILE ? d->length - q.begin : TILE;
    q.lanes = tile_grains(q.height);
    q.first_key = first_key_tile(z, q.begin);
    q.end_keys = tile + 1;
    size_t row = q.sequence * d->length + q.begin;
    q.q_at = row * d->qkv + q.head * d->head_dim;
    q.context_at = row * d->context + q.head * d->head_dim;
    return q;
}

/* ---- rows in and out ---- */

static const void *element_at(const void *data, enum precision precision, size_t index)
{
    return (const char *)data + index * (precision == PRECISION_FP32 ? 4 : 2);
}

/* Rows of `count` elements of two arrays, a stride apart. */
struct row_pair {
    const void *from;
    void *to;
    size_t from_stride, to_stride, rows, count;
};

INLINED void rows_loop(const struct row_pair *p, enum precision from, enum precision to,
                       float scale)
{
    for (size_t i = 0; i < p->rows; i++) {
        size_t from_at = i * p->from_stride, to_at = i * p->to_stride;
#pragma omp simd
        for (size_t j = 0; j < p->count; j++)
            store_element(p->to, to_at + j, scale * load_element(p->from, from_at + j, from), to);
    }
}

CLONES
static void rows_to_fp32(const struct row_pair *p, enum precision from, float scale)
{
    if (from == PRECISION_FP32)
        rows_loop(p, PRECISION_FP32, PRECISION_FP32, scale);
    else
        rows_loop(p, PRECISION_BF16, PRECISION_FP32, scale);
}

CLONES
static void rows_to_bf16(const struct row_pair *p, float scale)
{
    rows_loop(p, PRECISION_FP32, PRECISION_BF16, scale);
}

CLONES
static void rows_copy_16(const struct row_pair *p)
{
    for (size_t i = 0; i < p->rows; i++) {
        const uint16_t *from = (const uint16_t *)p->from + i * p->from_stride;
        uint16_t *to = (uint16_t *)p->to + i * p->to_stride;
#pragma omp simd
        for (size_t j = 0; j < p->count; j++)
            to[j] = from[j];
    }
}

/* The loop above does not become vectors in fp16. */
static void rows_from_fp16(const struct row_pair *p)
{
    for (size_t i = 0; i < p->rows; i++) {
        convert_widen((const uint16_t *)p->from + i * p->from_stride,
                      (float *)p->to + i * p->to_stride, p->count, PRECISION_FP16);
    }
}

static void rows_to_fp16(const struct row_pair *p)
{
    for (size_t i = 0; i < p->rows; i++) {
        convert_narrow((const float *)p->from + i * p->from_stride,
                       (uint16_t *)p->to + i * p->to_stride, p->count, PRECISION_FP16);
    }
}

void tile_rows_in(const struct attention *z, const void *data, enum precision precision,
                  size_t stride, size_t rows, size_t padded_rows, void *along)
{
    size_t head_dim = z->dims.head_dim, width = tile_grains(head_dim), pack = z->tile->pack;
    size_t value_bytes = sizeof(float) / pack;
    const struct row_pair pair = {data, along, stride, width, rows, head_dim};
    if (pack == 2 && precision == PRECISION_FP32)
        rows_to_bf16(&pair, 1.0f);
    else if (pack == 2)
        rows_copy_16(&pair);
    else if (precision == PRECISION_FP16)
        rows_from_fp16(&pair);
    else
        rows_to_fp32(&pair, precision, 1.0f);
    for (size_t i = 0; i < rows && width > head_dim; i++) {
        memset((char *)along + (i * width + head_dim) * value_bytes, 0,
               (width - head_dim) * value_bytes);
    }
    if (padded_rows > rows) {
        memset((char *)along + rows * width * value_bytes, 0,
               (padded_rows - rows) * width * value_bytes);
    }
}

void tile_rows_out(const struct attention *z, float *rows, size_t row_count, float scale, void *out,
                   size_t at, size_t stride)
{
    size_t element_bytes = z->dims.is_16 ? sizeof(uint16_t) : sizeof(float);
    size_t width = tile_grains(z->dims.head_dim);
    const struct row_pair pair = {.from = rows,
                                  .to = (char *)out + at * element_bytes,
                                  .from_stride = width,
                                  .to_stride = stride,
                                  .rows = row_count,
                                  .count = z->dims.head_dim};
    const struct row_pair in_place = {rows, rows, width, width, row_count, z->dims.head_dim};
    if (z->dims.precision == PRECISION_FP32) {
        rows_to_fp32(&pair, PRECISION_FP32, scale);
    } else if (z->dims.precision == PRECISION_BF16) {
        rows_to_bf16(&pair, scale);
    } else {
        rows_to_fp32(&in_place, PRECISION_FP32, scale);
        rows_to_fp16(&pair);
    }
}

/* A tile of keys and values, in the forms that forward or backward reads. */
static void keys_in(const struct attention *z, struct tiled_thread *t, size_t tile)
{
    const struct layer_dims *d = &z->dims;
    size_t begin = tile * TILE, rows = d->length - begin < TILE ? d->length - begin : TILE;
    size_t padded = tile_grains(rows), at = begin * t->width / t->pack;
    size_t k_at = (t->unit / d->kv_heads * d->length + begin) * d->qkv +
                  (d->heads + t->unit % d->kv_heads) * d->head_dim;
    size_t v_at = k_at + d->kv_heads * d->head_dim;
    float *k = (float *)t->k.along + at, *v = (float *)t->v.along + at;
    tile_rows_in(z, element_at(z->qkv, d->precision, k_at), d->precision, d->qkv, rows, padded, k);
    tile_rows_in(z, element_at(z->qkv, d->precision, v_at), d->precision, d->qkv, rows, padded, v);
    if (t->pack == 1)
        return;
    if (t->is_backward)
        z->tile->interleave(k, padded, t->width, (float *)t->k.across + at);
    else
        z->tile->interleave(v, padded, t->width, (float *)t->v.across + at);
}

void tile_queries_in(const struct attention *z, struct tiled_thread *t, const struct query_tile *q)
{
    const struct layer_dims *d = &z->dims;
    tile_rows_in(z, element_at(z->qkv, d->precision, q->q_at), d->precision, d->qkv, q->height,
                 q->lanes, t->q.along);
    z->tile->transpose(t->q.along, t->width / t->pack, q->lanes, t->width / t->pack,
                       t->q.transposed, TILE);
    if (t->unit != q->unit) {
        t->unit = q->unit;
        t->first_packed = t->end_packed = q->first_key;
    }
    while (t->first_packed > q->first_key)
        keys_in(z, t, --t->first_packed);
    while (t->end_packed < q->end_keys)
        keys_in(z, t, t->end_packed++);
}

/* ---- tiles of scores ---- */

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* The lanes that see some key of [key, key + keys), where the first lane is `distance` behind the
 * first key of the tile; none is a chunk without lanes. */
static struct tile_chunk chunk_of(const struct tile_scores *s, size_t key, size_t keys)
{
    int lanes = (int)s->lanes, first = (int)key - s->distance;
    int end = (int)key + (int)keys - 1 + s->window - s->distance;
    struct tile_chunk chunk = {.key = key, .keys = keys};
    chunk.lane = first > 0 ? (size_t)first / TILE_GRAIN * TILE_GRAIN : 0;
    size_t behind = end < 0 ? 0 : tile_grains((size_t)(end < lanes ? end : lanes));
    chunk.lanes = behind > chunk.lane ? behind - chunk.lane : 0;
    int nearest = (int)chunk.lane + s->distance - ((int)key + (int)keys - 1);
    int farthest = (int)(chunk.lane + chunk.lanes) - 1 + s->distance - (int)key;
    chunk.is_masked = nearest < 0 || farthest >= s->window;
    return chunk;
}

/* All of the tile at once where every query sees every key; else grain by grain, so that what
 * nobody sees is left out. */
static void cut_into_chunks(struct tile_scores *s, size_t keys)
{
    struct tile_chunk whole = chunk_of(s, 0, keys);
    if (whole.lanes == s->lanes && !whole.is_masked) {
        s->chunks[s->chunk_count++] = whole;
        return;
    }
    for (size_t key = 0; key < keys; key += TILE_GRAIN) {
        struct tile_chunk chunk = chunk_of(s, key, at_most(TILE_GRAIN, keys - key));
        if (chunk.lanes > 0)
            s->chunks[s->chunk_count++] = chunk;
    }
}

/* Of scores, for their exponentials to the base of 2. */
static float factor_of(const struct attention *z)
{
    return LOG2_E / sqrtf((float)z->dims.head_dim);
}

struct tile_scores tile_scores_of(const struct attention *z, const struct tiled_thread *t,
                                  const struct query_tile *q, size_t key_tile)
{
    size_t first = key_tile * TILE, far = z->dims.length + TILE;
    struct tile_scores s = {
        .lanes = q->lanes,
        .distance = (int)(q->begin - first),
        .window = (int)(z->window > 0 ? at_most(z->window, far) : far),
        .factor = factor_of(z),
        .scores = t->scores,
    };
    cut_into_chunks(&s, at_most(TILE, z->dims.length - first));
    size_t depth = (z->dims.head_dim + t->pack - 1) / t->pack;
    for (size_t i = 0; i < s.chunk_count; i++) {
        const struct tile_chunk *c = &s.chunks[i];
        z->tile->product(&(struct tile_product){
            .rows = c->keys,
            .columns = c->lanes,
            .depth = depth,
            .a = tile_at(t->k.along, (first + c->key) * t->width / t->pack),
            .a_row = t->width / t->pack,
            .a_depth = 1,
            .b = tile_at(t->q.transposed, c->lane),
            .b_stride = TILE,
            .c = t->scores + c->key * TILE + c->lane,
            .c_stride = TILE,
        });
    }
    return s;
}

void tile_sum_up(const struct attention *z, const struct tiled_thread *t,
                 const struct tile_scores *scores, size_t first_key, const void *a, const void *b)
{
    for (size_t i = 0; i < scores->chunk_count; i++) {
        const struct tile_chunk *c = &scores->chunks[i];
        z->tile->product(&(struct tile_product){
            .rows = z->dims.head_dim,
            .columns = c->lanes,
            .depth = (c->keys + t->pack - 1) / t->pack,
            .a = tile_at(a, (first_key + c->key) / t->pack * t->width),
            .a_row = 1,
            .a_depth = t->width,
            .b = tile_at(b, c->key / t->pack * TILE + c->lane),
            .b_stride = TILE,
            .c = t->sums + c->lane,
            .c_stride = TILE,
            .accumulate = true,
        });
    }
}

void tile_sums_out(const struct attention *z, const struct tiled_thread *t,
                   const struct query_tile *q)
{
    z->tile->transpose(t->sums, TILE, t->width, q->lanes, t->rows, t->width);
}

/* ---- forward ---- */

CLONES
static void scale_lanes(float *sums, size_t rows, size_t lanes, const float *factors)
{
    for (size_t i = 0; i < rows; i++) {
#pragma omp simd
        for (size_t lane = 0; lane < lanes; lane++)
            sums[i * TILE + lane] *= factors[lane];
    }
}

/* Divide by the sums of the exponentials; their logarithms are kept. */
static void forward_end(const struct attention *z, const struct tiled_thread *t,
                        const struct query_tile *q)
{
    const struct layer_dims *d = &z->dims;
    float factor = factor_of(z);
    float *log_sums = z->log_sums + (q->sequence * d->heads + q->head) * d->length + q->begin;
    for (size_t i = 0; i < q->height; i++)
        log_sums[i] = t->softmax.maximum[i] * factor + log2f(t->softmax.sum[i]);
    for (size_t i = 0; i < q->lanes; i++)
        t->softmax.correction[i] = 1.0f / t->softmax.sum[i];
    scale_lanes(t->sums, d->head_dim, q->lanes, t->softmax.correction);
    tile_sums_out(z, t, q);
    tile_rows_out(z, t->rows, q->height, 1.0f, z->context, q->context_at, d->context);
}

static void forward_tile(const struct attention *z, struct tiled_thread *t,
                         const struct query_tile *q)
{
    tile_queries_in(z, t, q);
    memset(t->sums, 0, t->width * TILE * sizeof(float));
    for (size_t i = 0; i < TILE; i++) {
        t->softmax.maximum[i] = TILE_NO_SCORE;
        t->softmax.sum[i] = 0.0f;
    }
    for (size_t key_tile = q->first_key; key_tile < q->end_keys; key_tile++) {
        struct tile_scores scores = tile_scores_of(z, t, q, key_tile);
        if (z->tile->softmax(&scores, &t->softmax) && key_tile > q->first_key)
            scale_lanes(t->sums, z->dims.head_dim, q->lanes, t->softmax.correction);
        tile_sum_up(z, t, &scores, key_tile * TILE, t->v.across, t->softmax.weights);
    }
    forward_end(z, t, q);
}

void attention_tiled_forward(struct device *device, const struct attention *z)
{
    struct tiling tiling = tiling_of(z);
#pragma omp parallel num_threads(device->threads)
    {
        size_t thread = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads();
        struct tiled_thread t = tiled_thread_of(z, thread);
        size_t end = tiling_cut(z, tiling.heads, thread + 1, threads);
        for (size_t i = tiling_cut(z, tiling.heads, thread, threads); i < end; i++) {
            struct query_tile q = query_tile_of(z, i / tiling.tiles, i % tiling.tiles);
            forward_tile(z, &t, &q);
        }
    }
}
