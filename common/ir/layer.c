#include "ir/layer.h"

#include "ir/names.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char *const kinds[LAYER_KIND_COUNT] = {
    [LAYER_EMBEDDING] = "embedding",
    [LAYER_ATTENTION] = "attention",
    [LAYER_MLP] = "mlp",
    [LAYER_HEAD] = "head",
};
static const char *const precisions[PRECISION_COUNT] = {
    [PRECISION_FP32] = "fp32",
    [PRECISION_BF16] = "bf16",
    [PRECISION_FP16] = "fp16",
};
static const char *const recomputes[RECOMPUTE_COUNT] = {
    [RECOMPUTE_NONE] = "none",
    [RECOMPUTE_SELECTIVE] = "selective",
    [RECOMPUTE_FULL] = "full",
};
static const char *const phases[PHASE_COUNT] = {
    [PHASE_FORWARD] = "forward",
    [PHASE_BACKWARD] = "backward",
    [PHASE_TENSOR] = "tensor",
    [PHASE_PIPELINE] = "pipeline",
    [PHASE_PARAM_GATHER] = "param_gather",
    [PHASE_GRAD_REDUCE] = "grad_reduce",
    [PHASE_OPTIMIZER] = "optimizer",
    [PHASE_OTHER] = "other",
};
static const char *const attention_kernels[ATTENTION_KERNEL_COUNT] = {
    [ATTENTION_PLAIN] = "plain",
    [ATTENTION_TILED] = "tiled",
};
const struct name_list layer_kind_names = {kinds, LAYER_KIND_COUNT};
const struct name_list precision_names = {precisions, PRECISION_COUNT};
const struct name_list recompute_names = {recomputes, RECOMPUTE_COUNT};
const struct name_list phase_names = {phases, PHASE_COUNT};
const struct name_list attention_kernel_names = {attention_kernels, ATTENTION_KERNEL_COUNT};

static const struct {
    bool admits_recompute[RECOMPUTE_COUNT];
    bool admits_precision[PRECISION_COUNT];
} admitted[LAYER_KIND_COUNT] = {
    /*                    none   selective full      fp32  bf16   fp16 */
    [LAYER_EMBEDDING] = {{true, false, false}, {true, false, false}},
    [LAYER_ATTENTION] = {{true, true, true}, {true, true, true}},
    [LAYER_MLP] = {{true, true, true}, {true, true, true}},
    [LAYER_HEAD] = {{true, false, false}, {true, true, true}},
};

struct layer model_layer(const struct model *model, size_t index)
{
    size_t last = model_layer_count(model) - 1;
    assert(index <= last);
    if (index == 0)
        return (struct layer){.kind = LAYER_EMBEDDING};
    if (index == last)
        return (struct layer){.kind = LAYER_HEAD};
    return (struct layer){
        .kind = index % 2 == 1 ? LAYER_ATTENTION : LAYER_MLP,
        .block = (int64_t)((index - 1) / 2),
    };
}

const char *layer_kind_name(enum layer_kind kind)
{
    return name_of(&layer_kind_names, kind);
}

const char *precision_name(enum precision precision)
{
    return name_of(&precision_names, precision);
}

const char *recompute_name(enum recompute recompute)
{
    return name_of(&recompute_names, recompute);
}

const char *phase_name(enum phase phase)
{
    return name_of(&phase_names, phase);
}

const char *attention_kernel_name(enum attention_kernel kernel)
{
    return name_of(&attention_kernel_names, kernel);
}

const char *layer_mode_text(enum recompute recompute, enum attention_kernel kernel)
{
    static const char *const tiled[RECOMPUTE_COUNT] = {"none, tiled", "selective, tiled",
                                                       "full, tiled"};
    return kernel == ATTENTION_TILED ? tiled[recompute] : recompute_name(recompute);
}

bool layer_kind_parse(const char *name, enum layer_kind *out)
{
    unsigned value;
    if (!name_parse(&layer_kind_names, name, &value))
        return false;
    *out = (enum layer_kind)value;
    return true;
}

bool precision_parse(const char *name, enum precision *out)
{
    unsigned value;
    if (!name_parse(&precision_names, name, &value))
        return false;
    *out = (enum precision)value;
    return true;
}

bool recompute_parse(const char *name, enum recompute *out)
{
    unsigned value;
    if (!name_parse(&recompute_names, name, &value))
        return false;
    *out = (enum recompute)value;
    return true;
}

bool phase_parse(const char *name, enum phase *out)
{
    unsigned value;
    if (!name_parse(&phase_names, name, &value))
        return false;
    *out = (enum phase)value;
    return true;
}

bool attention_kernel_parse(const char *name, enum attention_kernel *out)
{
    unsigned value;
    if (!name_parse(&attention_kernel_names, name, &value))
        return false;
    *out = (enum attention_kernel)value;
    return true;
}

uint64_t precision_bytes(enum precision precision)
{
    return precision == PRECISION_FP32 ? 4 : 2;
}

bool layer_admits_recompute(enum layer_kind kind, enum recompute recompute)
{
    return admitted[kind].admits_recompute[recompute];
}

bool layer_admits_precision(enum layer_kind kind, enum precision precision)
{
    return admitted[kind].admits_precision[precision];
}

bool layer_admits_kernel(enum layer_kind kind, enum attention_kernel kernel)
{
    return kernel == ATTENTION_PLAIN || kind == LAYER_ATTENTION;
}

/* ---- parts ---- */

struct layer_part layer_whole(enum layer_kind kind)
{
    return (struct layer_part){.kind = kind, .ways = 1};
}

static enum status check_divides(const struct layer_part *part, int64_t count, const char *what,
                                 struct error *err)
{
    if (count % part->ways == 0)
        return STATUS_OK;
    return error_set(err, STATUS_INVALID, "%s: %lld %s do not divide by tensor_parallel %d",
                     layer_kind_name(part->kind), (long long)count, what, part->ways);
}

enum status layer_part_check(const struct model *model, const struct layer_part *part,
                             struct error *err)
{
    const char *kind = layer_kind_name(part->kind);
    if (part->ways < 1)
        return error_set(err, STATUS_INVALID, "%s: tensor_parallel is %d, must be 1 or more", kind,
                         part->ways);
    if (part->sequence_parallel && part->ways == 1)
        return error_set(err, STATUS_INVALID,
                         "%s: sequence_parallel needs a tensor_parallel of 2 or more", kind);
    assert(part->index >= 0 && part->index < part->ways);
    switch (part->kind) {
    case LAYER_ATTENTION:
        TRY(check_divides(part, model->heads, "heads", err));
        return check_divides(part, model->kv_heads, "kv_heads", err);
    case LAYER_MLP:
        return check_divides(part, model->ffn, "ffn columns", err);
    default:
        if (part_vocab_rows(model, part) * (part->ways - 1) >= model->vocab)
            return error_set(err, STATUS_INVALID,
                             "%s: %lld vocab rows leave the last of tensor_parallel %d ranks none",
                             kind, (long long)model->vocab, part->ways);
        return STATUS_OK;
    }
}

int64_t part_vocab_rows(const struct model *model, const struct layer_part *part)
{
    return model->vocab / part->ways + (model->vocab % part->ways != 0);
}

int64_t part_vocab_valid(const struct model *model, const struct layer_part *part)
{
    int64_t rows = part_vocab_rows(model, part);
    int64_t left = model->vocab - rows * part->index;
    return left >= rows ? rows : left > 0 ? left : 0;
}

/* ---- work ---- */

double layer_forward_flops(const struct model *model, enum layer_kind kind,
                           const struct micro_batch_shape *shape)
{
    struct layer_part whole = layer_whole(kind);
    return layer_part_forward_flops(model, &whole, shape);
}

/* Products of one MLP: gate, up and down, or up and down. */
static double mlp_matrices(const struct model *model)
{
    return model->family == MODEL_LLAMA ? 3.0 : 2.0;
}

double experts_forward_flops(const struct model *model, const struct micro_batch_shape *shape)
{
    double tokens = (double)shape->sequences * (double)shape->seq_length;
    double columns = (double)model->experts_per_token * (double)model->expert_ffn;
    double gate = model->shared_ffn > 0 ? 1.0 : 0.0;
    columns += (double)model->shared_ffn;
    return 2.0 * tokens * (double)model->hidden *
           (mlp_matrices(model) * columns + (double)model->experts + gate);
}

double block_forward_flops(const struct model *model, bool has_experts,
                           const struct micro_batch_shape *shape)
{
    double attention = layer_forward_flops(model, LAYER_ATTENTION, shape);
    if (has_experts)
        return attention + experts_forward_flops(model, shape);
    return attention + layer_forward_flops(model, LAYER_MLP, shape);
}

/* The encoder's head has a dense layer before its decoder. */
static double head_columns(const struct model *model, const struct layer_part *part)
{
    double columns = (double)part_vocab_rows(model, part);
    return model->bidirectional ? columns + (double)model->hidden : columns;
}

double model_forward_flops(const struct model *model, const struct micro_batch_shape *shape)
{
    int64_t with = model_expert_blocks(model);
    double flops = layer_forward_flops(model, LAYER_HEAD, shape);
    flops += (double)(model->blocks - with) * block_forward_flops(model, false, shape);
    if (with > 0)
        flops += (double)with * block_forward_flops(model, true, shape);
    return flops;
}

double layer_part_forward_flops(const struct model *model, const struct layer_part *part,
                                const struct micro_batch_shape *shape)
{
    double tokens = (double)shape->sequences * (double)shape->seq_length;
    double hidden = (double)model->hidden, ways = (double)part->ways;
    double context = (double)model->heads * (double)model->head_dim / ways;
    double qkv = context + 2.0 * (double)model->kv_heads * (double)model->head_dim / ways;

    switch (part->kind) {
    case LAYER_ATTENTION:
        return 2.0 * tokens *
               (hidden * qkv + context * hidden + 2.0 * (double)shape->seq_length * context);
    case LAYER_MLP:
        return 2.0 * tokens * mlp_matrices(model) * hidden * (double)model->ffn / ways;
    case LAYER_HEAD: /* padding is multiplied like the rest */
        return 2.0 * tokens * hidden * head_columns(model, part);
    default: /* the embedding looks rows up and multiplies nothing */
        return 0.0;
    }
}

/* ---- identity ---- */

const char *layer_key(const struct model *model, enum layer_kind kind, char key[LAYER_KEY_BYTES])
{
    char sizes[64];
    long long heads = model->heads, kv_heads = model->kv_heads, head_dim = model->head_dim;
    long long ffn = model->ffn, vocab = model->vocab, positions = model->positions;

    switch (kind) {
    case LAYER_ATTENTION:
        snprintf(sizes, sizeof(sizes), "a%lld/k%lld/d%lld", heads, kv_heads, head_dim);
        break;
    case LAYER_MLP:
        snprintf(sizes, sizeof(sizes), "f%lld", ffn);
        break;
    case LAYER_HEAD:
        snprintf(sizes, sizeof(sizes), "v%lld/%s", vocab, model->tied_head ? "tied" : "untied");
        break;
    default:
        if (model->family == MODEL_GPT2)
            snprintf(sizes, sizeof(sizes), "v%lld/p%lld", vocab, positions);
        else
            snprintf(sizes, sizeof(sizes), "v%lld", vocab);
        break;
    }
    snprintf(key, LAYER_KEY_BYTES, "%s/%s/h%lld/%s/s%lld", layer_kind_name(kind),
             model_family_name(model->family), (long long)model->hidden, sizes,
             (long long)model->seq_length);
    return key;
}

const char *layer_part_key(const struct model *model, const struct layer_part *part,
                           char key[LAYER_KEY_BYTES])
{
    layer_key(model, part->kind, key);
    size_t used = strlen(key);
    if (part->ways > 1)
        used += (size_t)snprintf(key + used, LAYER_KEY_BYTES - used, "/tp%d%s", part->ways,
                                 part->sequence_parallel ? "sp" : "");
    if (part->owns_table)
        snprintf(key + used, LAYER_KEY_BYTES - used, "/own");
    return key;
}
