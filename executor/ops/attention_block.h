/* The pieces of attention that forward and backward share: one block of queries of one head. */
#ifndef TEMPER_OPS_ATTENTION_BLOCK_H
#define TEMPER_OPS_ATTENTION_BLOCK_H

#include "executor/ops/attention.h"

/* A thread's scratch, cut up. The copies are fp32 and exist in 16 bit only; in fp32 the GEMMs read
 * and write the layer's own arrays. */
struct workspace {
    float *probs, *probs_gradient;          /* [rows, length], rows = min(length, block rows) */
    float *k, *v, *k_gradient, *v_gradient; /* [length, head_dim] */
    float *q, *result;                      /* [rows, head_dim] */
};

/* One key/value head of one sequence. */
struct unit {
    size_t sequence, kv_head;
    size_t k_at, v_at; /* index of its first element in qkv */
    const float *k, *v;
    size_t stride; /* elements between rows of k and v, and of their gradients */
};

/* A block of queries of one head and the keys that they see between them. */
struct block {
    size_t begin, height;    /* queries */
    size_t first_key, width; /* keys */
    size_t q_at, context_at; /* index of its first element in qkv and in context */
    const float *q;
    size_t q_stride;
    size_t probs_at; /* index of its first probability in the kept ones */
    float *probs;    /* [height, width], rows probs_stride apart */
    size_t probs_stride;
};

size_t attention_units(const struct attention *z);
struct workspace attention_workspace(const struct attention *z);
struct unit attention_unit(const struct attention *z, const struct workspace *w, size_t index);
struct block attention_block(const struct attention *z, const struct workspace *w,
                             const struct unit *unit, size_t head, size_t begin);

/* Fill block->probs; 0 where a query does not see the key. */
void attention_block_probs(const struct attention *z, const struct unit *unit,
                           const struct block *block);
/* The block's rows of z->context from its probabilities. */
void attention_block_context(const struct attention *z, const struct workspace *w,
                             const struct unit *unit, const struct block *block);

/* 16-bit rows `stride` apart from element `at` on, to and from dense fp32 [rows, width]. */
void attention_unpack(const struct attention *z, const void *data, size_t at, size_t stride,
                      size_t rows, size_t width, float *out);
void attention_pack(const struct attention *z, const float *data, size_t rows, size_t width,
                    void *out, size_t at, size_t stride);

#endif
