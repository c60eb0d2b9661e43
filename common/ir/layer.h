/* The table of layer kinds: for each kind its tensors, FLOPs, buffers and admitted strategies.
 *
 * This is the one place that says what a layer is made of. The executor allocates what it lists,
 * the cost model predicts memory from the same list, so that predicted and laid-out bytes agree. */
#ifndef TEMPER_IR_LAYER_H
#define TEMPER_IR_LAYER_H

#include "ir/model.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum layer_kind { LAYER_EMBEDDING, LAYER_ATTENTION, LAYER_MLP, LAYER_HEAD, LAYER_KIND_COUNT };

/* fp16 keeps and moves half the bytes of fp32; a device without fp16 arithmetic computes it in fp32
 * between roundings. It needs loss scaling (executor/scaler.h). */
enum precision { PRECISION_FP32, PRECISION_BF16, PRECISION_FP16, PRECISION_COUNT };

/* What of a layer's activations is kept for its backward pass. */
enum recompute {
    RECOMPUTE_NONE,      /* everything */
    RECOMPUTE_SELECTIVE, /* all but the attention probabilities (Korthikanti et al. 2022) */
    RECOMPUTE_FULL,      /* only the layer's input */
    RECOMPUTE_COUNT
};

/* How the attention layer goes from q, k and v to the context. */
enum attention_kernel {
    ATTENTION_PLAIN, /* a row of scores at a time; the probabilities can be kept */
    ATTENTION_TILED, /* blocks of scores that are never stored (Dao et al. 2022): of each row its
                        log-sum-exp is kept, and backward makes the scores again */
    ATTENTION_KERNEL_COUNT
};

/* The phases of a layer's work in a step. Those of communication count only what compute does not
 * hide: the time that the rank waits. */
enum phase {
    PHASE_FORWARD,      /* compute alone */
    PHASE_BACKWARD,     /* compute alone; includes what is recomputed */
    PHASE_TENSOR,       /* collectives inside layers: tensor and sequence parallel, resharding */
    PHASE_PIPELINE,     /* activations and gradients of other stages: transfers and bubble */
    PHASE_PARAM_GATHER, /* ZeRO: gathering parameters before use or after the update */
    PHASE_GRAD_REDUCE,  /* gradients over the data-parallel ranks, and the tied table's */
    PHASE_OPTIMIZER,    /* gradient norm, clipping and AdamW */
    PHASE_OTHER,        /* data, bookkeeping, waiting at the step's end */
    PHASE_COUNT
};

/* A layer's place in the chain. */
struct layer {
    enum layer_kind kind;
    int64_t block; /* of attention and mlp; 0 otherwise */
};

struct layer model_layer(const struct model *model, size_t index);

const char *layer_kind_name(enum layer_kind kind);    /* "embedding", "attention", "mlp", "head" */
const char *precision_name(enum precision precision); /* "fp32", "bf16", "fp16" */
const char *recompute_name(enum recompute recompute); /* "none", "selective", "full" */
const char *phase_name(enum phase phase);             /* "forward", ... */
const char *attention_kernel_name(enum attention_kernel kernel); /* "plain", "tiled" */
/* What is kept and by which kernel, in words: "full", "none, tiled". */
const char *layer_mode_text(enum recompute recompute, enum attention_kernel kernel);
bool layer_kind_parse(const char *name, enum layer_kind *out);
bool precision_parse(const char *name, enum precision *out);
bool recompute_parse(const char *name, enum recompute *out);
bool phase_parse(const char *name, enum phase *out);
bool attention_kernel_parse(const char *name, enum attention_kernel *out);
uint64_t precision_bytes(enum precision precision); /* of one element */

/* Does this kind admit this recompute mode or precision? Embedding: none/fp32 only; head: no
 * recompute; mlp: none or full (selective would be the same as none). */
bool layer_admits_recompute(enum layer_kind kind, enum recompute recompute);
bool layer_admits_precision(enum layer_kind kind, enum precision precision);
/* Tiled: attention only, and not together with selective recompute, which would be the same as
 * none. */
bool layer_admits_kernel(enum layer_kind kind, enum attention_kernel kernel,
                         enum recompute recompute);

/* ---- tensors ---- */

/* A tensor's role inside its layer, the index into a layer's parameter pointers. For llama the
 * roles Q, K, V are separate tensors laid out one behind the other (as are GATE and UP), so that
 * one GEMM reads them as one matrix; for gpt2 QKV is stored as one [hidden, 3*hidden] tensor in
 * ROLE_Q. */
enum tensor_role {
    ROLE_TOKEN_EMBEDDING,    /* [vocab, hidden] */
    ROLE_POSITION_EMBEDDING, /* [positions, hidden], gpt2 */
    ROLE_NORM_WEIGHT,        /* [hidden]; of attention, mlp and head */
    ROLE_NORM_BIAS,          /* [hidden], gpt2 */
    ROLE_Q_WEIGHT,   /* gpt2 [hidden, (heads + 2 kv_heads) head_dim]; llama [heads*head_dim, hidden]
                      */
    ROLE_K_WEIGHT,   /* llama [kv_heads*head_dim, hidden] */
    ROLE_V_WEIGHT,   /* llama [kv_heads*head_dim, hidden] */
    ROLE_QKV_BIAS,   /* gpt2 [(heads + 2 kv_heads) head_dim] */
    ROLE_OUT_WEIGHT, /* gpt2 [heads*head_dim, hidden]; llama [hidden, heads*head_dim] */
    ROLE_OUT_BIAS,   /* gpt2 [hidden] */
    ROLE_GATE_WEIGHT, /* llama [ffn, hidden] */
    ROLE_UP_WEIGHT,   /* gpt2 [hidden, ffn]; llama [ffn, hidden] */
    ROLE_UP_BIAS,     /* gpt2 [ffn] */
    ROLE_DOWN_WEIGHT, /* gpt2 [ffn, hidden]; llama [hidden, ffn] */
    ROLE_DOWN_BIAS,   /* gpt2 [hidden] */
    ROLE_HEAD_WEIGHT, /* [vocab, hidden]; untied only: a tied head reads ROLE_TOKEN_EMBEDDING */
    ROLE_COUNT
};

enum { LAYER_TENSORS_MAX = 8, TENSOR_NAME_BYTES = 96 };

enum tensor_init { INIT_NORMAL, INIT_ZERO, INIT_ONE };

struct tensor_spec {
    enum tensor_role role;
    const char *name_format; /* HF name; one %lld for the block number where there is one */
    int64_t rows, cols;      /* as stored on disk and in memory; a vector has rows == 1 */
    bool is_vector;          /* shape [cols] on disk, not [1, cols] */
    /* ZeRO does not shard it, and in memory it stands among the vectors: vectors, and the position
     * table, which has to be apart from the token table for a tied head's sake. */
    bool stays_whole;
    bool decays; /* weight decay applies: matrices yes, norms and biases no */
    enum tensor_init init;
    double init_deviation; /* of INIT_NORMAL: 0.02, residual projections 0.02 / sqrt(2 * blocks) */
};

/* Of a model that model_check_executable passes (of others they list what such a model has; what
 * is more counts in layer_parameter_count alone).
 * The whole layer's own tensors in memory order, matrices before vectors and the norm's before
 * other vectors; returns how many. */
size_t layer_tensors(const struct model *model, enum layer_kind kind,
                     struct tensor_spec out[LAYER_TENSORS_MAX]);
uint64_t tensor_count(const struct tensor_spec *spec); /* rows * cols */
/* The HF name ("transformer.h.3.attn.c_attn.weight"); returns `name`. */
const char *tensor_name(const struct tensor_spec *spec, int64_t block,
                        char name[TENSOR_NAME_BYTES]);
/* Of every model. LAYER_MLP is a block without experts; a block with them has `experts` (of
 * model->experts: all, or those that one token passes), router, shared expert and norm. */
uint64_t layer_parameter_count(const struct model *model, enum layer_kind kind);
uint64_t experts_parameter_count(const struct model *model, int64_t experts);
/* Elements of the layer in the flat parameter array: the tensors one behind the other, the whole
 * rounded up to LAYER_ALIGN_ELEMENTS. */
enum { LAYER_ALIGN_ELEMENTS = 16 };
uint64_t layer_flat_count(const struct model *model, enum layer_kind kind);

/* ---- parts: tensor and sequence parallel ---- */

/* One rank's part of a layer (Shoeybi et al. 2019; Korthikanti et al. 2022): attention heads, FFN
 * columns and vocabulary rows are split over `ways` ranks. With sequence_parallel the residual
 * stream and the norms are split as well, along the group's tokens: rank `index` has the tokens
 * [index * T / ways, (index + 1) * T / ways) of the T = sequences * seq_length of the group. */
struct layer_part {
    enum layer_kind kind;
    int ways;               /* tensor-parallel degree t, 1 or more */
    int index;              /* of this rank in its group: 0 .. ways - 1 */
    bool sequence_parallel; /* only with ways > 1 */
    /* Of a tied model's head: it has a copy of the token table of its own, since the embedding is
     * on another pipeline stage. */
    bool owns_table;
};

struct layer_part layer_whole(enum layer_kind kind);
/* Can this model's layer be split so? STATUS_INVALID says what does not divide, "attention: 12
 * heads do not divide by tensor_parallel 5". A vocabulary that does not divide is padded. */
enum status layer_part_check(const struct model *model, const struct layer_part *part,
                             struct error *err);
/* Rows of the token table that a rank holds, ceil(vocab / ways), and how many of them are real:
 * the last ranks' may be fewer. The others stay 0, in gradients and moments, too. */
int64_t part_vocab_rows(const struct model *model, const struct layer_part *part);
int64_t part_vocab_valid(const struct model *model, const struct layer_part *part);

/* rows x cols elements at (row, col) of a whole tensor stand at (local_row, local_col) of the part.
 */
struct tensor_slice {
    int64_t row, col, local_row, local_col, rows, cols;
};

enum { TENSOR_SLICES_MAX = 3 };

/* A tensor as one rank holds it. */
struct tensor_part {
    struct tensor_spec whole;
    int64_t rows, cols;                            /* held by the rank, padding included */
    bool is_split;                                 /* else every rank of the group has the whole */
    struct tensor_slice slices[TENSOR_SLICES_MAX]; /* what of the rank's elements is not padding */
    size_t slice_count;
};

/* In memory order: first the matrices, then the vectors (all that stays whole); returns how many. A
 * tied head has a table (ROLE_HEAD_WEIGHT, under the token embedding's name and initial values)
 * where it owns one. */
size_t layer_part_tensors(const struct model *model, const struct layer_part *part,
                          struct tensor_part out[LAYER_TENSORS_MAX]);
uint64_t tensor_part_count(const struct tensor_part *tensor); /* rows * cols as held */

/* Elements of a part in memory: matrices one behind the other, then vectors, each of the two
 * rounded up to LAYER_ALIGN_ELEMENTS. */
struct part_counts {
    uint64_t matrices, vectors;
    /* Of the vectors the first `partial` elements (the norm's) have gradients that are sums over
     * the group under sequence parallelism. */
    uint64_t partial;
};
struct part_counts layer_part_counts(const struct model *model, const struct layer_part *part);

/* ---- work ---- */

/* One micro-batch as a layer sees it. */
struct micro_batch_shape {
    int64_t sequences;  /* that the ranks of a tensor-parallel group work on together */
    int64_t seq_length; /* s */
    int threads;        /* that compute it: some scratch is one piece a thread */
    /* Tokens whose logits the head makes at once, at most; 0: as head_chunk_tokens chooses. */
    int64_t head_tokens;
};

/* Tokens whose logits the head makes at once: it goes through the group's T in chunks of so many,
 * the last one perhaps of fewer, so that there is room for one chunk's logits alone. All T where
 * their logits fit HEAD_CHUNK_BYTES. Each chunk adds to the weight's gradient once more, so there
 * are never fewer than HEAD_CHUNK_TOKENS, whatever the vocabulary: against 2 x 256 operations on
 * each of its elements, reading and writing it is little. */
enum { HEAD_CHUNK_BYTES = 64 << 20, HEAD_CHUNK_TOKENS = 256 };
int64_t head_chunk_tokens(const struct model *model, const struct layer_part *part,
                          const struct micro_batch_shape *shape);

/* Floating-point operations of the matrix products (2mnk each; causal attention counts the whole
 * s x s square, as Narayanan et al. 2021 do, which is what bidirectional attention computes) for
 * one micro-batch. Backward is twice forward, without recomputation. */
double layer_forward_flops(const struct model *model, enum layer_kind kind,
                           const struct micro_batch_shape *shape);
/* Of the same in place of LAYER_MLP in a block with experts: each token passes the router,
 * experts_per_token experts and the shared one. */
double experts_forward_flops(const struct model *model, const struct micro_batch_shape *shape);
/* Attention and MLP, or experts, of one block. */
double block_forward_flops(const struct model *model, bool has_experts,
                           const struct micro_batch_shape *shape);
/* All layers of the model. */
double model_forward_flops(const struct model *model, const struct micro_batch_shape *shape);
/* Of one rank's part. */
double layer_part_forward_flops(const struct model *model, const struct layer_part *part,
                                const struct micro_batch_shape *shape);

/* ---- buffers ---- */

enum buffer_slot {
    SLOT_NORM_STATS, /* mean and reciprocal deviation: fp32 [T, 2]; see layer_buffers.c */
    SLOT_NORM_OUT,   /* [T, hidden] in the layer's precision */
    SLOT_QKV,        /* [T, (heads + 2 kv_heads) head_dim], after RoPE, in the layer's precision */
    SLOT_PROBS,      /* [b, heads, s, s] in the layer's precision, the causal half only is defined;
                        of the plain kernel */
    SLOT_LOG_SUMS,   /* fp32 [b, heads, s]: log2 of the sum of each query's exponentials; of the
                        tiled kernel */
    SLOT_CONTEXT,    /* [T, heads*head_dim] in the layer's precision */
    SLOT_PRE,    /* gpt2 [T, ffn], llama [T, 2*ffn] (gate, up side by side), layer's precision */
    SLOT_ACT,    /* [T, ffn] in the layer's precision */
    SLOT_LOGITS, /* fp32 [chunk, vocab], chunk = head_chunk_tokens; in fp32 backward turns them
                    into their gradient in place */
    SLOT_GRAD_A, /* scratch for gradients, see layer_buffers.c */
    SLOT_GRAD_B,
    SLOT_GRAD_C,
    SLOT_THREAD, /* one piece a thread */
    SLOT_GATHER, /* sequence parallel: the group's NORM_OUT [T, hidden] in the layer's precision */
    SLOT_GROUP,  /* sequence parallel: fp32 [T, hidden] of the group, before it is scattered or
                    after it was gathered; of the embedding and the head, too */
    SLOT_LOSS,   /* head: fp32 [4, chunk] of log-sum-exp, maxima, sums and targets' logits */
    SLOT_ORDER,  /* embedding: int32 [2, T], the tokens by their rows of the table, for gradients in
                    bf16 */
    SLOT_COUNT
};

enum buffer_life {
    BUFFER_SAVED,   /* from the layer's forward to its backward: one per layer and micro-batch in
                       flight */
    BUFFER_SCRATCH, /* during one forward or one backward call; shared by all layers */
};

struct buffer_spec {
    enum buffer_slot slot;
    enum buffer_life life;
    uint64_t bytes; /* rounded up to BUFFER_ALIGN_BYTES */
};

enum { BUFFER_ALIGN_BYTES = 64, LAYER_BUFFERS_MAX = SLOT_COUNT };

/* Queries of one head that a thread works on at once; what its piece of SLOT_THREAD is sized for.
 */
enum { ATTENTION_BLOCK_ROWS = 128 };
/* The same of the tiled kernel, and keys at once; and what their counts and the head's width are
 * rounded up to. */
enum { ATTENTION_TILE = 64, ATTENTION_TILE_GRAIN = 16 };

struct layer_precision_mode {
    enum precision precision;
    enum recompute recompute;
    enum attention_kernel attention; /* of attention layers; else plain */
};

/* All buffers of one rank's part under one mode; returns how many. T tokens of the group; under
 * sequence parallelism NORM_STATS and NORM_OUT have T / ways. With RECOMPUTE_FULL every buffer is
 * scratch. The residual stream between layers is not in the list:
 * see part_boundary_bytes. A size that no machine has stops at 2^56 bytes instead of wrapping. */
size_t layer_part_buffers(const struct model *model, const struct layer_part *part,
                          struct layer_precision_mode mode, const struct micro_batch_shape *shape,
                          struct buffer_spec out[LAYER_BUFFERS_MAX]);
uint64_t part_saved_bytes(const struct model *model, const struct layer_part *part,
                          struct layer_precision_mode mode, const struct micro_batch_shape *shape);
uint64_t part_scratch_bytes(const struct model *model, const struct layer_part *part,
                            struct layer_precision_mode mode,
                            const struct micro_batch_shape *shape);
/* Tokens of the residual stream that a rank holds before and after its part: T, or T / ways under
 * sequence parallelism; and their bytes, fp32 [tokens, hidden]. */
int64_t part_stream_tokens(const struct layer_part *part, const struct micro_batch_shape *shape);
uint64_t part_boundary_bytes(const struct model *model, const struct layer_part *part,
                             const struct micro_batch_shape *shape);

/* The same of a whole layer. */
size_t layer_buffers(const struct model *model, enum layer_kind kind,
                     struct layer_precision_mode mode, const struct micro_batch_shape *shape,
                     struct buffer_spec out[LAYER_BUFFERS_MAX]);
uint64_t layer_saved_bytes(const struct model *model, enum layer_kind kind,
                           struct layer_precision_mode mode, const struct micro_batch_shape *shape);
uint64_t layer_scratch_bytes(const struct model *model, enum layer_kind kind,
                             struct layer_precision_mode mode,
                             const struct micro_batch_shape *shape);
/* The residual stream at one boundary between layers: fp32 [T, hidden], kept from the forward of
 * the layer that reads it to that layer's backward. */
uint64_t boundary_bytes(const struct model *model, const struct micro_batch_shape *shape);

/* ---- identity ---- */

enum { LAYER_KEY_BYTES = 128 };

/* What makes two layers the same piece of work, but for micro-batch and strategy:
 * "attention/gpt2/h768/a12/k12/d64/s256". Profiles are stored under it. Returns `key`. */
const char *layer_key(const struct model *model, enum layer_kind kind, char key[LAYER_KEY_BYTES]);
/* The same of a part: layer_key, then "/tp2" or with sequence parallelism "/tp2sp" where it is
 * shared, then "/own" of a tied head that owns its table. Every rank of a group has the same. */
const char *layer_part_key(const struct model *model, const struct layer_part *part,
                           char key[LAYER_KEY_BYTES]);

#endif
