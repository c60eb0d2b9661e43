/* What `temper plan --cluster ... --json` prints, as far as two such answers are compared: what was
 * asked, the first layout's choices and stages, and what it is predicted to cost, term by term.
 * Written and read by the same tables; docs/cluster-plan.md has all keys. */
#ifndef TEMPER_CLI_ANSWER_FILE_H
#define TEMPER_CLI_ANSWER_FILE_H

#include "base/json.h"
#include "costmodel/layout_cost.h"
#include "planner/layout_choice.h"
#include "planner/layouts.h"

#define ANSWER_FORMAT "temper-cluster-answer"

enum { ANSWER_VERSION = 1, ANSWER_WORD_BYTES = 32, ANSWER_HASH_BYTES = 17 };

/* What was asked. */
struct answer_question {
    char cluster[CLUSTER_NAME_BYTES], model[MODEL_NAME_BYTES];
    char cluster_hash[ANSWER_HASH_BYTES], model_hash[ANSWER_HASH_BYTES];
    int64_t devices, global_batch, seq_length;
    enum framework framework;
    char arithmetic[ANSWER_WORD_BYTES]; /* to choose from: "bf16", "bf16,fp8" */
    uint64_t memory_cap_bytes;          /* 0: what the device has */
    double risk;
    bool executable;
    struct layout_weights weights;
};

/* The stages of a layout whose blocks differ. */
struct answer_stages {
    struct block_mode *modes; /* [blocks], owned */
    int64_t *stage_blocks;    /* [count], owned */
    size_t *stage_groups;     /* [count], owned */
    int64_t count, blocks;    /* 0: all blocks are alike */
    struct block_plan plan;   /* of the arrays above */
};

struct answer_file {
    struct json_document *document; /* owned */
    struct answer_question question;
    const char *pins;     /* as the user gave them; of the document */
    const char *currency; /* empty: no prices; of the document */
    struct priced_layout units;
    double gap; /* NAN: not known */
    bool is_whole;
    double mfu;
    struct layout_prediction terms;
    char choices[LAYOUT_CHOICE_COUNT][LAYOUT_CHOICE_BYTES]; /* of the first layout, as words */
    bool is_plain_shard; /* ZeRO's state is over all replicas, as it is unless chosen otherwise */
    char plan_only[128]; /* "context_parallel, offload" */
    struct answer_stages stages;
};

/* Members of the open object: format and version, what was asked, the units of the weights. */
void answer_question_write(const struct answer_question *question, const char *pins,
                           const struct priced_layout *units, struct jout *out);
/* Member "terms" of the open object. */
void answer_terms_write(const struct layout_prediction *prediction, struct jout *out);

/* Errors name file and key. `document` is of the file; it is taken over, also on failure. Release
 * with answer_file_clear, also after a failure. */
enum status answer_file_read(struct answer_file *out, struct json_document *document,
                             struct error *err);
void answer_file_clear(struct answer_file *file);

#endif
