/* The tensors of each kind of layer: their roles, HF names, stored shapes and initial values. */
#include "ir/layer.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double init_deviation = 0.02;

struct tensor_list {
    struct tensor_spec *rows;
    size_t count;
};

static void add_matrix(struct tensor_list *list, enum tensor_role role, const char *name_format,
                       int64_t rows, int64_t cols)
{
    assert(list->count < LAYER_TENSORS_MAX);
    list->rows[list->count++] = (struct tensor_spec){
        .role = role,
        .name_format = name_format,
        .rows = rows,
        .cols = cols,
        .decays = true,
        .init = INIT_NORMAL,
        .init_deviation = init_deviation,
    };
}

/* A matrix that ends a residual branch: `blocks` x 2 of them add up in the stream, so each starts
 * smaller (Radford et al. 2019, section 2.3). */
static void add_residual_matrix(struct tensor_list *list, const struct model *model,
                                enum tensor_role role, const char *name_format, int64_t rows,
                                int64_t cols)
{
    add_matrix(list, role, name_format, rows, cols);
    list->rows[list->count - 1].init_deviation = init_deviation / sqrt(2.0 * (double)model->blocks);
}

static void add_vector(struct tensor_list *list, enum tensor_role role, const char *name_format,
                       int64_t length, enum tensor_init init)
{
    assert(list->count < LAYER_TENSORS_MAX);
    list->rows[list->count++] = (struct tensor_spec){
        .role = role,
        .name_format = name_format,
        .rows = 1,
        .cols = length,
        .is_vector = true,
        .stays_whole = true,
        .init = init,
    };
}

static void gpt2_tensors(const struct model *m, enum layer_kind kind, struct tensor_list *list)
{
    int64_t context = m->heads * m->head_dim;
    int64_t qkv = context + 2 * m->kv_heads * m->head_dim;

    switch (kind) {
    case LAYER_EMBEDDING:
        add_matrix(list, ROLE_TOKEN_EMBEDDING, "transformer.wte.weight", m->vocab, m->hidden);
        add_matrix(list, ROLE_POSITION_EMBEDDING, "transformer.wpe.weight", m->positions,
                   m->hidden);
        list->rows[list->count - 1].stays_whole = true;
        break;
    case LAYER_ATTENTION:
        add_matrix(list, ROLE_Q_WEIGHT, "transformer.h.%lld.attn.c_attn.weight", m->hidden, qkv);
        add_residual_matrix(list, m, ROLE_OUT_WEIGHT, "transformer.h.%lld.attn.c_proj.weight",
                            context, m->hidden);
        add_vector(list, ROLE_NORM_WEIGHT, "transformer.h.%lld.ln_1.weight", m->hidden, INIT_ONE);
        add_vector(list, ROLE_NORM_BIAS, "transformer.h.%lld.ln_1.bias", m->hidden, INIT_ZERO);
        add_vector(list, ROLE_QKV_BIAS, "transformer.h.%lld.attn.c_attn.bias", qkv, INIT_ZERO);
        add_vector(list, ROLE_OUT_BIAS, "transformer.h.%lld.attn.c_proj.bias", m->hidden,
                   INIT_ZERO);
        break;
    case LAYER_MLP:
        add_matrix(list, ROLE_UP_WEIGHT, "transformer.h.%lld.mlp.c_fc.weight", m->hidden, m->ffn);
        add_residual_matrix(list, m, ROLE_DOWN_WEIGHT, "transformer.h.%lld.mlp.c_proj.weight",
                            m->ffn, m->hidden);
        add_vector(list, ROLE_NORM_WEIGHT, "transformer.h.%lld.ln_2.weight", m->hidden, INIT_ONE);
        add_vector(list, ROLE_NORM_BIAS, "transformer.h.%lld.ln_2.bias", m->hidden, INIT_ZERO);
        add_vector(list, ROLE_UP_BIAS, "transformer.h.%lld.mlp.c_fc.bias", m->ffn, INIT_ZERO);
        add_vector(list, ROLE_DOWN_BIAS, "transformer.h.%lld.mlp.c_proj.bias", m->hidden,
                   INIT_ZERO);
        break;
    default:
        add_vector(list, ROLE_NORM_WEIGHT, "transformer.ln_f.weight", m->hidden, INIT_ONE);
        add_vector(list, ROLE_NORM_BIAS, "transformer.ln_f.bias", m->hidden, INIT_ZERO);
        break;
    }
}

static void llama_tensors(const struct model *m, enum layer_kind kind, struct tensor_list *list)
{
    int64_t context = m->heads * m->head_dim;
    int64_t kv = m->kv_heads * m->head_dim;

    switch (kind) {
    case LAYER_EMBEDDING:
        add_matrix(list, ROLE_TOKEN_EMBEDDING, "model.embed_tokens.weight", m->vocab, m->hidden);
        break;
    case LAYER_ATTENTION:
        add_matrix(list, ROLE_Q_WEIGHT, "model.layers.%lld.self_attn.q_proj.weight", context,
                   m->hidden);
        add_matrix(list, ROLE_K_WEIGHT, "model.layers.%lld.self_attn.k_proj.weight", kv, m->hidden);
        add_matrix(list, ROLE_V_WEIGHT, "model.layers.%lld.self_attn.v_proj.weight", kv, m->hidden);
        add_residual_matrix(list, m, ROLE_OUT_WEIGHT, "model.layers.%lld.self_attn.o_proj.weight",
                            m->hidden, context);
        add_vector(list, ROLE_NORM_WEIGHT, "model.layers.%lld.input_layernorm.weight", m->hidden,
                   INIT_ONE);
        break;
    case LAYER_MLP:
        add_matrix(list, ROLE_GATE_WEIGHT, "model.layers.%lld.mlp.gate_proj.weight", m->ffn,
                   m->hidden);
        add_matrix(list, ROLE_UP_WEIGHT, "model.layers.%lld.mlp.up_proj.weight", m->ffn, m->hidden);
        add_residual_matrix(list, m, ROLE_DOWN_WEIGHT, "model.layers.%lld.mlp.down_proj.weight",
                            m->hidden, m->ffn);
        add_vector(list, ROLE_NORM_WEIGHT, "model.layers.%lld.post_attention_layernorm.weight",
                   m->hidden, INIT_ONE);
        break;
    default:
        add_vector(list, ROLE_NORM_WEIGHT, "model.norm.weight", m->hidden, INIT_ONE);
        break;
    }
}

static void list_tensors(const struct model *model, enum layer_kind kind, struct tensor_list *list)
{
    if (kind == LAYER_HEAD && !model->tied_head)
        add_matrix(list, ROLE_HEAD_WEIGHT, "lm_head.weight", model->vocab, model->hidden);
    if (model->family == MODEL_GPT2)
        gpt2_tensors(model, kind, list);
    else
        llama_tensors(model, kind, list);
}

size_t layer_tensors(const struct model *model, enum layer_kind kind,
                     struct tensor_spec out[LAYER_TENSORS_MAX])
{
    struct tensor_list list = {.rows = out};
    list_tensors(model, kind, &list);
    return list.count;
}

uint64_t tensor_count(const struct tensor_spec *spec)
{
    return (uint64_t)spec->rows * (uint64_t)spec->cols;
}

const char *tensor_name(const struct tensor_spec *spec, int64_t block, char name[TENSOR_NAME_BYTES])
{
    static const char mark[] = "%lld";
    const char *number = strstr(spec->name_format, mark);

    if (number == NULL) {
        snprintf(name, TENSOR_NAME_BYTES, "%s", spec->name_format);
        return name;
    }
    snprintf(name, TENSOR_NAME_BYTES, "%.*s%lld%s", (int)(number - spec->name_format),
             spec->name_format, (long long)block, number + sizeof(mark) - 1);
    return name;
}

/* What the executor's layers have not: biases of q, k and v; of an encoder the table of segments
 * and the norm behind the embedding, the dense layer before the decoder and the decoder's bias. The
 * norm between those two is where gpt2 has its last one. */
static uint64_t variant_parameter_count(const struct model *model, enum layer_kind kind)
{
    uint64_t hidden = (uint64_t)model->hidden;

    if (kind == LAYER_ATTENTION && model->qkv_bias)
        return (uint64_t)((model->heads + 2 * model->kv_heads) * model->head_dim);
    if (kind == LAYER_EMBEDDING && model->bidirectional)
        return ((uint64_t)model->segments + 2) * hidden;
    if (kind == LAYER_HEAD && model->bidirectional)
        return hidden * hidden + hidden + (uint64_t)model->vocab;
    return 0;
}

uint64_t experts_parameter_count(const struct model *model, int64_t experts)
{
    enum { MATRICES = 3 }; /* gate, up, down */
    uint64_t columns = (uint64_t)(experts * model->expert_ffn + model->shared_ffn);
    uint64_t rows = (uint64_t)model->experts + 1; /* router; norm */
    if (model->shared_ffn > 0)
        rows++; /* the shared expert's gate */
    return (uint64_t)model->hidden * (MATRICES * columns + rows);
}

uint64_t layer_parameter_count(const struct model *model, enum layer_kind kind)
{
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    size_t count = layer_tensors(model, kind, tensors);
    uint64_t sum = variant_parameter_count(model, kind);
    for (size_t i = 0; i < count; i++)
        sum += tensor_count(&tensors[i]);
    return sum;
}

static uint64_t aligned(uint64_t count)
{
    uint64_t align = LAYER_ALIGN_ELEMENTS;
    return (count + align - 1) / align * align;
}

uint64_t layer_flat_count(const struct model *model, enum layer_kind kind)
{
    return aligned(layer_parameter_count(model, kind));
}

/* ---- parts ---- */

/* Along what a tensor is split, in its stored orientation. */
enum split {
    SPLIT_NONE,
    SPLIT_ROWS,
    SPLIT_COLS,
    SPLIT_QKV,   /* columns: of each of q, k and v, which stand side by side */
    SPLIT_VOCAB, /* rows, the last ranks' padded */
};

static const enum split splits[MODEL_FAMILY_COUNT][ROLE_COUNT] = {
    [MODEL_GPT2] = {[ROLE_TOKEN_EMBEDDING] = SPLIT_VOCAB,
                    [ROLE_Q_WEIGHT] = SPLIT_QKV,
                    [ROLE_QKV_BIAS] = SPLIT_QKV,
                    [ROLE_OUT_WEIGHT] = SPLIT_ROWS,
                    [ROLE_UP_WEIGHT] = SPLIT_COLS,
                    [ROLE_UP_BIAS] = SPLIT_COLS,
                    [ROLE_DOWN_WEIGHT] = SPLIT_ROWS,
                    [ROLE_HEAD_WEIGHT] = SPLIT_VOCAB},
    [MODEL_LLAMA] = {[ROLE_TOKEN_EMBEDDING] = SPLIT_VOCAB,
                     [ROLE_Q_WEIGHT] = SPLIT_ROWS,
                     [ROLE_K_WEIGHT] = SPLIT_ROWS,
                     [ROLE_V_WEIGHT] = SPLIT_ROWS,
                     [ROLE_OUT_WEIGHT] = SPLIT_COLS,
                     [ROLE_GATE_WEIGHT] = SPLIT_ROWS,
                     [ROLE_UP_WEIGHT] = SPLIT_ROWS,
                     [ROLE_DOWN_WEIGHT] = SPLIT_COLS,
                     [ROLE_HEAD_WEIGHT] = SPLIT_VOCAB},
};

/* Of q, k and v in turn, each of whole heads: this rank's columns of it. */
static void split_qkv(const struct model *model, const struct layer_part *part,
                      struct tensor_part *tensor)
{
    const int64_t heads[TENSOR_SLICES_MAX] = {model->heads, model->kv_heads, model->kv_heads};
    int64_t whole_at = 0, local_at = 0;
    for (size_t i = 0; i < TENSOR_SLICES_MAX; i++) {
        int64_t cols = heads[i] / part->ways * model->head_dim;
        tensor->slices[i] = (struct tensor_slice){.col = whole_at + part->index * cols,
                                                  .local_col = local_at,
                                                  .rows = tensor->rows,
                                                  .cols = cols};
        whole_at += heads[i] * model->head_dim;
        local_at += cols;
    }
    tensor->slice_count = TENSOR_SLICES_MAX;
    tensor->cols = local_at;
}

static struct tensor_part part_of(const struct model *model, const struct layer_part *part,
                                  const struct tensor_spec *whole)
{
    enum split split = part->ways > 1 ? splits[model->family][whole->role] : SPLIT_NONE;
    struct tensor_part tensor = {.whole = *whole,
                                 .rows = whole->rows,
                                 .cols = whole->cols,
                                 .is_split = split != SPLIT_NONE,
                                 .slice_count = 1};
    struct tensor_slice *slice = &tensor.slices[0];

    if (split == SPLIT_ROWS)
        tensor.rows /= part->ways;
    else if (split == SPLIT_COLS)
        tensor.cols /= part->ways;
    else if (split == SPLIT_VOCAB)
        tensor.rows = part_vocab_rows(model, part);
    slice->rows = split == SPLIT_VOCAB ? part_vocab_valid(model, part) : tensor.rows;
    slice->cols = tensor.cols;
    slice->row = split == SPLIT_ROWS || split == SPLIT_VOCAB ? part->index * tensor.rows : 0;
    slice->col = split == SPLIT_COLS ? part->index * tensor.cols : 0;
    if (split == SPLIT_QKV)
        split_qkv(model, part, &tensor);
    return tensor;
}

size_t layer_part_tensors(const struct model *model, const struct layer_part *part,
                          struct tensor_part out[LAYER_TENSORS_MAX])
{
    struct tensor_spec wholes[LAYER_TENSORS_MAX];
    struct tensor_list list = {.rows = wholes};
    if (part->kind == LAYER_HEAD && model->tied_head && part->owns_table) {
        struct tensor_spec embedding[LAYER_TENSORS_MAX];
        layer_tensors(model, LAYER_EMBEDDING, embedding);
        assert(embedding[0].role == ROLE_TOKEN_EMBEDDING);
        wholes[list.count] = embedding[0];
        wholes[list.count++].role = ROLE_HEAD_WEIGHT;
    }
    list_tensors(model, part->kind, &list);
    for (size_t i = 0; i < list.count; i++)
        out[i] = part_of(model, part, &wholes[i]);
    return list.count;
}

uint64_t tensor_part_count(const struct tensor_part *tensor)
{
    return (uint64_t)tensor->rows * (uint64_t)tensor->cols;
}

struct part_counts layer_part_counts(const struct model *model, const struct layer_part *part)
{
    struct tensor_part tensors[LAYER_TENSORS_MAX];
    size_t count = layer_part_tensors(model, part, tensors);
    struct part_counts sums = {0};
    for (size_t i = 0; i < count; i++) {
        enum tensor_role role = tensors[i].whole.role;
        uint64_t elements = tensor_part_count(&tensors[i]);
        *(tensors[i].whole.stays_whole ? &sums.vectors : &sums.matrices) += elements;
        if (role == ROLE_NORM_WEIGHT || role == ROLE_NORM_BIAS)
            sums.partial += elements;
    }
    sums.matrices = aligned(sums.matrices);
    sums.vectors = aligned(sums.vectors);
    return sums;
}
