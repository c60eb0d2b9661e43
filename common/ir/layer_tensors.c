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
        break;
    case LAYER_ATTENTION:
        add_vector(list, ROLE_NORM_WEIGHT, "transformer.h.%lld.ln_1.weight", m->hidden, INIT_ONE);
        add_vector(list, ROLE_NORM_BIAS, "transformer.h.%lld.ln_1.bias", m->hidden, INIT_ZERO);
        add_matrix(list, ROLE_Q_WEIGHT, "transformer.h.%lld.attn.c_attn.weight", m->hidden, qkv);
        add_vector(list, ROLE_QKV_BIAS, "transformer.h.%lld.attn.c_attn.bias", qkv, INIT_ZERO);
        add_residual_matrix(list, m, ROLE_OUT_WEIGHT, "transformer.h.%lld.attn.c_proj.weight",
                            context, m->hidden);
        add_vector(list, ROLE_OUT_BIAS, "transformer.h.%lld.attn.c_proj.bias", m->hidden,
                   INIT_ZERO);
        break;
    case LAYER_MLP:
        add_vector(list, ROLE_NORM_WEIGHT, "transformer.h.%lld.ln_2.weight", m->hidden, INIT_ONE);
        add_vector(list, ROLE_NORM_BIAS, "transformer.h.%lld.ln_2.bias", m->hidden, INIT_ZERO);
        add_matrix(list, ROLE_UP_WEIGHT, "transformer.h.%lld.mlp.c_fc.weight", m->hidden, m->ffn);
        add_vector(list, ROLE_UP_BIAS, "transformer.h.%lld.mlp.c_fc.bias", m->ffn, INIT_ZERO);
        add_residual_matrix(list, m, ROLE_DOWN_WEIGHT, "transformer.h.%lld.mlp.c_proj.weight",
                            m->ffn, m->hidden);
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
        add_vector(list, ROLE_NORM_WEIGHT, "model.layers.%lld.input_layernorm.weight", m->hidden,
                   INIT_ONE);
        add_matrix(list, ROLE_Q_WEIGHT, "model.layers.%lld.self_attn.q_proj.weight", context,
                   m->hidden);
        add_matrix(list, ROLE_K_WEIGHT, "model.layers.%lld.self_attn.k_proj.weight", kv, m->hidden);
        add_matrix(list, ROLE_V_WEIGHT, "model.layers.%lld.self_attn.v_proj.weight", kv, m->hidden);
        add_residual_matrix(list, m, ROLE_OUT_WEIGHT, "model.layers.%lld.self_attn.o_proj.weight",
                            m->hidden, context);
        break;
    case LAYER_MLP:
        add_vector(list, ROLE_NORM_WEIGHT, "model.layers.%lld.post_attention_layernorm.weight",
                   m->hidden, INIT_ONE);
        add_matrix(list, ROLE_GATE_WEIGHT, "model.layers.%lld.mlp.gate_proj.weight", m->ffn,
                   m->hidden);
        add_matrix(list, ROLE_UP_WEIGHT, "model.layers.%lld.mlp.up_proj.weight", m->ffn, m->hidden);
        add_residual_matrix(list, m, ROLE_DOWN_WEIGHT, "model.layers.%lld.mlp.down_proj.weight",
                            m->hidden, m->ffn);
        break;
    default:
        add_vector(list, ROLE_NORM_WEIGHT, "model.norm.weight", m->hidden, INIT_ONE);
        break;
    }
}

size_t layer_tensors(const struct model *model, enum layer_kind kind,
                     struct tensor_spec out[LAYER_TENSORS_MAX])
{
    struct tensor_list list = {.rows = out};
    if (model->family == MODEL_GPT2)
        gpt2_tensors(model, kind, &list);
    else
        llama_tensors(model, kind, &list);
    if (kind == LAYER_HEAD && !model->tied_head)
        add_matrix(&list, ROLE_HEAD_WEIGHT, "lm_head.weight", model->vocab, model->hidden);
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

uint64_t layer_parameter_count(const struct model *model, enum layer_kind kind)
{
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    size_t count = layer_tensors(model, kind, tensors);
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += tensor_count(&tensors[i]);
    return sum;
}

uint64_t layer_flat_count(const struct model *model, enum layer_kind kind)
{
    uint64_t align = LAYER_ALIGN_ELEMENTS;
    return (layer_parameter_count(model, kind) + align - 1) / align * align;
}
