/* Causal softmax attention of all heads (Vaswani et al. 2017), with grouped key/value heads
 * (Ainslie et al. 2023) and an optional sliding window: query i sees the keys j with
 * i - window < j <= i.
 *
 * Two kernels. The plain one: a thread takes one key/value head of one sequence at a time with all
 * the query heads that share it, and of them ATTENTION_BLOCK_ROWS queries at once, so that only
 * keys that some of them see are multiplied. The arithmetic is fp32 in every precision; in 16 bit
 * the probabilities are rounded before they are used, kept or not, so that every recompute mode
 * gives the same bits.
 *
 * The tiled one (Dao et al. 2022, Dao 2023) goes through tiles of queries, and for each of them
 * through the tiles of keys that it sees; the probabilities of a pair of tiles are made from the
 * scores by an online softmax (Milakov, Gimelshein 2018) and gone with it. In bf16 the
 * exponentials, the gradient of the context and that of the scores are rounded where they become
 * operands, if the CPU multiplies bf16 (attention_tile.h); else, and in fp16, the arithmetic is
 * fp32. */
#ifndef TEMPER_OPS_ATTENTION_H
#define TEMPER_OPS_ATTENTION_H

#include "executor/ops/internal.h"

struct tile_ops;

struct attention {
    struct layer_dims dims;
    size_t window;   /* 0: none */
    const void *qkv; /* [tokens, qkv], fp32 or 16 bit */
    void *probs;     /* [sequences, heads, length, length], the same; NULL: not kept */
    void *context;   /* [tokens, context], the same; backward of the plain kernel: NULL unless it
                        shall be made */
    const float *context_gradient; /* [tokens, context]; backward */
    void *qkv_gradient;            /* [tokens, qkv], fp32 or 16 bit; backward */
    float *scratch;                /* [threads, attention_thread_floats] */
    size_t scratch_floats;         /* of one thread */
    const struct tile_ops *tile;   /* of the tiled kernel; NULL: the plain one */
    float *log_sums; /* [sequences, heads, length], as in SLOT_LOG_SUMS; of the tiled kernel */
};

struct attention attention_of(const struct layer_view *view, const struct layer_call *call);

void attention_heads_forward(struct device *device, const struct attention *z);
/* Plain: reads the probabilities from `probs`, or recomputes them when that is NULL. Tiled: reads
 * context and log_sums, and recomputes the scores. */
void attention_heads_backward(struct device *device, const struct attention *z);

#endif
