/* Hugging Face config.json in and out.
 *
 * Keys that only matter elsewhere (dropout, token ids, dtype, cache) are passed over. A key that
 * would change the arithmetic into something temper does not compute is refused by name. */
#include "ir/fields.h"
#include "ir/layer.h"
#include "ir/model_source.h"
#include <stdio.h>
#include <string.h>

enum { MISTRAL_DEFAULT_WINDOW = 4096 };

/* clang-format off */
#define ROW(key_, member_, ...) FIELD_ROW(struct model, key_, member_, __VA_ARGS__)
static const struct field gpt2_rows[] = {
    ROW("n_layer", blocks, FIELD_INT64, FIELD_RANGE(1, MODEL_BLOCKS_MAX)),
    ROW("n_embd", hidden, FIELD_INT64, FIELD_RANGE(1, MODEL_HIDDEN_MAX)),
    ROW("n_head", heads, FIELD_INT64, FIELD_RANGE(1, MODEL_HEADS_MAX)),
    ROW("n_positions", positions, FIELD_INT64, FIELD_RANGE(1, MODEL_POSITIONS_MAX)),
    ROW("vocab_size", vocab, FIELD_INT64, FIELD_RANGE(1, MODEL_VOCAB_MAX)),
    ROW("n_inner", ffn, FIELD_INT64, FIELD_RANGE(1, MODEL_FFN_MAX), .optional = true),
    ROW("layer_norm_epsilon", norm_epsilon, FIELD_REAL, .optional = true),
    ROW("tie_word_embeddings", tied_head, FIELD_BOOL, .optional = true),
};
static const struct field llama_rows[] = {
    ROW("num_hidden_layers", blocks, FIELD_INT64, FIELD_RANGE(1, MODEL_BLOCKS_MAX)),
    ROW("hidden_size", hidden, FIELD_INT64, FIELD_RANGE(1, MODEL_HIDDEN_MAX)),
    ROW("num_attention_heads", heads, FIELD_INT64, FIELD_RANGE(1, MODEL_HEADS_MAX)),
    ROW("intermediate_size", ffn, FIELD_INT64, FIELD_RANGE(1, MODEL_FFN_MAX)),
    ROW("max_position_embeddings", positions, FIELD_INT64, FIELD_RANGE(1, MODEL_POSITIONS_MAX)),
    ROW("vocab_size", vocab, FIELD_INT64, FIELD_RANGE(1, MODEL_VOCAB_MAX)),
    ROW("num_key_value_heads", kv_heads, FIELD_INT64, FIELD_RANGE(1, MODEL_HEADS_MAX),
        .optional = true),
    ROW("head_dim", head_dim, FIELD_INT64, FIELD_RANGE(1, MODEL_HEAD_DIM_MAX), .optional = true),
    ROW("rms_norm_eps", norm_epsilon, FIELD_REAL, .optional = true),
    ROW("rope_theta", rope_theta, FIELD_REAL, .optional = true),
    ROW("tie_word_embeddings", tied_head, FIELD_BOOL, .optional = true),
};
/* What these types have beside llama's keys. */
static const struct field mixtral_rows[] = {
    ROW("num_local_experts", experts, FIELD_INT64, FIELD_RANGE(1, MODEL_EXPERTS_MAX)),
    ROW("num_experts_per_tok", experts_per_token, FIELD_INT64, FIELD_RANGE(1, MODEL_EXPERTS_MAX)),
};
static const struct field qwen2_moe_rows[] = {
    ROW("num_experts", experts, FIELD_INT64, FIELD_RANGE(1, MODEL_EXPERTS_MAX)),
    ROW("num_experts_per_tok", experts_per_token, FIELD_INT64, FIELD_RANGE(1, MODEL_EXPERTS_MAX)),
    ROW("moe_intermediate_size", expert_ffn, FIELD_INT64, FIELD_RANGE(1, MODEL_FFN_MAX)),
    ROW("shared_expert_intermediate_size", shared_ffn, FIELD_INT64, FIELD_RANGE(0, MODEL_FFN_MAX)),
    ROW("decoder_sparse_step", moe_every, FIELD_INT64, FIELD_RANGE(1, MODEL_BLOCKS_MAX),
        .optional = true),
};
static const struct field bert_rows[] = {
    ROW("num_hidden_layers", blocks, FIELD_INT64, FIELD_RANGE(1, MODEL_BLOCKS_MAX)),
    ROW("hidden_size", hidden, FIELD_INT64, FIELD_RANGE(1, MODEL_HIDDEN_MAX)),
    ROW("num_attention_heads", heads, FIELD_INT64, FIELD_RANGE(1, MODEL_HEADS_MAX)),
    ROW("intermediate_size", ffn, FIELD_INT64, FIELD_RANGE(1, MODEL_FFN_MAX)),
    ROW("max_position_embeddings", positions, FIELD_INT64, FIELD_RANGE(1, MODEL_POSITIONS_MAX)),
    ROW("vocab_size", vocab, FIELD_INT64, FIELD_RANGE(1, MODEL_VOCAB_MAX)),
    ROW("type_vocab_size", segments, FIELD_INT64, FIELD_RANGE(0, MODEL_VOCAB_MAX),
        .optional = true),
    ROW("layer_norm_eps", norm_epsilon, FIELD_REAL, .optional = true),
    ROW("tie_word_embeddings", tied_head, FIELD_BOOL, .optional = true),
};
static const struct field window_row =
    ROW("sliding_window", sliding_window, FIELD_INT64, FIELD_RANGE(1, MODEL_POSITIONS_MAX),
        .optional = true);
#undef ROW
/* clang-format on */

static const struct field_table gpt2_table = {gpt2_rows, sizeof(gpt2_rows) / sizeof(gpt2_rows[0])};
static const struct field_table llama_table = {llama_rows,
                                               sizeof(llama_rows) / sizeof(llama_rows[0])};
static const struct field_table mixtral_table = {mixtral_rows,
                                                 sizeof(mixtral_rows) / sizeof(mixtral_rows[0])};
static const struct field_table qwen2_moe_table = {qwen2_moe_rows, sizeof(qwen2_moe_rows) /
                                                                       sizeof(qwen2_moe_rows[0])};
static const struct field_table bert_table = {bert_rows, sizeof(bert_rows) / sizeof(bert_rows[0])};
static const struct field_table window_table = {&window_row, 1};
static const struct field_table no_table = {NULL, 0};

typedef enum status read_rest(const struct jin *at, struct model *model, struct error *err);
static read_rest read_gpt2, read_llama, read_mistral, read_mixtral, read_qwen2, read_qwen2_moe,
    read_bert;

static const struct hf_type {
    const char *model_type;
    const char *architecture; /* the one that trains a language model */
    const char *base;         /* the same without the head's name: same keys */
    const char *activation_key;
    const char *activations[3]; /* names of the function that temper computes */
    const struct field_table *table;
    const struct field_table *more; /* beside it: the type's own */
    struct model defaults;          /* for optional keys, as HF has them */
    read_rest *read;
} hf_types[] = {
    {"gpt2",
     "GPT2LMHeadModel",
     "GPT2Model",
     "activation_function",
     {"gelu_new", "gelu_pytorch_tanh"},
     &gpt2_table,
     &no_table,
     {.family = MODEL_GPT2, .norm_epsilon = 1e-5, .tied_head = true},
     read_gpt2},
    {"llama",
     "LlamaForCausalLM",
     "LlamaModel",
     "hidden_act",
     {"silu", "swish"},
     &llama_table,
     &no_table,
     {.family = MODEL_LLAMA, .norm_epsilon = 1e-6, .rope_theta = 1e4},
     read_llama},
    {"mistral",
     "MistralForCausalLM",
     "MistralModel",
     "hidden_act",
     {"silu", "swish"},
     &llama_table,
     &no_table,
     {.family = MODEL_LLAMA, .norm_epsilon = 1e-6, .rope_theta = 1e4},
     read_mistral},
    {"mixtral",
     "MixtralForCausalLM",
     "MixtralModel",
     "hidden_act",
     {"silu", "swish"},
     &llama_table,
     &mixtral_table,
     {.family = MODEL_LLAMA, .norm_epsilon = 1e-5, .rope_theta = 1e6, .moe_every = 1},
     read_mixtral},
    {"qwen2",
     "Qwen2ForCausalLM",
     "Qwen2Model",
     "hidden_act",
     {"silu", "swish"},
     &llama_table,
     &no_table,
     {.family = MODEL_LLAMA, .norm_epsilon = 1e-6, .rope_theta = 1e4, .qkv_bias = true},
     read_qwen2},
    {"qwen2_moe",
     "Qwen2MoeForCausalLM",
     "Qwen2MoeModel",
     "hidden_act",
     {"silu", "swish"},
     &llama_table,
     &qwen2_moe_table,
     {.family = MODEL_LLAMA,
      .norm_epsilon = 1e-6,
      .rope_theta = 1e4,
      .qkv_bias = true,
      .moe_every = 1},
     read_qwen2_moe},
    {"bert",
     "BertForMaskedLM",
     "BertModel",
     "hidden_act",
     {"gelu", "gelu_new"},
     &bert_table,
     &no_table,
     {.family = MODEL_GPT2,
      .norm_epsilon = 1e-12,
      .tied_head = true,
      .bidirectional = true,
      .segments = 2},
     read_bert},
};
enum { HF_TYPE_COUNT = sizeof(hf_types) / sizeof(hf_types[0]) };

void model_hf_types(struct text *out)
{
    for (size_t i = 0; i < HF_TYPE_COUNT; i++)
        text_printf(out, "%s%s", i > 0 ? ", " : "", hf_types[i].model_type);
}

/* ---- checks of one key ---- */

static enum status unsupported(const struct jin *at, const char *key, struct error *err,
                               const char *what)
{
    return error_set(err, STATUS_UNSUPPORTED, "%s: key '%s': %s", at->file, key, what);
}

static enum status require_false(const struct jin *at, const char *key, const char *what,
                                 struct error *err)
{
    bool value = false;
    TRY(jin_bool_opt(at, key, &value, err));
    return value ? unsupported(at, key, err, what) : STATUS_OK;
}

static enum status find_type(const struct jin *at, const struct hf_type **out, struct error *err)
{
    struct text list = {0};
    const char *name = NULL;
    enum status status;

    TRY(jin_string_opt(at, "model_type", &name, err));
    for (size_t i = 0; name != NULL && i < HF_TYPE_COUNT; i++) {
        if (strcmp(hf_types[i].model_type, name) == 0) {
            *out = &hf_types[i];
            return STATUS_OK;
        }
    }
    model_hf_types(&list);
    const char *types = list.data != NULL ? list.data : "";
    if (name == NULL)
        status = jin_invalid(at, "model_type", err, "missing; supported types: %s", types);
    else
        status = error_set(err, STATUS_UNSUPPORTED,
                           "%s: key 'model_type': '%s' is not supported; supported types: %s",
                           at->file, name, types);
    text_free(&list);
    return status;
}

static enum status check_required(const struct hf_type *type, const struct jin *at,
                                  struct error *err)
{
    const struct field *missing = NULL;
    struct text list = {0};

    for (size_t i = 0; i < type->table->count + type->more->count; i++) {
        bool is_own = i >= type->table->count;
        const struct field *row =
            is_own ? &type->more->rows[i - type->table->count] : &type->table->rows[i];
        if (row->optional)
            continue;
        text_printf(&list, "%s%s", list.bytes > 0 ? ", " : "", row->key);
        if (missing == NULL && !jin_has(at, row->key))
            missing = row;
    }
    enum status status = STATUS_OK;
    if (missing != NULL)
        status = jin_invalid(at, missing->key, err, "missing; type %s needs %s", type->model_type,
                             list.data != NULL ? list.data : "more keys");
    text_free(&list);
    return status;
}

static enum status check_architecture(const struct hf_type *type, const struct jin *at,
                                      struct error *err)
{
    struct jin list;
    const char *name;

    if (!jin_has(at, "architectures"))
        return STATUS_OK;
    TRY(jin_array(at, "architectures", &list, err));
    if (jin_length(&list) == 0)
        return STATUS_OK;
    struct jin first = jin_element(&list, 0);
    TRY(jin_as_string(&first, &name, err));
    if (strcmp(name, type->architecture) == 0 || strcmp(name, type->base) == 0)
        return STATUS_OK;
    return jin_invalid(at, "architectures", err,
                       "'%s' contradicts model_type '%s'; supported with it: %s", name,
                       type->model_type, type->architecture);
}

static enum status check_activation(const struct hf_type *type, const struct jin *at,
                                    struct error *err)
{
    const char *name = type->activations[0];
    TRY(jin_string_opt(at, type->activation_key, &name, err));
    for (size_t i = 0; type->activations[i] != NULL; i++) {
        if (strcmp(type->activations[i], name) == 0)
            return STATUS_OK;
    }
    return error_set(err, STATUS_UNSUPPORTED,
                     "%s: key '%s': '%s' is not supported; type %s works with '%s'", at->file,
                     type->activation_key, name, type->model_type, type->activations[0]);
}

static enum status check_head_dim(const struct jin *at, const char *heads_key,
                                  const char *hidden_key, const struct model *m, struct error *err)
{
    if (m->hidden % m->heads == 0)
        return STATUS_OK;
    return jin_invalid(at, heads_key, err, "%lld heads do not divide %s %lld", (long long)m->heads,
                       hidden_key, (long long)m->hidden);
}

static enum status check_epsilon(const struct hf_type *type, const struct jin *at,
                                 const struct model *m, struct error *err)
{
    if (m->norm_epsilon > 0.0 && m->norm_epsilon < 1.0)
        return STATUS_OK;
    const struct field *row = type->table->rows;
    while (row->offset != offsetof(struct model, norm_epsilon))
        row++;
    return jin_invalid(at, row->key, err, "must be between 0 and 1, is %g", m->norm_epsilon);
}

/* ---- gpt2 ---- */

static enum status read_gpt2(const struct jin *at, struct model *m, struct error *err)
{
    int64_t context = m->positions;
    bool scaled = true;

    TRY(check_head_dim(at, "n_head", "n_embd", m, err));
    m->head_dim = m->hidden / m->heads;
    m->kv_heads = m->heads;
    if (m->ffn == 0)
        m->ffn = 4 * m->hidden;

    TRY(jin_int_opt(at, "n_ctx", &context, err));
    if (context != m->positions)
        return jin_invalid(at, "n_ctx", err, "%lld contradicts n_positions %lld",
                           (long long)context, (long long)m->positions);
    TRY(jin_bool_opt(at, "scale_attn_weights", &scaled, err));
    if (!scaled)
        return unsupported(at, "scale_attn_weights", err, "unscaled attention is not supported");
    TRY(require_false(at, "scale_attn_by_inverse_layer_idx",
                      "attention scaled by layer is not supported", err));
    return require_false(at, "add_cross_attention", "cross-attention is not supported", err);
}

/* ---- llama and mistral ---- */

/* RoPE settings: "rope_scaling" beside "rope_theta", or both in "rope_parameters". */
static enum status check_rope(const struct jin *at, const char *key, struct model *m,
                              struct error *err)
{
    struct jin rope;
    const char *type = NULL;

    if (!jin_has(at, key))
        return STATUS_OK;
    TRY(jin_object(at, key, &rope, err));
    TRY(jin_string_opt(&rope, "type", &type, err));
    TRY(jin_string_opt(&rope, "rope_type", &type, err));
    TRY(jin_real_opt(&rope, "rope_theta", &m->rope_theta, err));
    if (type == NULL)
        return jin_invalid(&rope, "rope_type", err, "missing; supported: default");
    if (strcmp(type, "default") != 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: key '%s': rope_type '%s' is not supported; supported: default "
                         "(set the key to null to train without rescaled positions)",
                         at->file, key, type);
    return STATUS_OK;
}

static enum status read_llama(const struct jin *at, struct model *m, struct error *err)
{
    double rotary_share = 1.0;

    if (m->head_dim == 0) {
        TRY(check_head_dim(at, "num_attention_heads", "hidden_size", m, err));
        m->head_dim = m->hidden / m->heads;
    }
    if (m->head_dim % 2 != 0)
        return jin_invalid(at, jin_has(at, "head_dim") ? "head_dim" : "num_attention_heads", err,
                           "heads of width %lld; rotary positions need an even one",
                           (long long)m->head_dim);
    if (m->kv_heads == 0)
        m->kv_heads = m->heads;
    if (m->heads % m->kv_heads != 0)
        return jin_invalid(at, "num_key_value_heads", err,
                           "%lld does not divide num_attention_heads %lld", (long long)m->kv_heads,
                           (long long)m->heads);
    TRY(check_rope(at, "rope_scaling", m, err));
    TRY(check_rope(at, "rope_parameters", m, err));
    TRY(jin_real_opt(at, "partial_rotary_factor", &rotary_share, err));
    if (rotary_share != 1.0)
        return unsupported(at, "partial_rotary_factor", err, "must be 1: whole heads are rotated");
    TRY(require_false(at, "attention_bias",
                      "attention with biases is not supported; set it to false", err));
    return require_false(at, "mlp_bias", "an MLP with biases is not supported; set it to false",
                         err);
}

static enum status read_mistral(const struct jin *at, struct model *m, struct error *err)
{
    void *iterator = NULL;
    const char *key;
    struct jin value;

    m->sliding_window = MISTRAL_DEFAULT_WINDOW;
    while (jin_next_member(at, &iterator, &key, &value)) {
        if (strcmp(key, window_row.key) == 0)
            m->sliding_window = 0; /* present: null means no window */
    }
    TRY(fields_read(&window_table, at, m, err));
    return read_llama(at, m, err);
}

/* ---- mixtral, qwen2, qwen2_moe ---- */

static enum status read_mixtral(const struct jin *at, struct model *m, struct error *err)
{
    m->expert_ffn = m->ffn;
    TRY(fields_read(&window_table, at, m, err));
    return read_llama(at, m, err);
}

static enum status read_qwen2(const struct jin *at, struct model *m, struct error *err)
{
    TRY(require_false(at, "use_sliding_window",
                      "a window in some of the blocks is not supported; set it to false", err));
    return read_llama(at, m, err);
}

static enum status read_qwen2_moe(const struct jin *at, struct model *m, struct error *err)
{
    struct jin dense;

    TRY(jin_bool_opt(at, "qkv_bias", &m->qkv_bias, err));
    if (jin_has(at, "mlp_only_layers")) {
        TRY(jin_array(at, "mlp_only_layers", &dense, err));
        if (jin_length(&dense) > 0)
            return unsupported(at, "mlp_only_layers", err,
                               "a list of blocks is not supported; decoder_sparse_step says which "
                               "blocks have experts");
    }
    return read_qwen2(at, m, err);
}

/* ---- bert ---- */

static enum status read_bert(const struct jin *at, struct model *m, struct error *err)
{
    const char *positions = "absolute";

    TRY(check_head_dim(at, "num_attention_heads", "hidden_size", m, err));
    m->head_dim = m->hidden / m->heads;
    m->kv_heads = m->heads;
    TRY(jin_string_opt(at, "position_embedding_type", &positions, err));
    if (strcmp(positions, "absolute") != 0)
        return unsupported(at, "position_embedding_type", err, "must be 'absolute'");
    TRY(require_false(at, "is_decoder", "bert as a decoder is not supported; set it to false",
                      err));
    return require_false(at, "add_cross_attention", "cross-attention is not supported", err);
}

/* ---- in ---- */

/* The file's name, in characters that every format can hold. */
static void set_name(struct model *model, const char *path)
{
    const char *slash = strrchr(path, '/');
    snprintf(model->name, sizeof(model->name), "%s", slash != NULL ? slash + 1 : path);
    for (char *c = model->name; *c != '\0'; c++) {
        if (*c < ' ' || *c > '~')
            *c = '_';
    }
}

static enum status read_config(const struct jin *at, const char *path, struct model *out,
                               struct error *err)
{
    const struct hf_type *type = NULL;

    if (!jin_is_object(at))
        return jin_invalid(at, NULL, err, "a model config must be a JSON object");
    TRY(find_type(at, &type, err));
    struct model model = type->defaults;
    TRY(check_required(type, at, err));
    TRY(fields_read(type->table, at, &model, err));
    TRY(fields_read(type->more, at, &model, err));
    TRY(check_architecture(type, at, err));
    TRY(check_activation(type, at, err));
    TRY(check_epsilon(type, at, &model, err));
    TRY(type->read(at, &model, err));
    set_name(&model, path);
    *out = model;
    return STATUS_OK;
}

enum status model_load_hf(struct model *out, const char *path, struct error *err)
{
    struct json_document *document;
    TRY(json_parse_file(&document, path, err));
    struct jin root = json_root(document);
    enum status status = read_config(&root, path, out, err);
    json_document_free(document);
    return status;
}

/* ---- out ---- */

const char *model_type_name(const struct model *model)
{
    if (model->family == MODEL_GPT2)
        return model->bidirectional ? "bert" : "gpt2";
    if (model->experts > 0)
        return model->qkv_bias || model->shared_ffn > 0 || model->moe_every > 1 ? "qwen2_moe"
                                                                                : "mixtral";
    if (model->qkv_bias)
        return "qwen2";
    return model->sliding_window > 0 ? "mistral" : "llama";
}

static const struct hf_type *type_of(const struct model *model)
{
    const struct hf_type *type = hf_types;
    while (strcmp(type->model_type, model_type_name(model)) != 0)
        type++;
    return type;
}

enum status model_write_hf_config(const struct model *model, struct text *out, struct error *err)
{
    const struct hf_type *type = type_of(model);
    struct jout *json = jout_new();

    jout_begin_array(json, "architectures");
    jout_string(json, NULL, type->architecture);
    jout_end(json);
    jout_string(json, "model_type", type->model_type);
    jout_string(json, type->activation_key, type->activations[0]);
    fields_write(type->table, model, json);
    fields_write(type->more, model, json);
    if (type->read == read_gpt2)
        jout_int(json, "n_ctx", model->positions);
    if (type->read == read_qwen2_moe)
        jout_bool(json, "qkv_bias", model->qkv_bias);
    if (model->sliding_window > 0)
        jout_int(json, "sliding_window", model->sliding_window);
    jout_string(json, "torch_dtype", "float32");
    return jout_finish(json, 2, out, err);
}
