/* The heads of one attention layer alone, with random q, k, v and gradient of the context, for both
 * kernels: for tests and benchmarks of attention. */
#ifndef TEMPER_TESTS_OPS_HEADS_H
#define TEMPER_TESTS_OPS_HEADS_H

#include "executor/ops/attention.h"
#include "executor/ops/attention_tile.h"

struct heads_shape {
    size_t sequences, length, heads, kv_heads, head_dim;
    size_t window; /* 0: none */
    enum precision precision;
    int threads;
};

struct heads {
    struct device *device;
    struct attention plain, tiled;
    size_t qkv_count, context_count; /* elements */
    void *memory[10];                /* what the two read and write */
    size_t bytes[10];
};

/* Every array of the two kernels is its own, but for what they only read. Scratch has the size that
 * the layer's table of buffers says. */
enum status heads_open(struct heads *heads, const struct heads_shape *shape, struct error *err);
void heads_close(struct heads *heads);
/* An array of the layer's precision, widened, into out [count]. */
void heads_widen(const struct heads *heads, const void *data, float *out, size_t count);

#endif
