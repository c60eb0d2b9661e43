/* A chain of layers in memory exactly as the executor lays one out: flat parameters, gradients and
 * moments, boundaries, saved buffers, shared scratch. It has the model's embedding and head and as
 * many of its blocks as it takes to leave the caches cold, so that a layer is timed as it runs in a
 * step, between its neighbours. */
#ifndef TEMPER_PROFILER_CHAIN_H
#define TEMPER_PROFILER_CHAIN_H

#include "executor/ops/layer.h"
#include "profiler/session.h"

/* What a whole pass is run under. Kinds that do not admit the precision or recompute mode have
 * their nearest one: see chain_mode. */
struct chain_setting {
    enum precision precision;
    enum recompute recompute;
    int64_t micro_batch;
    /* False leaves the head out and starts backward from a prepared gradient. */
    bool with_head;
};

struct chain_layer {
    enum layer_kind kind;
    uint64_t first, count;  /* elements of the flat arrays */
    struct layer_call call; /* of the setting that is bound */
};

struct chain {
    struct session *session;
    struct model model; /* the request's with fewer blocks */
    size_t layer_count; /* 2 * blocks + 2 */
    struct chain_layer *layers;
    float *parameters, *gradients, *first_moment, *second_moment; /* [flat_count] */
    uint16_t *parameters_bf16; /* [flat_count]; NULL when bf16 is not measured */
    uint64_t flat_count;
    char *arena; /* activations of the setting that is bound */
    size_t arena_bytes;
    size_t bound_count;  /* layers that take part: all, or all but the head */
    float *gradient;     /* [T, hidden], in the arena */
    float *seed_pattern; /* host memory, [SEED_PATTERN_COUNT] */
    int64_t tokens;      /* T of the bound setting */
};

/* When set, called after each layer's backward. */
struct chain_hook {
    enum status (*layer_done)(void *user, size_t layer, struct error *err);
    void *user;
};

/* Parameters initialised as for training. `limit_bytes` bounds the static arrays; fewer blocks are
 * taken to keep it, at least one. Free with chain_close (a zeroed chain is allowed). */
enum status chain_open(struct chain *out, struct session *session, bool with_bf16,
                       uint64_t limit_bytes, struct error *err);
void chain_close(struct chain *chain);

/* Under what a layer of this kind runs in a setting. */
struct layer_precision_mode chain_mode(enum layer_kind kind, struct chain_setting setting);
uint64_t chain_static_bytes(const struct chain *chain);
uint64_t chain_activation_bytes(const struct chain *chain, struct chain_setting setting);
/* Make room for settings of at most this size; what was bound is no more. */
enum status chain_reserve(struct chain *chain, uint64_t activation_bytes, struct error *err);
/* Lay out a setting that fits into what was reserved, with tokens drawn at random. */
enum status chain_bind(struct chain *chain, struct chain_setting setting, struct error *err);

/* One micro-batch; times_ns [layer_count] receives each layer's time. */
enum status chain_forward(struct chain *chain, int64_t *times_ns, struct error *err);
/* `accumulate` as in layer_call; `hook` may be NULL. */
enum status chain_backward(struct chain *chain, bool accumulate, const struct chain_hook *hook,
                           int64_t *times_ns, struct error *err);
/* The end of a step: the norm of all gradients, then AdamW, with the bf16 copy when wanted. */
void chain_optimize(struct chain *chain, bool with_bf16, int64_t time, int64_t *times_ns);

#endif
