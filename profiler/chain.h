/* A chain of layers in memory exactly as the executor lays one out: flat parameters, gradients and
 * moments, boundaries, saved buffers, shared scratch. It has the model's embedding and head and as
 * many of its blocks as it takes to leave the caches cold, so that a layer is timed as it runs in a
 * step, between its neighbours. */
#ifndef TEMPER_PROFILER_CHAIN_H
#define TEMPER_PROFILER_CHAIN_H

#include "executor/ops/layer.h"
#include "profiler/chain_group.h"
#include "profiler/session.h"

/* How a pass splits its layers: as each rank of a tensor-parallel group of `ways` does. */
struct chain_split {
    int ways; /* 1: whole layers */
    bool sequence_parallel;
};

enum { CHAIN_SPLIT_BYTES = 32 };
/* ", tp2", ", tp2sp", or nothing of whole layers; returns `text`. */
const char *chain_split_text(struct chain_split split, char text[CHAIN_SPLIT_BYTES]);

/* What a whole pass is run under. Kinds that do not admit the precision, mode or kernel have
 * their nearest one: see chain_mode. */
struct chain_setting {
    enum precision precision;
    enum recompute recompute;
    enum attention_kernel attention;
    int64_t micro_batch; /* sequences of the group that shares the layers */
    struct chain_split split;
    /* False leaves the head out and starts backward from a prepared gradient. */
    bool with_head;
};

struct chain_layer {
    enum layer_kind kind;
    uint64_t first, count; /* elements of the flat arrays, of the whole layer */
    uint64_t matrix_count; /* of these: the matrices, the vectors stand behind them */
    /* Of the setting that is bound: a kind that its split does not admit is left out. */
    bool takes_part;
    struct layer_call call;
};

/* What a layer took in one pass, in nanoseconds; zero of one that takes no part. */
struct chain_time {
    int64_t compute;
    int64_t exchange; /* with the ranks that share it, waiting for them included */
};

struct chain {
    struct session *session;
    struct model model; /* the request's with fewer blocks */
    size_t layer_count; /* 2 * blocks + 2 */
    struct chain_layer *layers;
    float *parameters, *gradients, *first_moment, *second_moment; /* [flat_count] */
    uint16_t *parameters_16;     /* [flat_count]; NULL when neither bf16 nor fp16 is measured */
    enum precision precision_16; /* what they are in: that of the last setting of 16 bit */
    uint64_t flat_count;
    char *arena; /* activations of the setting that is bound */
    size_t arena_bytes;
    float *gradient;                       /* [S, hidden], in the arena */
    float *seed_pattern;                   /* host memory, [SEED_PATTERN_COUNT] */
    int32_t *token_inputs, *token_targets; /* [T], in the arena */
    int64_t tokens, stream_tokens;         /* T and S of the bound setting */
    struct chain_group group;              /* that shares the bound setting's layers */
};

/* When set, called after each layer's backward. */
struct chain_hook {
    enum status (*layer_done)(void *user, size_t layer, struct error *err);
    void *user;
};

/* Parameters initialised as for training; `with_16`: settings of bf16 or fp16 will be bound.
 * `limit_bytes` bounds the static arrays; fewer blocks are taken to keep it, at least one. Free
 * with chain_close (a zeroed chain is allowed). */
enum status chain_open(struct chain *out, struct session *session, bool with_16,
                       uint64_t limit_bytes, struct error *err);
void chain_close(struct chain *chain);

/* This rank's part of a layer. Every rank of the session is in some group of `ways` neighbours. */
struct layer_part chain_part(const struct chain *chain, enum layer_kind kind,
                             struct chain_split split);
/* Can the layers of this kind be split so? */
bool chain_admits(const struct chain *chain, enum layer_kind kind, struct chain_split split);
/* Under what a layer of this kind runs in a setting. */
struct layer_precision_mode chain_mode(enum layer_kind kind, struct chain_setting setting);
uint64_t chain_static_bytes(const struct chain *chain);
uint64_t chain_activation_bytes(const struct chain *chain, struct chain_setting setting);
/* Make room for settings of at most this size; what was bound is no more. */
enum status chain_reserve(struct chain *chain, uint64_t activation_bytes, struct error *err);
/* Lay out a setting that fits into what was reserved, with tokens drawn at random. Collective. */
enum status chain_bind(struct chain *chain, struct chain_setting setting, struct error *err);

/* One micro-batch; times [layer_count] receives each layer's. Collective where layers are split. */
enum status chain_forward(struct chain *chain, struct chain_time *times, struct error *err);
/* `accumulate` as in layer_call; `hook` may be NULL. */
enum status chain_backward(struct chain *chain, bool accumulate, const struct chain_hook *hook,
                           struct chain_time *times, struct error *err);

struct chain_update {
    int ways;                 /* each rank has its part of so many */
    enum precision precision; /* fp32: no copy of 16 bit */
    int64_t time;             /* steps so far, from 1 */
};

/* The end of a step: the norm of all gradients, then AdamW. times_ns [layer_count + 1] receives
 * each layer's time, 0 where `ways` do not admit it; the last is that of a tied head which owns a
 * table (the embedding's stands in for it), 0 without a tied head. */
void chain_optimize(struct chain *chain, const struct chain_update *update, int64_t *times_ns);

#endif
