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

enum precision { PRECISION_FP32, PRECISION_BF16, PRECISION_COUNT };

/* What of a layer's activations is kept for its backward pass. */
enum recompute {
    RECOMPUTE_NONE,      /* everything */
    RECOMPUTE_SELECTIVE, /* all but the attention probabilities (Korthikanti et al. 2022) */
    RECOMPUTE_FULL,      /* only the layer's input */
    RECOMPUTE_COUNT
};

/* The phases of a layer's work in a step. */
enum phase {
    PHASE_FORWARD,
    PHASE_BACKWARD,    /* includes what is recomputed */
    PHASE_GRAD_REDUCE, /* the part of the gradient all-reduce that compute does not hide */
    PHASE_OPTIMIZER,   /* gradient norm, clipping and AdamW */
    PHASE_OTHER,       /* data, bookkeeping, waiting at the step's end */
    PHASE_COUNT
};

/* A layer's place in the chain. */
struct layer {
    enum layer_kind kind;
    int64_t block; /* of attention and mlp; 0 otherwise */
};

struct layer model_layer(const struct model *model, size_t index);

const char *layer_kind_name(enum layer_kind kind);    /* "embedding", "attention", "mlp", "head" */
const char *precision_name(enum precision precision); /* "fp32", "bf16" */
const char *recompute_name(enum recompute recompute); /* "none", "selective", "full" */
const char *phase_name(enum phase phase);             /* "forward", ... */
bool layer_kind_parse(const char *name, enum layer_kind *out);
bool precision_parse(const char *name, enum precision *out);
bool recompute_parse(const char *name, enum recompute *out);
bool phase_parse(const char *name, enum phase *out);
uint64_t precision_bytes(enum precision precision); /* of one element */

/* Does this kind admit this recompute mode or precision? Embedding: none/fp32 only; head: no
 * recompute; mlp: none or full (selective would be the same as none). */
bool layer_admits_recompute(enum layer_kind kind, enum recompute recompute);
bool layer_admits_precision(enum layer_kind kind, enum precision precision);

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
    bool decays;             /* weight decay applies: matrices yes, norms and biases no */
    enum tensor_init init;
    double init_deviation; /* of INIT_NORMAL: 0.02, residual projections 0.02 / sqrt(2 * blocks) */
};

/* The layer's own tensors in memory order; returns how many. */
size_t layer_tensors(const struct model *model, enum layer_kind kind,
                     struct tensor_spec out[LAYER_TENSORS_MAX]);
uint64_t tensor_count(const struct tensor_spec *spec); /* rows * cols */
/* The HF name ("transformer.h.3.attn.c_attn.weight"); returns `name`. */
const char *tensor_name(const struct tensor_spec *spec, int64_t block,
                        char name[TENSOR_NAME_BYTES]);
uint64_t layer_parameter_count(const struct model *model, enum layer_kind kind);
/* Elements of the layer in the flat parameter array: the tensors one behind the other, the whole
 * rounded up to LAYER_ALIGN_ELEMENTS. */
enum { LAYER_ALIGN_ELEMENTS = 16 };
uint64_t layer_flat_count(const struct model *model, enum layer_kind kind);

/* ---- work ---- */

/* One micro-batch as a layer sees it. */
struct micro_batch_shape {
    int64_t sequences;  /* micro-batch size b */
    int64_t seq_length; /* s */
    int threads;        /* that compute it: some scratch is one piece a thread */
};

/* Floating-point operations of the matrix products (2mnk each; causal attention counts the whole
 * s x s square, as Narayanan et al. 2021 do) for one micro-batch. Backward is twice forward,
 * without recomputation. */
double layer_forward_flops(const struct model *model, enum layer_kind kind,
                           const struct micro_batch_shape *shape);

/* ---- buffers ---- */

enum buffer_slot {
    SLOT_NORM_STATS, /* mean and reciprocal deviation: fp32 [T, 2]; see layer_buffers.c */
    SLOT_NORM_OUT,   /* [T, hidden] in the layer's precision */
    SLOT_QKV,        /* [T, (heads + 2 kv_heads) head_dim], after RoPE, in the layer's precision */
    SLOT_PROBS,   /* [b, heads, s, s] in the layer's precision, the causal half only is defined */
    SLOT_CONTEXT, /* [T, heads*head_dim] in the layer's precision */
    SLOT_PRE,     /* gpt2 [T, ffn], llama [T, 2*ffn] (gate, up side by side), layer's precision */
    SLOT_ACT,     /* [T, ffn] in the layer's precision */
    SLOT_LOGITS,  /* fp32 [T, vocab]; the backward pass turns it into its gradient in place */
    SLOT_GRAD_A,  /* scratch for gradients, see layer_buffers.c */
    SLOT_GRAD_B,
    SLOT_GRAD_C,
    SLOT_THREAD, /* one piece a thread */
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

struct layer_precision_mode {
    enum precision precision;
    enum recompute recompute;
};

/* All buffers of one layer under one mode; returns how many. With RECOMPUTE_FULL every buffer is
 * scratch. The residual stream between layers (fp32 [T, hidden]) is not in the list: see
 * boundary_bytes. A size that no machine has stops at 2^56 bytes instead of wrapping. */
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

#endif
