/* A model: a chain of layers of few kinds, from embedding to head.
 *
 * Attention and MLP are layers of their own, each with its own strategy: a model of B blocks is the
 * chain embedding, B x (attention, mlp), head: 2B + 2 layers. Everything about a layer that is not
 * in this struct (tensors, FLOPs, bytes, admitted strategies) is in layer.h's table of kinds. */
#ifndef TEMPER_IR_MODEL_H
#define TEMPER_IR_MODEL_H

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a block computes. HF's types are families with some of the fields below: mistral is llama
 * with a window, qwen2 llama with biases of q, k, v, mixtral and qwen2_moe llama with experts, bert
 * gpt2 without a causal mask. */
enum model_family {
    MODEL_GPT2,  /* LayerNorm, learned positions, GELU (tanh), biases, weights stored [in, out] */
    MODEL_LLAMA, /* RMSNorm, RoPE, SwiGLU, grouped-query attention, weights stored [out, in] */
    MODEL_FAMILY_COUNT
};

enum { MODEL_NAME_BYTES = 64 };

struct model {
    char name[MODEL_NAME_BYTES]; /* built-in name or the config's file name */
    enum model_family family;
    int64_t blocks;         /* transformer blocks, each attention + mlp */
    int64_t hidden;         /* width of the residual stream */
    int64_t heads;          /* query heads */
    int64_t kv_heads;       /* key/value heads; divides heads */
    int64_t head_dim;       /* width of one head */
    int64_t ffn;            /* width of the MLP's inner layer */
    int64_t vocab;          /* rows of the token embedding */
    int64_t positions;      /* longest sequence; rows of gpt2's position embedding */
    int64_t sliding_window; /* 0: none; else attention reaches back this many tokens */
    int64_t seq_length;     /* tokens of a training sequence, <= positions */
    double norm_epsilon;
    double rope_theta; /* llama */
    bool tied_head;    /* the head's matrix is the token embedding */

    /* Mixture of experts, of llama only: in place of one MLP `experts` of them, of which a router
     * ([experts, hidden]) picks experts_per_token for each token. All 0: every block has one MLP
     * of ffn columns. */
    int64_t experts;
    int64_t experts_per_token; /* 1 .. experts */
    int64_t expert_ffn;        /* inner width of one expert */
    /* 0: none; else inner width of an MLP that every token passes beside its experts, weighted by
     * a gate [1, hidden] (qwen2_moe). Of several shared experts it is the sum of their widths. */
    int64_t shared_ffn;
    int64_t moe_every; /* block i has experts when (i + 1) % moe_every == 0; 1: every block */

    bool qkv_bias; /* llama: q, k and v have biases (qwen2) */
    /* gpt2: an encoder (bert). No causal mask; norms after the residual additions, so that the one
     * which gpt2 has before the head stands behind the embedding; a head for masked tokens: dense
     * [hidden, hidden] with bias, norm, decoder with a bias [vocab]. No pooler. */
    bool bidirectional;
    int64_t segments; /* bidirectional: rows of the table of segments ([segments, hidden]); or 0 */
};

/* Size options that override a model's config; 0 means "as the config says". */
struct model_overrides {
    int64_t layers, hidden, heads, kv_heads, ffn, vocab_size, positions, seq_length;
};

/* `source` is a built-in name, the path of an HF config.json or of a folder that has one.
 * seq_length starts at the least of positions, sliding window and 8192. Applies the overrides (ffn
 * keeps its ratio to hidden for gpt2 unless given; head_dim = hidden / heads when hidden or heads
 * is overridden; kv_heads falls back to heads when it no longer divides them) and validates. Errors
 * name file and key and list the supported names or types. */
enum status model_load(struct model *out, const char *source,
                       const struct model_overrides *overrides, struct error *err);

/* The executor and the profiler have neither experts nor encoders nor biases in llama's blocks:
 * STATUS_UNSUPPORTED names `where`, the property and what works instead. Who describes such a model
 * (parameters, FLOPs, plans from a cluster's description) need not ask. */
enum status model_check_executable(const struct model *model, const char *where, struct error *err);

/* Check every relation between the fields; `where` stands before the message. */
enum status model_validate(const struct model *model, const char *where, struct error *err);

/* Built-in models, in one array. */
size_t model_builtin_count(void);
const char *model_builtin_name(size_t index);

/* The model as a JSON object under `key` (inside a plan or a checkpoint), and back. */
void model_write(const struct model *model, const char *key, struct jout *out);
enum status model_read(struct model *out, const struct jin *at, struct error *err);
/* The same model as an HF config.json (for a checkpoint's folder). */
enum status model_write_hf_config(const struct model *model, struct text *out, struct error *err);

/* Equal in all that shapes the weights or that they are trained to expect: name, seq_length,
 * sliding_window and llama's positions may differ. */
bool model_same_weights(const struct model *a, const struct model *b);
/* Content hash of the same. */
uint64_t model_hash(const struct model *model);

size_t model_layer_count(const struct model *model);       /* 2 * blocks + 2 */
uint64_t model_parameter_count(const struct model *model); /* all that is trained */
/* Of them those that one token passes: experts_per_token experts in place of all. */
uint64_t model_active_parameter_count(const struct model *model);
bool model_block_has_experts(const struct model *model, int64_t block);
int64_t model_expert_blocks(const struct model *model);  /* how many blocks have experts */
const char *model_family_name(enum model_family family); /* "gpt2", "llama" */
const char *model_type_name(const struct model *model);  /* HF model_type: "gpt2", "mixtral" */

#endif
