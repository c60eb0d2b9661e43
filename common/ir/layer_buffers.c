/* The buffers of each kind of layer: one table a kind, one row a slot.
 *
 * T = sequences * seq_length tokens, e = bytes of an element in the layer's precision. Heads, FFN
 * columns and vocabulary rows are those of the rank's part. Under sequence parallelism the rank has
 * T / ways tokens of the stream and the norm; what the matrix products read and write has all T.
 * fp16 has the sizes of bf16. A row of no bytes is a buffer that the mode does without. Sizes
 * beyond any machine stop at BYTES_LIMIT, which leaves room to add up a layer's buffers without
 * overflow. */
#include "ir/layer.h"

#include <string.h>

static const uint64_t BYTES_LIMIT = UINT64_C(1) << 56;

enum { FP32 = 4, HALF = 2 }; /* bytes of one element */

/* What the rows are made of, all in elements but for `e`. */
struct sizes {
    uint64_t tokens, stream_tokens, sequences, length, threads;
    uint64_t hidden, heads, head_dim, context, qkv, pre, ffn, vocab;
    uint64_t chunk; /* tokens of the head's */
    uint64_t e;
    bool halved; /* 16 bit */
    bool keeps_probs, is_tiled;
    bool splits_tokens;
};

static uint64_t mul(uint64_t a, uint64_t b)
{
    if (a != 0 && b > BYTES_LIMIT / a)
        return BYTES_LIMIT;
    return a * b;
}

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + BUFFER_ALIGN_BYTES - 1) / BUFFER_ALIGN_BYTES * BUFFER_ALIGN_BYTES;
}

static uint64_t tokens_of(const struct micro_batch_shape *shape)
{
    return mul((uint64_t)shape->sequences, (uint64_t)shape->seq_length);
}

static struct sizes sizes_of(const struct model *model, const struct layer_part *part,
                             struct layer_precision_mode mode,
                             const struct micro_batch_shape *shape)
{
    uint64_t head_dim = (uint64_t)model->head_dim;
    uint64_t heads = (uint64_t)(model->heads / part->ways);
    uint64_t kv_heads = (uint64_t)(model->kv_heads / part->ways);
    uint64_t ffn = (uint64_t)(model->ffn / part->ways);
    return (struct sizes){
        .tokens = tokens_of(shape),
        .stream_tokens = (uint64_t)part_stream_tokens(part, shape),
        .sequences = (uint64_t)shape->sequences,
        .length = (uint64_t)shape->seq_length,
        .threads = (uint64_t)shape->threads,
        .hidden = (uint64_t)model->hidden,
        .heads = heads,
        .head_dim = head_dim,
        .context = heads * head_dim,
        .qkv = (heads + 2 * kv_heads) * head_dim,
        .pre = model->family == MODEL_LLAMA ? 2 * ffn : ffn,
        .ffn = ffn,
        .vocab = (uint64_t)part_vocab_rows(model, part),
        .chunk = (uint64_t)head_chunk_tokens(model, part, shape),
        .e = precision_bytes(mode.precision),
        .halved = precision_bytes(mode.precision) == HALF,
        .keeps_probs = mode.recompute == RECOMPUTE_NONE && mode.attention == ATTENTION_PLAIN,
        .is_tiled = mode.attention == ATTENTION_TILED,
        .splits_tokens = part->sequence_parallel,
    };
}

/* Each thread works on one block of queries of one head at a time, in fp32: their probabilities and
 * the gradient of these [rows, s]. In 16 bit it has fp32 copies beside them: of k and v and their
 * gradients [s, head_dim], of q and of a result [rows, head_dim]. */
static uint64_t plain_thread_bytes(const struct sizes *z)
{
    uint64_t rows = z->length < ATTENTION_BLOCK_ROWS ? z->length : ATTENTION_BLOCK_ROWS;
    uint64_t elements = mul(2 * rows, z->length);
    if (z->halved)
        elements += mul(4 * z->length + 2 * rows, z->head_dim);
    return mul(z->threads, aligned(mul(elements, FP32)));
}

static uint64_t grains(uint64_t count)
{
    return (count + ATTENTION_TILE_GRAIN - 1) / ATTENTION_TILE_GRAIN * ATTENTION_TILE_GRAIN;
}

/* Each thread holds k and v of one head and their gradients [s, head_dim]; of one tile of queries
 * the operands and results [tile, head_dim], the scores and what is made of them [tile, tile] and
 * the sums [tile]. All elements are 4 bytes: floats or pairs of bf16. */
static uint64_t tiled_thread_bytes(const struct sizes *z)
{
    const uint64_t tile = ATTENTION_TILE;
    uint64_t elements = mul(4 * grains(z->length) + 9 * tile, grains(z->head_dim));
    elements += 4 * tile * tile + 8 * tile;
    return mul(z->threads, mul(elements, FP32));
}

static uint64_t attention_thread_bytes(const struct sizes *z)
{
    return z->is_tiled ? tiled_thread_bytes(z) : plain_thread_bytes(z);
}

static uint64_t log_sums_bytes(const struct sizes *z)
{
    return z->is_tiled ? mul(mul(z->sequences, z->heads), mul(z->length, FP32)) : 0;
}

static uint64_t probs_bytes(const struct sizes *z)
{
    return z->keeps_probs ? mul(mul(z->sequences, z->heads), mul(z->length, mul(z->length, z->e)))
                          : 0;
}

static uint64_t gather_bytes(const struct sizes *z)
{
    return z->splits_tokens ? mul(z->tokens, z->hidden * z->e) : 0;
}

static uint64_t group_bytes(const struct sizes *z)
{
    return z->splits_tokens ? mul(z->tokens, z->hidden * FP32) : 0;
}

static size_t copy_rows(struct buffer_spec *out, const struct buffer_spec *rows, size_t count)
{
    memcpy(out, rows, count * sizeof(*rows));
    return count;
}

static size_t embedding_buffers(const struct sizes *z, struct buffer_spec *out)
{
    const struct buffer_spec rows[] = {
        {SLOT_GROUP, BUFFER_SCRATCH, group_bytes(z)},
        {SLOT_ORDER, BUFFER_SCRATCH, mul(z->tokens, 2 * sizeof(int32_t))},
    };
    return copy_rows(out, rows, sizeof(rows) / sizeof(rows[0]));
}

static size_t attention_buffers(const struct sizes *z, struct buffer_spec *out)
{
    const struct buffer_spec rows[] = {
        {SLOT_NORM_STATS, BUFFER_SAVED, mul(z->stream_tokens, 2 * FP32)},
        {SLOT_NORM_OUT, BUFFER_SAVED, mul(z->stream_tokens, z->hidden * z->e)},
        {SLOT_QKV, BUFFER_SAVED, mul(z->tokens, z->qkv * z->e)},
        {SLOT_PROBS, BUFFER_SAVED, probs_bytes(z)},
        {SLOT_LOG_SUMS, BUFFER_SAVED, log_sums_bytes(z)},
        {SLOT_CONTEXT, BUFFER_SAVED, mul(z->tokens, z->context * z->e)},
        /* gradient of the context, then of the group's norm output */
        {SLOT_GRAD_A, BUFFER_SCRATCH, mul(z->tokens, max(z->hidden, z->context) * FP32)},
        /* gradient of qkv */
        {SLOT_GRAD_B, BUFFER_SCRATCH, mul(z->tokens, z->qkv * z->e)},
        /* the incoming gradient in 16 bit */
        {SLOT_GRAD_C, BUFFER_SCRATCH, z->halved ? mul(z->tokens, z->hidden * HALF) : 0},
        {SLOT_THREAD, BUFFER_SCRATCH, attention_thread_bytes(z)},
        {SLOT_GATHER, BUFFER_SCRATCH, gather_bytes(z)},
        {SLOT_GROUP, BUFFER_SCRATCH, group_bytes(z)},
    };
    return copy_rows(out, rows, sizeof(rows) / sizeof(rows[0]));
}

static size_t mlp_buffers(const struct sizes *z, struct buffer_spec *out)
{
    const struct buffer_spec rows[] = {
        {SLOT_NORM_STATS, BUFFER_SAVED, mul(z->stream_tokens, 2 * FP32)},
        {SLOT_NORM_OUT, BUFFER_SAVED, mul(z->stream_tokens, z->hidden * z->e)},
        {SLOT_PRE, BUFFER_SAVED, mul(z->tokens, z->pre * z->e)},
        {SLOT_ACT, BUFFER_SAVED, mul(z->tokens, z->ffn * z->e)},
        /* gradient of ACT where PRE's is wider; else that of PRE is made in its place */
        {SLOT_GRAD_A, BUFFER_SCRATCH, z->pre > z->ffn ? mul(z->tokens, z->ffn * z->e) : 0},
        /* gradient of PRE */
        {SLOT_GRAD_B, BUFFER_SCRATCH, mul(z->tokens, z->pre * z->e)},
        /* in 16 bit first the incoming gradient so; then the gradient of the norm's output */
        {SLOT_GRAD_C, BUFFER_SCRATCH, mul(z->tokens, z->hidden * FP32)},
        {SLOT_GATHER, BUFFER_SCRATCH, gather_bytes(z)},
        {SLOT_GROUP, BUFFER_SCRATCH, group_bytes(z)},
    };
    return copy_rows(out, rows, sizeof(rows) / sizeof(rows[0]));
}

/* In training all of the head's work is done in its backward call (executor/ops/layer.h). */
static size_t head_buffers(const struct sizes *z, struct buffer_spec *out)
{
    const struct buffer_spec rows[] = {
        {SLOT_NORM_STATS, BUFFER_SCRATCH, mul(z->stream_tokens, 2 * FP32)},
        {SLOT_NORM_OUT, BUFFER_SCRATCH, mul(z->stream_tokens, z->hidden * z->e)},
        {SLOT_LOGITS, BUFFER_SCRATCH, mul(z->chunk, z->vocab * FP32)},
        /* gradient of the norm's output */
        {SLOT_GRAD_A, BUFFER_SCRATCH, mul(z->tokens, z->hidden * FP32)},
        /* gradient of the logits in 16 bit; in fp32 it goes over the logits */
        {SLOT_GRAD_B, BUFFER_SCRATCH, z->halved ? mul(z->chunk, z->vocab * HALF) : 0},
        {SLOT_GATHER, BUFFER_SCRATCH, gather_bytes(z)},
        {SLOT_GROUP, BUFFER_SCRATCH, group_bytes(z)},
        {SLOT_LOSS, BUFFER_SCRATCH, mul(z->chunk, 4 * FP32)},
    };
    return copy_rows(out, rows, sizeof(rows) / sizeof(rows[0]));
}

size_t layer_part_buffers(const struct model *model, const struct layer_part *part,
                          struct layer_precision_mode mode, const struct micro_batch_shape *shape,
                          struct buffer_spec out[LAYER_BUFFERS_MAX])
{
    static size_t (*const tables[LAYER_KIND_COUNT])(const struct sizes *, struct buffer_spec *) = {
        [LAYER_EMBEDDING] = embedding_buffers,
        [LAYER_ATTENTION] = attention_buffers,
        [LAYER_MLP] = mlp_buffers,
        [LAYER_HEAD] = head_buffers,
    };
    struct sizes sizes = sizes_of(model, part, mode, shape);
    size_t listed = tables[part->kind](&sizes, out), count = 0;

    for (size_t i = 0; i < listed; i++) {
        struct buffer_spec row = out[i];
        if (row.bytes == 0)
            continue;
        row.bytes = aligned(row.bytes);
        if (mode.recompute == RECOMPUTE_FULL)
            row.life = BUFFER_SCRATCH;
        out[count++] = row;
    }
    return count;
}

static uint64_t bytes_of_life(const struct model *model, const struct layer_part *part,
                              struct layer_precision_mode mode,
                              const struct micro_batch_shape *shape, enum buffer_life life)
{
    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    size_t count = layer_part_buffers(model, part, mode, shape, buffers);
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        if (buffers[i].life == life)
            bytes += buffers[i].bytes;
    }
    return bytes;
}

uint64_t part_saved_bytes(const struct model *model, const struct layer_part *part,
                          struct layer_precision_mode mode, const struct micro_batch_shape *shape)
{
    return bytes_of_life(model, part, mode, shape, BUFFER_SAVED);
}

uint64_t part_scratch_bytes(const struct model *model, const struct layer_part *part,
                            struct layer_precision_mode mode, const struct micro_batch_shape *shape)
{
    return bytes_of_life(model, part, mode, shape, BUFFER_SCRATCH);
}

int64_t head_chunk_tokens(const struct model *model, const struct layer_part *part,
                          const struct micro_batch_shape *shape)
{
    enum { GRAIN = 16 }; /* whole tiles of the products */
    uint64_t tokens = tokens_of(shape), most = (uint64_t)shape->head_tokens;
    if (most == 0) {
        uint64_t row_bytes = (uint64_t)part_vocab_rows(model, part) * FP32;
        most = max(HEAD_CHUNK_BYTES / row_bytes, HEAD_CHUNK_TOKENS);
    }
    if (tokens <= most)
        return (int64_t)tokens;
    uint64_t chunks = (tokens + most - 1) / most;
    uint64_t even = (tokens + chunks - 1) / chunks;
    even = (even + GRAIN - 1) / GRAIN * GRAIN;
    return (int64_t)(even < most ? even : most);
}

int64_t part_stream_tokens(const struct layer_part *part, const struct micro_batch_shape *shape)
{
    return (int64_t)tokens_of(shape) / (part->sequence_parallel ? part->ways : 1);
}

uint64_t part_boundary_bytes(const struct model *model, const struct layer_part *part,
                             const struct micro_batch_shape *shape)
{
    uint64_t tokens = (uint64_t)part_stream_tokens(part, shape);
    return aligned(mul(tokens, (uint64_t)model->hidden * FP32));
}

/* ---- of a whole layer ---- */

size_t layer_buffers(const struct model *model, enum layer_kind kind,
                     struct layer_precision_mode mode, const struct micro_batch_shape *shape,
                     struct buffer_spec out[LAYER_BUFFERS_MAX])
{
    struct layer_part whole = layer_whole(kind);
    return layer_part_buffers(model, &whole, mode, shape, out);
}

uint64_t layer_saved_bytes(const struct model *model, enum layer_kind kind,
                           struct layer_precision_mode mode, const struct micro_batch_shape *shape)
{
    struct layer_part whole = layer_whole(kind);
    return part_saved_bytes(model, &whole, mode, shape);
}

uint64_t layer_scratch_bytes(const struct model *model, enum layer_kind kind,
                             struct layer_precision_mode mode,
                             const struct micro_batch_shape *shape)
{
    struct layer_part whole = layer_whole(kind);
    return part_scratch_bytes(model, &whole, mode, shape);
}

uint64_t boundary_bytes(const struct model *model, const struct micro_batch_shape *shape)
{
    struct layer_part whole = layer_whole(LAYER_MLP);
    return part_boundary_bytes(model, &whole, shape);
}
