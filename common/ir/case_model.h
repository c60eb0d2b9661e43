/* Models that published runs name without their sizes: what a source calls "gpt3-xl". */
#ifndef TEMPER_IR_CASE_MODEL_H
#define TEMPER_IR_CASE_MODEL_H

#include "ir/layout.h"
#include "ir/model.h"

struct case_model {
    const char *source; /* how the column 'source' of its runs begins */
    const char *name;   /* the column 'model', all of it */
    const char
        *unlike; /* why it is no chain of alike blocks; NULL: it is one, and the rest holds */
    enum model_family family;
    int64_t blocks, hidden, heads, ffn, vocab, seq;
    int64_t embedding_layers; /* that stand before the blocks where 'partition' counts layers */
    enum elementwise elementwise;
    bool bidirectional; /* with two segments, as BERT's */
};

/* NULL: none of the table's. */
const struct case_model *case_model_find(const char *source, const char *name);

#endif
