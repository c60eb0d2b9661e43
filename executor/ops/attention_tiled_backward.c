#include "executor/ops/attention_tiled.h"

#include "executor/ops/vector.h"
#include <math.h>

/* ---- a tile of queries ---- */

/* Rows of the context's gradient and of the context, of the same type. */
struct dot_rows {
    const void *gradient, *context;
    size_t gradient_stride, context_stride, rows, count;
    float *out;
};

INLINED void dots_loop(const struct dot_rows *r, enum precision precision)
{
    for (size_t i = 0; i < r->rows; i++) {
        size_t gradient_at = i * r->gradient_stride, context_at = i * r->context_stride, j = 0;
        float_lanes sums = {0}, gradient, context;
        for (; j + LANES <= r->count; j += LANES) {
            lanes_load(&gradient, r->gradient, gradient_at + j, precision);
            lanes_load(&context, r->context, context_at + j, precision);
            sums += gradient * context;
        }
        float sum = lanes_sum(&sums);
        for (; j < r->count; j++) {
            sum += load_element(r->gradient, gradient_at + j, precision) *
                   load_element(r->context, context_at + j, precision);
        }
        r->out[i] = sum;
    }
}

CLONES
static void dots_fp32(const struct dot_rows *r)
{
    dots_loop(r, PRECISION_FP32);
}

CLONES
static void dots_bf16(const struct dot_rows *r)
{
    dots_loop(r, PRECISION_BF16);
}

/* Of the gradient as it is in the products, and 0 beyond the last query. */
static void dots(const struct attention *z, const struct tiled_thread *t,
                 const struct query_tile *q)
{
    const struct layer_dims *d = &z->dims;
    size_t element_bytes = d->is_16 ? sizeof(uint16_t) : sizeof(float);
    struct dot_rows rows = {
        .gradient = t->gradient.along,
        .context = (const char *)z->context + q->context_at * element_bytes,
        .gradient_stride = t->width,
        .context_stride = d->context,
        .rows = q->height,
        .count = d->head_dim,
        .out = t->dot,
    };
    memset(t->dot, 0, TILE * sizeof(float));
    if (t->pack == 2) {
        dots_bf16(&rows);
        return;
    }
    if (d->is_16) {
        tile_rows_in(z, rows.context, d->precision, d->context, q->height, q->height, t->rows);
        rows.context = t->rows;
        rows.context_stride = t->width;
    }
    dots_fp32(&rows);
}

/* Everything that does not depend on the keys. Beyond the last query all of it is 0. */
static void backward_begin(const struct attention *z, struct tiled_thread *t,
                           const struct query_tile *q)
{
    const struct layer_dims *d = &z->dims;
    size_t elements = t->width / t->pack, row = q->sequence * d->heads + q->head;
    tile_queries_in(z, t, q);
    tile_rows_in(z, z->context_gradient + q->context_at, PRECISION_FP32, d->context, q->height,
                 q->lanes, t->gradient.along);
    z->tile->transpose(t->gradient.along, elements, q->lanes, elements, t->gradient.transposed,
                       TILE);
    if (t->pack == 2) {
        z->tile->interleave(t->q.along, q->lanes, t->width, t->q.across);
        z->tile->interleave(t->gradient.along, q->lanes, t->width, t->gradient.across);
    }
    memset(t->log_sum, 0, TILE * sizeof(float));
    memcpy(t->log_sum, z->log_sums + row * d->length + q->begin, q->height * sizeof(float));
    dots(z, t, q);
    memset(t->sums, 0, t->width * TILE * sizeof(float));
}

/* The gradient by the probabilities of each chunk: v x gradient of the context. */
static void slopes_begin(const struct attention *z, const struct tiled_thread *t,
                         const struct tile_scores *scores, size_t first_key)
{
    for (size_t i = 0; i < scores->chunk_count; i++) {
        const struct tile_chunk *c = &scores->chunks[i];
        z->tile->product(&(struct tile_product){
            .rows = c->keys,
            .columns = c->lanes,
            .depth = (z->dims.head_dim + t->pack - 1) / t->pack,
            .a = tile_at(t->v.along, (first_key + c->key) * t->width / t->pack),
            .a_row = t->width / t->pack,
            .a_depth = 1,
            .b = tile_at(t->gradient.transposed, c->lane),
            .b_stride = TILE,
            .c = t->slopes + c->key * TILE + c->lane,
            .c_stride = TILE,
        });
    }
}

/* out [keys, width] += a b over the queries; a [keys, lanes] along, b [queries, width] across. */
static void add_to_keys(const struct attention *z, const struct tiled_thread *t,
                        const struct tile_scores *scores, const void *a, const void *b, float *out)
{
    for (size_t i = 0; i < scores->chunk_count; i++) {
        const struct tile_chunk *c = &scores->chunks[i];
        z->tile->product(&(struct tile_product){
            .rows = c->keys,
            .columns = t->width,
            .depth = c->lanes / t->pack,
            .a = tile_at(a, (c->key * TILE + c->lane) / t->pack),
            .a_row = TILE / t->pack,
            .a_depth = 1,
            .b = tile_at(b, c->lane / t->pack * t->width),
            .b_stride = t->width,
            .c = out + c->key * t->width,
            .c_stride = t->width,
            .accumulate = true,
        });
    }
}

static void backward_tile(const struct attention *z, struct tiled_thread *t,
                          const struct query_tile *q)
{
    const struct tile_slopes slopes = {
        .log_sum = t->log_sum,
        .dot = t->dot,
        .slopes = t->slopes,
        .probs_along = t->probs_along,
        .slopes_along = t->slopes_along,
        .slopes_across = t->slopes_across,
    };
    backward_begin(z, t, q);
    for (size_t key_tile = q->first_key; key_tile < q->end_keys; key_tile++) {
        size_t first = key_tile * TILE;
        struct tile_scores scores = tile_scores_of(z, t, q, key_tile);
        slopes_begin(z, t, &scores, first);
        z->tile->slope(&scores, &slopes);
        add_to_keys(z, t, &scores, t->probs_along, t->gradient.across,
                    t->v_gradient + first * t->width);
        add_to_keys(z, t, &scores, t->slopes_along, t->q.across, t->k_gradient + first * t->width);
        tile_sum_up(z, t, &scores, first, t->k.across, t->slopes_across);
    }
    tile_sums_out(z, t, q);
    tile_rows_out(z, t->rows, q->height, 1.0f / sqrtf((float)z->dims.head_dim), z->qkv_gradient,
                  q->q_at, z->dims.qkv);
}

/* ---- a unit: one key/value head of one sequence ---- */

/* Threads that share a unit, one behind the other. */
struct team {
    size_t unit, first_thread, threads, member;
};

/* The member's share of the unit's queries; k and v gradients of these are in its scratch. */
static void backward_share(const struct attention *z, struct tiled_thread *t,
                           const struct team *team)
{
    const struct layer_dims *d = &z->dims;
    size_t group = d->heads / d->kv_heads, tiles = tiling_of(z).tiles;
    size_t first_head = team->unit / d->kv_heads * d->heads + team->unit % d->kv_heads * group;
    memset(t->k_gradient, 0, d->length * t->width * sizeof(float));
    memset(t->v_gradient, 0, d->length * t->width * sizeof(float));
    size_t end = tiling_cut(z, group, team->member + 1, team->threads);
    for (size_t i = tiling_cut(z, group, team->member, team->threads); i < end; i++) {
        struct query_tile q = query_tile_of(z, first_head + i / tiles, i % tiles);
        backward_tile(z, t, &q);
    }
}

CLONES
static void add_onto(float *sum, const float *addend, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        sum[i] += addend[i];
}

/* Rows [begin, end) of the unit's k and v gradients: the members' added up in the first one's
 * scratch, and written. */
static void write_keys(const struct attention *z, const struct team *team, size_t begin, size_t end)
{
    const struct layer_dims *d = &z->dims;
    struct tiled_thread first = tiled_thread_of(z, team->first_thread);
    size_t at = begin * first.width, count = (end - begin) * first.width;
    for (size_t i = 1; i < team->threads; i++) {
        struct tiled_thread other = tiled_thread_of(z, team->first_thread + i);
        add_onto(first.k_gradient + at, other.k_gradient + at, count);
        add_onto(first.v_gradient + at, other.v_gradient + at, count);
    }
    size_t k_at = (team->unit / d->kv_heads * d->length + begin) * d->qkv +
                  (d->heads + team->unit % d->kv_heads) * d->head_dim;
    tile_rows_out(z, first.k_gradient + at, end - begin, 1.0f / sqrtf((float)d->head_dim),
                  z->qkv_gradient, k_at, d->qkv);
    tile_rows_out(z, first.v_gradient + at, end - begin, 1.0f, z->qkv_gradient,
                  k_at + d->kv_heads * d->head_dim, d->qkv);
}

/* Each thread has as many whole units as all can have; those that are left are each shared by a
 * team. */
static void backward_thread(const struct attention *z, size_t thread, size_t threads)
{
    size_t units = z->dims.sequences * z->dims.kv_heads, each = units / threads;
    size_t left = units % threads, length = z->dims.length;
    struct tiled_thread t = tiled_thread_of(z, thread);
    t.is_backward = true;
    for (size_t unit = thread * each; unit < (thread + 1) * each; unit++) {
        const struct team alone = {.unit = unit, .first_thread = thread, .threads = 1};
        backward_share(z, &t, &alone);
        write_keys(z, &alone, 0, length);
    }
    if (left == 0)
        return;
    size_t shared = thread * left / threads;
    struct team team = {.unit = each * threads + shared};
    team.first_thread = (shared * threads + left - 1) / left;
    team.threads = ((shared + 1) * threads + left - 1) / left - team.first_thread;
    team.member = thread - team.first_thread;
    backward_share(z, &t, &team);
#pragma omp barrier
    write_keys(z, &team, length * team.member / team.threads,
               length * (team.member + 1) / team.threads);
}

void attention_tiled_backward(struct device *device, const struct attention *z)
{
#pragma omp parallel num_threads(device->threads)
    backward_thread(z, (size_t)omp_get_thread_num(), (size_t)omp_get_num_threads());
}
