/* Where models come from: shared by model*.c and plan*.c, not part of the public interface. */
#ifndef TEMPER_IR_MODEL_SOURCE_H
#define TEMPER_IR_MODEL_SOURCE_H

#include "ir/model.h"

/* The largest sizes accepted. They keep a model's parameter count below 2^61 and every product of
 * two sizes within int64_t. */
enum model_limit {
    MODEL_BLOCKS_MAX = 1 << 16,
    MODEL_HEADS_MAX = 1 << 16,
    MODEL_HEAD_DIM_MAX = 1 << 16,
    MODEL_HIDDEN_MAX = 1 << 20,
    MODEL_FFN_MAX = 1 << 22,
    MODEL_CONTEXT_MAX = 1 << 22, /* heads * head_dim */
    MODEL_VOCAB_MAX = 1 << 24,
    MODEL_POSITIONS_MAX = 1 << 24,
    MODEL_EXPERTS_MAX = 1 << 16,
    MODEL_EXPERT_COLUMNS_MAX = 1 << 22, /* experts * expert_ffn */
};

/* The built-in model of this name, or NULL. Its seq_length is not set. */
const struct model *model_builtin_find(const char *name);
/* "gpt2, gpt2-medium, ..." */
void model_builtin_names(struct text *out);

/* Read an HF config.json; seq_length is not set. */
enum status model_load_hf(struct model *out, const char *path, struct error *err);
/* "gpt2, llama, mistral, ..." */
void model_hf_types(struct text *out);

/* model_validate for a model inside a file: keys are named "PREFIXkey". */
enum status model_validate_at(const struct model *model, const char *where, const char *prefix,
                              struct error *err);

#endif
