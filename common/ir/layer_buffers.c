/* The buffers of each kind of layer: one table a kind, one row a slot.
 *
 * T = sequences * seq_length tokens, e = bytes of an element in the layer's precision. A row of no
 * bytes is a buffer that the mode does without. Sizes beyond any machine stop at BYTES_LIMIT, which
 * leaves room to add up a layer's buffers without overflow. */
#include "ir/layer.h"

#include <string.h>

static const uint64_t BYTES_LIMIT = UINT64_C(1) << 56;

enum { FP32 = 4, BF16 = 2 }; /* bytes of one element */

/* What the rows are made of, all in elements but for `e`. */
struct sizes {
    uint64_t tokens, sequences, length, threads;
    uint64_t hidden, heads, head_dim, context, qkv, pre, ffn, vocab;
    uint64_t e;
    bool bf16;
    bool keeps_probs;
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

static struct sizes sizes_of(const struct model *model, struct layer_precision_mode mode,
                             const struct micro_batch_shape *shape)
{
    uint64_t head_dim = (uint64_t)model->head_dim;
    uint64_t ffn = (uint64_t)model->ffn;
    return (struct sizes){
        .tokens = mul((uint64_t)shape->sequences, (uint64_t)shape->seq_length),
        .sequences = (uint64_t)shape->sequences,
        .length = (uint64_t)shape->seq_length,
        .threads = (uint64_t)shape->threads,
        .hidden = (uint64_t)model->hidden,
        .heads = (uint64_t)model->heads,
        .head_dim = head_dim,
        .context = (uint64_t)model->heads * head_dim,
        .qkv = (uint64_t)(model->heads + 2 * model->kv_heads) * head_dim,
        .pre = model->family == MODEL_LLAMA ? 2 * ffn : ffn,
        .ffn = ffn,
        .vocab = (uint64_t)model->vocab,
        .e = precision_bytes(mode.precision),
        .bf16 = mode.precision == PRECISION_BF16,
        .keeps_probs = mode.recompute == RECOMPUTE_NONE,
    };
}

/* Each thread works on one block of queries of one head at a time, in fp32: their probabilities and
 * the gradient of these [rows, s]. In bf16 it has fp32 copies beside them: of k and v and their
 * gradients [s, head_dim], of q and of a result [rows, head_dim]. */
static uint64_t attention_thread_bytes(const struct sizes *z)
{
    uint64_t rows = z->length < ATTENTION_BLOCK_ROWS ? z->length : ATTENTION_BLOCK_ROWS;
    uint64_t elements = mul(2 * rows, z->length);
    if (z->bf16)
        elements += mul(4 * z->length + 2 * rows, z->head_dim);
    uint64_t bytes = mul(elements, FP32);
    bytes = (bytes + BUFFER_ALIGN_BYTES - 1) / BUFFER_ALIGN_BYTES * BUFFER_ALIGN_BYTES;
    return mul(z->threads, bytes);
}

static uint64_t probs_bytes(const struct sizes *z)
{
    return z->keeps_probs ? mul(mul(z->sequences, z->heads), mul(z->length, mul(z->length, z->e)))
                          : 0;
}

static size_t copy_rows(struct buffer_spec *out, const struct buffer_spec *rows, size_t count)
{
    memcpy(out, rows, count * sizeof(*rows));
    return count;
}

static size_t attention_buffers(const struct sizes *z, struct buffer_spec *out)
{
    const struct buffer_spec rows[] = {
        {SLOT_NORM_STATS, BUFFER_SAVED, mul(z->tokens, 2 * FP32)},
        {SLOT_NORM_OUT, BUFFER_SAVED, mul(z->tokens, z->hidden * z->e)},
        {SLOT_QKV, BUFFER_SAVED, mul(z->tokens, z->qkv * z->e)},
        {SLOT_PROBS, BUFFER_SAVED, probs_bytes(z)},
        {SLOT_CONTEXT, BUFFER_SAVED, mul(z->tokens, z->context * z->e)},
        /* gradient of the context, then of the norm's output */
        {SLOT_GRAD_A, BUFFER_SCRATCH, mul(z->tokens, max(z->hidden, z->context) * FP32)},
        /* gradient of qkv */
        {SLOT_GRAD_B, BUFFER_SCRATCH, mul(z->tokens, z->qkv * z->e)},
        /* the incoming gradient as bf16 */
        {SLOT_GRAD_C, BUFFER_SCRATCH, z->bf16 ? mul(z->tokens, z->hidden * BF16) : 0},
        {SLOT_THREAD, BUFFER_SCRATCH, attention_thread_bytes(z)},
    };
    return copy_rows(out, rows, sizeof(rows) / sizeof(rows[0]));
}

static size_t mlp_buffers(const struct sizes *z, struct buffer_spec *out)
{
    const struct buffer_spec rows[] = {
        {SLOT_NORM_STATS, BUFFER_SAVED, mul(z->tokens, 2 * FP32)},
        {SLOT_NORM_OUT, BUFFER_SAVED, mul(z->tokens, z->hidden * z->e)},
        {SLOT_PRE, BUFFER_SAVED, mul(z->tokens, z->pre * z->e)},
        {SLOT_ACT, BUFFER_SAVED, mul(z->tokens, z->ffn * z->e)},
        /* gradient of ACT where PRE's is wider; else that of PRE is made in its place */
        {SLOT_GRAD_A, BUFFER_SCRATCH, z->pre > z->ffn ? mul(z->tokens, z->ffn * z->e) : 0},
        /* gradient of PRE */
        {SLOT_GRAD_B, BUFFER_SCRATCH, mul(z->tokens, z->pre * z->e)},
        /* in bf16 first the incoming gradient as bf16; then the gradient of the norm's output */
        {SLOT_GRAD_C, BUFFER_SCRATCH, mul(z->tokens, z->hidden * FP32)},
    };
    return copy_rows(out, rows, sizeof(rows) / sizeof(rows[0]));
}

static size_t head_buffers(const struct sizes *z, struct buffer_spec *out)
{
    const struct buffer_spec rows[] = {
        /* and, behind them, the log-sum-exp of each token's logits */
        {SLOT_NORM_STATS, BUFFER_SAVED, mul(z->tokens, 3 * FP32)},
        {SLOT_NORM_OUT, BUFFER_SAVED, mul(z->tokens, z->hidden * z->e)},
        {SLOT_LOGITS, BUFFER_SAVED, mul(z->tokens, z->vocab * FP32)},
        /* gradient of the norm's output */
        {SLOT_GRAD_A, BUFFER_SCRATCH, mul(z->tokens, z->hidden * FP32)},
        /* gradient of the logits as bf16; in fp32 it goes over the logits */
        {SLOT_GRAD_B, BUFFER_SCRATCH, z->bf16 ? mul(z->tokens, z->vocab * BF16) : 0},
    };
    return copy_rows(out, rows, sizeof(rows) / sizeof(rows[0]));
}

size_t layer_buffers(const struct model *model, enum layer_kind kind,
                     struct layer_precision_mode mode, const struct micro_batch_shape *shape,
                     struct buffer_spec out[LAYER_BUFFERS_MAX])
{
    struct sizes sizes = sizes_of(model, mode, shape);
    size_t listed = 0, count = 0;

    if (kind == LAYER_ATTENTION)
        listed = attention_buffers(&sizes, out);
    else if (kind == LAYER_MLP)
        listed = mlp_buffers(&sizes, out);
    else if (kind == LAYER_HEAD)
        listed = head_buffers(&sizes, out);

    for (size_t i = 0; i < listed; i++) {
        struct buffer_spec row = out[i];
        if (row.bytes == 0)
            continue;
        row.bytes = (row.bytes + BUFFER_ALIGN_BYTES - 1) / BUFFER_ALIGN_BYTES * BUFFER_ALIGN_BYTES;
        if (mode.recompute == RECOMPUTE_FULL)
            row.life = BUFFER_SCRATCH;
        out[count++] = row;
    }
    return count;
}

static uint64_t bytes_of_life(const struct model *model, enum layer_kind kind,
                              struct layer_precision_mode mode,
                              const struct micro_batch_shape *shape, enum buffer_life life)
{
    struct buffer_spec buffers[LAYER_BUFFERS_MAX];
    size_t count = layer_buffers(model, kind, mode, shape, buffers);
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        if (buffers[i].life == life)
            bytes += buffers[i].bytes;
    }
    return bytes;
}

uint64_t layer_saved_bytes(const struct model *model, enum layer_kind kind,
                           struct layer_precision_mode mode, const struct micro_batch_shape *shape)
{
    return bytes_of_life(model, kind, mode, shape, BUFFER_SAVED);
}

uint64_t layer_scratch_bytes(const struct model *model, enum layer_kind kind,
                             struct layer_precision_mode mode,
                             const struct micro_batch_shape *shape)
{
    return bytes_of_life(model, kind, mode, shape, BUFFER_SCRATCH);
}

uint64_t boundary_bytes(const struct model *model, const struct micro_batch_shape *shape)
{
    uint64_t tokens = mul((uint64_t)shape->sequences, (uint64_t)shape->seq_length);
    uint64_t bytes = mul(tokens, (uint64_t)model->hidden * FP32);
    return (bytes + BUFFER_ALIGN_BYTES - 1) / BUFFER_ALIGN_BYTES * BUFFER_ALIGN_BYTES;
}
