#include "ir/model.h"

#include "base/file.h"
#include "base/options.h"
#include "ir/fields.h"
#include "ir/layer.h"
#include "ir/model_source.h"
#include <assert.h>
#include <math.h>
#include <string.h>

/* Longer training sequences must be asked for: few machines hold them. */
enum { DEFAULT_SEQ_LENGTH_MAX = 8192 };

static const char *const families[MODEL_FAMILY_COUNT] = {
    [MODEL_GPT2] = "gpt2",
    [MODEL_LLAMA] = "llama",
};
const struct name_list model_family_names = {families, MODEL_FAMILY_COUNT};

/* clang-format off */
#define ROW(key_, member_, ...) FIELD_ROW(struct model, key_, member_, __VA_ARGS__)
enum { WEIGHT_ROWS_FIRST = 1, WEIGHT_ROWS = 11 };
enum { EXPERT_ROWS_FIRST = 15, EXPERT_ROWS = 5, VARIANT_ROWS = 3 };
static const struct field model_rows[] = {
    ROW("name", name, FIELD_TEXT, .capacity = MODEL_NAME_BYTES),
    /* WEIGHT_ROWS rows: what shapes the weights, or what they are trained to expect */
    ROW("family", family, FIELD_NAME, .names = &model_family_names),
    ROW("blocks", blocks, FIELD_INT64, FIELD_RANGE(1, MODEL_BLOCKS_MAX)),
    ROW("hidden", hidden, FIELD_INT64, FIELD_RANGE(1, MODEL_HIDDEN_MAX)),
    ROW("heads", heads, FIELD_INT64, FIELD_RANGE(1, MODEL_HEADS_MAX)),
    ROW("kv_heads", kv_heads, FIELD_INT64, FIELD_RANGE(1, MODEL_HEADS_MAX)),
    ROW("head_dim", head_dim, FIELD_INT64, FIELD_RANGE(1, MODEL_HEAD_DIM_MAX)),
    ROW("ffn", ffn, FIELD_INT64, FIELD_RANGE(1, MODEL_FFN_MAX)),
    ROW("vocab", vocab, FIELD_INT64, FIELD_RANGE(1, MODEL_VOCAB_MAX)),
    ROW("norm_epsilon", norm_epsilon, FIELD_REAL),
    ROW("rope_theta", rope_theta, FIELD_REAL),
    ROW("tied_head", tied_head, FIELD_BOOL),
    /* lengths */
    ROW("positions", positions, FIELD_INT64, FIELD_RANGE(1, MODEL_POSITIONS_MAX)),
    ROW("sliding_window", sliding_window, FIELD_INT64, FIELD_RANGE(0, MODEL_POSITIONS_MAX)),
    ROW("seq_length", seq_length, FIELD_INT64, FIELD_RANGE(1, MODEL_POSITIONS_MAX)),
    /* EXPERT_ROWS rows, then VARIANT_ROWS: written, and part of the hash, where they are not 0 */
    ROW("experts", experts, FIELD_INT64, FIELD_RANGE(0, MODEL_EXPERTS_MAX), .optional = true),
    ROW("experts_per_token", experts_per_token, FIELD_INT64, FIELD_RANGE(0, MODEL_EXPERTS_MAX),
        .optional = true),
    ROW("expert_ffn", expert_ffn, FIELD_INT64, FIELD_RANGE(0, MODEL_FFN_MAX), .optional = true),
    ROW("shared_ffn", shared_ffn, FIELD_INT64, FIELD_RANGE(0, MODEL_FFN_MAX), .optional = true),
    ROW("moe_every", moe_every, FIELD_INT64, FIELD_RANGE(0, MODEL_BLOCKS_MAX), .optional = true),
    ROW("qkv_bias", qkv_bias, FIELD_BOOL, .optional = true),
    ROW("bidirectional", bidirectional, FIELD_BOOL, .optional = true),
    ROW("segments", segments, FIELD_INT64, FIELD_RANGE(0, MODEL_VOCAB_MAX), .optional = true),
};
#undef ROW

#define ROW(key_, member_, ...) FIELD_ROW(struct model_overrides, key_, member_, __VA_ARGS__)
static const struct field override_rows[] = {
    ROW("layers", layers, FIELD_INT64, FIELD_RANGE(0, MODEL_BLOCKS_MAX)),
    ROW("hidden", hidden, FIELD_INT64, FIELD_RANGE(0, MODEL_HIDDEN_MAX)),
    ROW("heads", heads, FIELD_INT64, FIELD_RANGE(0, MODEL_HEADS_MAX)),
    ROW("kv-heads", kv_heads, FIELD_INT64, FIELD_RANGE(0, MODEL_HEADS_MAX)),
    ROW("ffn", ffn, FIELD_INT64, FIELD_RANGE(0, MODEL_FFN_MAX)),
    ROW("vocab-size", vocab_size, FIELD_INT64, FIELD_RANGE(0, MODEL_VOCAB_MAX)),
    ROW("positions", positions, FIELD_INT64, FIELD_RANGE(0, MODEL_POSITIONS_MAX)),
    ROW("seq-length", seq_length, FIELD_INT64, FIELD_RANGE(0, MODEL_POSITIONS_MAX)),
};
#undef ROW
/* clang-format on */

static const struct field_table model_table = {model_rows,
                                               sizeof(model_rows) / sizeof(model_rows[0])};
static const struct field_table weight_table = {model_rows + WEIGHT_ROWS_FIRST, WEIGHT_ROWS};
static const struct field_table plain_table = {model_rows, EXPERT_ROWS_FIRST};
static const struct field_table expert_table = {model_rows + EXPERT_ROWS_FIRST, EXPERT_ROWS};
static const struct field_table variant_table = {model_rows + EXPERT_ROWS_FIRST + EXPERT_ROWS,
                                                 VARIANT_ROWS};
static const struct field_table override_table = {override_rows,
                                                  sizeof(override_rows) / sizeof(override_rows[0])};

const char *model_family_name(enum model_family family)
{
    return name_of(&model_family_names, family);
}

size_t model_layer_count(const struct model *model)
{
    return 2 * (size_t)model->blocks + 2;
}

bool model_block_has_experts(const struct model *model, int64_t block)
{
    return model->experts > 0 && (block + 1) % model->moe_every == 0;
}

int64_t model_expert_blocks(const struct model *model)
{
    return model->experts > 0 ? model->blocks / model->moe_every : 0;
}

/* With `experts` of those that a block has. */
static uint64_t count_with(const struct model *model, int64_t experts)
{
    uint64_t expert_blocks = (uint64_t)model_expert_blocks(model);
    return layer_parameter_count(model, LAYER_EMBEDDING) +
           (uint64_t)model->blocks * layer_parameter_count(model, LAYER_ATTENTION) +
           ((uint64_t)model->blocks - expert_blocks) * layer_parameter_count(model, LAYER_MLP) +
           expert_blocks * experts_parameter_count(model, experts) +
           layer_parameter_count(model, LAYER_HEAD);
}

uint64_t model_parameter_count(const struct model *model)
{
    return count_with(model, model->experts);
}

uint64_t model_active_parameter_count(const struct model *model)
{
    return count_with(model, model->experts_per_token);
}

enum status model_check_executable(const struct model *model, const char *where, struct error *err)
{
    static const char instead[] = "temper plan --cluster plans it; profile, run and plans of "
                                  "measured profiles need a gpt2, llama or mistral model";
    if (model->experts > 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: its blocks have %lld experts (%s), which the executor cannot run: %s",
                         where, (long long)model->experts, model_type_name(model), instead);
    if (model->bidirectional)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: its attention is bidirectional (%s), and the executor's is causal: "
                         "%s",
                         where, model_type_name(model), instead);
    if (model->qkv_bias)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: its q, k and v have biases (%s), which the executor's llama blocks "
                         "have not: %s",
                         where, model_type_name(model), instead);
    return STATUS_OK;
}

/* ---- validation ---- */

static enum status check_attention(const struct model *m, const char *where, const char *prefix,
                                   struct error *err)
{
    long long heads = m->heads, kv_heads = m->kv_heads, head_dim = m->head_dim;
    long long hidden = m->hidden;

    if (heads % kv_heads != 0)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%skv_heads': %lld does not divide heads %lld", where, prefix,
                         kv_heads, heads);
    if (heads * head_dim > MODEL_CONTEXT_MAX)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%shead_dim': heads %lld times head_dim %lld is over %d", where,
                         prefix, heads, head_dim, MODEL_CONTEXT_MAX);
    if (m->family == MODEL_GPT2 && heads * head_dim != hidden)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%shead_dim': heads %lld times head_dim %lld is not hidden %lld",
                         where, prefix, heads, head_dim, hidden);
    if (m->family == MODEL_GPT2 && kv_heads != heads)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%skv_heads': must equal heads %lld for gpt2, is %lld "
                         "(grouped-query attention needs llama)",
                         where, prefix, heads, kv_heads);
    if (m->family == MODEL_LLAMA && head_dim % 2 != 0)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%shead_dim': must be even for rotary positions, is %lld", where,
                         prefix, head_dim);
    return STATUS_OK;
}

static enum status check_lengths(const struct model *m, const char *where, const char *prefix,
                                 struct error *err)
{
    if (m->seq_length > m->positions)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%sseq_length': %lld is over the model's %lld positions", where,
                         prefix, (long long)m->seq_length, (long long)m->positions);
    if (m->sliding_window > 0 && m->seq_length > m->sliding_window)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: key '%sseq_length': %lld is over the sliding window of %lld tokens; "
                         "temper computes whole causal attention, which is the same up to there",
                         where, prefix, (long long)m->seq_length, (long long)m->sliding_window);
    return STATUS_OK;
}

/* A key that must be 0 (false) unless `owner` has the value that brings it. */
static enum status foreign(const char *where, const char *prefix, const char *key,
                           const char *owner, struct error *err)
{
    return error_set(err, STATUS_INVALID, "%s: key '%s%s': must be 0 or false without %s", where,
                     prefix, key, owner);
}

static enum status check_experts(const struct model *m, const char *where, const char *prefix,
                                 struct error *err)
{
    const struct {
        const char *key;
        int64_t value, most;
    } rows[] = {{"experts_per_token", m->experts_per_token, m->experts},
                {"expert_ffn", m->expert_ffn, MODEL_FFN_MAX},
                {"moe_every", m->moe_every, m->blocks},
                {"shared_ffn", m->shared_ffn, MODEL_FFN_MAX}};
    enum { NEEDED = 3 };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (m->experts == 0 && rows[i].value != 0)
            return foreign(where, prefix, rows[i].key, "experts", err);
        if (m->experts > 0 && i < NEEDED && (rows[i].value < 1 || rows[i].value > rows[i].most))
            return error_set(err, STATUS_INVALID,
                             "%s: key '%s%s': must be from 1 to %lld with %lld experts, is %lld",
                             where, prefix, rows[i].key, (long long)rows[i].most,
                             (long long)m->experts, (long long)rows[i].value);
    }
    if (m->experts > 0 && m->family != MODEL_LLAMA)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: key '%sexperts': only llama's blocks may have experts, gpt2's have "
                         "none",
                         where, prefix);
    if (m->experts * m->expert_ffn > MODEL_EXPERT_COLUMNS_MAX)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%sexpert_ffn': experts %lld times expert_ffn %lld is over %d",
                         where, prefix, (long long)m->experts, (long long)m->expert_ffn,
                         MODEL_EXPERT_COLUMNS_MAX);
    return STATUS_OK;
}

static enum status check_variants(const struct model *m, const char *where, const char *prefix,
                                  struct error *err)
{
    if (m->qkv_bias && m->family != MODEL_LLAMA)
        return foreign(where, prefix, "qkv_bias", "family llama: gpt2 has all biases", err);
    if (m->bidirectional && m->family != MODEL_GPT2)
        return foreign(where, prefix, "bidirectional", "family gpt2", err);
    if (m->segments != 0 && !m->bidirectional)
        return foreign(where, prefix, "segments", "bidirectional", err);
    return STATUS_OK;
}

enum status model_validate_at(const struct model *model, const char *where, const char *prefix,
                              struct error *err)
{
    if ((unsigned)model->family >= MODEL_FAMILY_COUNT)
        return error_set(err, STATUS_INVALID, "%s: key '%sfamily': %u is not a model family", where,
                         prefix, (unsigned)model->family);
    TRY(fields_check(&model_table, model, where, prefix, err));
    TRY(check_attention(model, where, prefix, err));
    TRY(check_lengths(model, where, prefix, err));
    TRY(check_experts(model, where, prefix, err));
    TRY(check_variants(model, where, prefix, err));
    if (!(model->norm_epsilon > 0.0 && model->norm_epsilon < 1.0))
        return error_set(err, STATUS_INVALID,
                         "%s: key '%snorm_epsilon': must be between 0 and 1, is %g", where, prefix,
                         model->norm_epsilon);
    if (model->family == MODEL_LLAMA && !(isfinite(model->rope_theta) && model->rope_theta > 0.0))
        return error_set(err, STATUS_INVALID, "%s: key '%srope_theta': must be above 0, is %g",
                         where, prefix, model->rope_theta);
    return STATUS_OK;
}

enum status model_validate(const struct model *model, const char *where, struct error *err)
{
    return model_validate_at(model, where, "", err);
}

/* ---- loading ---- */

static int64_t default_seq_length(const struct model *model)
{
    int64_t length = model->positions;
    if (model->sliding_window > 0 && length > model->sliding_window)
        length = model->sliding_window;
    return length < DEFAULT_SEQ_LENGTH_MAX ? length : DEFAULT_SEQ_LENGTH_MAX;
}

static void override(int64_t *size, int64_t by)
{
    if (by > 0)
        *size = by;
}

static enum status apply_overrides(struct model *m, const struct model_overrides *o,
                                   const char *source, struct error *err)
{
    int64_t old_hidden = m->hidden;

    TRY(fields_check(&override_table, o, source, "--", err));
    override(&m->blocks, o->layers);
    override(&m->hidden, o->hidden);
    override(&m->heads, o->heads);
    override(&m->vocab, o->vocab_size);
    override(&m->positions, o->positions);
    if (o->hidden > 0 || o->heads > 0) {
        if (m->hidden % m->heads != 0)
            return error_set(err, STATUS_INVALID,
                             "%s: key 'heads': %lld heads do not divide hidden %lld", source,
                             (long long)m->heads, (long long)m->hidden);
        m->head_dim = m->hidden / m->heads;
    }
    if (m->family == MODEL_GPT2)
        m->ffn = m->ffn * m->hidden / old_hidden;
    override(&m->ffn, o->ffn);
    if (m->moe_every == 1) /* no block has an MLP of its own */
        override(&m->expert_ffn, o->ffn);
    if (m->family == MODEL_GPT2 || m->heads % m->kv_heads != 0)
        m->kv_heads = m->heads;
    override(&m->kv_heads, o->kv_heads);
    m->seq_length = default_seq_length(m);
    override(&m->seq_length, o->seq_length);
    return STATUS_OK;
}

static enum status unknown_source(const char *source, struct error *err)
{
    enum { NAMES_MAX = 32 };
    const char *names[NAMES_MAX];
    size_t count = model_builtin_count();
    struct text builtin_list = {0};
    struct text type_list = {0};
    struct text hint = {0};

    assert(count <= NAMES_MAX);
    for (size_t i = 0; i < count; i++)
        names[i] = model_builtin_name(i);
    const char *near = nearest_word(source, names, count);
    if (near != NULL)
        text_printf(&hint, "; did you mean '%s'?", near);
    model_builtin_names(&builtin_list);
    model_hf_types(&type_list);
    enum status status =
        error_set(err, STATUS_INVALID,
                  "model '%s': no built-in model and no file of this name%s (built-in: %s; or a "
                  "config.json of type %s)",
                  source, hint.data != NULL ? hint.data : "",
                  builtin_list.data != NULL ? builtin_list.data : "",
                  type_list.data != NULL ? type_list.data : "");
    text_free(&hint);
    text_free(&type_list);
    text_free(&builtin_list);
    return status;
}

static enum status load_folder(struct model *out, const char *folder, struct error *err)
{
    struct text path = {0};
    text_printf(&path, "%s/config.json", folder);
    enum status status = text_check(&path, err);
    if (status == STATUS_OK)
        status = model_load_hf(out, path.data, err);
    text_free(&path);
    return status;
}

enum status model_load(struct model *out, const char *source,
                       const struct model_overrides *overrides, struct error *err)
{
    static const struct model_overrides none = {0};
    const struct model *builtin = model_builtin_find(source);
    struct model model;

    if (builtin != NULL)
        model = *builtin;
    else if (folder_exists(source))
        TRY(load_folder(&model, source, err));
    else if (file_exists(source))
        TRY(model_load_hf(&model, source, err));
    else
        return unknown_source(source, err);

    TRY(apply_overrides(&model, overrides != NULL ? overrides : &none, source, err));
    TRY(model_validate(&model, source, err));
    *out = model;
    return STATUS_OK;
}

/* ---- inside other files ---- */

/* Whether the last rows of the table say anything: what was written before they were there stays
 * as it was, and so do its hashes. */
static bool has_experts(const struct model *model)
{
    return model->experts > 0;
}

static bool is_variant(const struct model *model)
{
    return model->qkv_bias || model->bidirectional || model->segments > 0;
}

void model_write(const struct model *model, const char *key, struct jout *out)
{
    jout_begin_object(out, key);
    fields_write(&plain_table, model, out);
    if (has_experts(model))
        fields_write(&expert_table, model, out);
    if (is_variant(model))
        fields_write(&variant_table, model, out);
    jout_end(out);
}

enum status model_read(struct model *out, const struct jin *at, struct error *err)
{
    struct model model = {0};
    struct text prefix = {0};

    if (!jin_is_object(at))
        return jin_invalid(at, NULL, err, "expected an object that describes a model");
    TRY(keys_check(&model_table, NULL, at, err));
    TRY(fields_read(&model_table, at, &model, err));

    if (at->path[0] != '\0')
        text_printf(&prefix, "%s.", at->path);
    enum status status = text_check(&prefix, err);
    if (status == STATUS_OK)
        status = model_validate_at(&model, at->file, prefix.data != NULL ? prefix.data : "", err);
    text_free(&prefix);
    if (status == STATUS_OK)
        *out = model;
    return status;
}

/* ---- identity ---- */

/* gpt2's positions are rows of a weight; llama's are a limit on use alone. */
static int64_t position_rows(const struct model *model)
{
    return model->family == MODEL_GPT2 ? model->positions : 0;
}

uint64_t model_hash(const struct model *model)
{
    int64_t positions = position_rows(model);
    uint64_t hash = fields_hash(&weight_table, model, 0);
    hash = hash_mix(hash, &positions, sizeof(positions));
    if (has_experts(model))
        hash = fields_hash(&expert_table, model, hash);
    return is_variant(model) ? fields_hash(&variant_table, model, hash) : hash;
}

bool model_same_weights(const struct model *a, const struct model *b)
{
    return model_hash(a) == model_hash(b);
}
