#include "cli/answer_file.h"

#include "cli/cli.h"
#include "ir/fields.h"
#include "planner/pins.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char by_block[] = "by block"; /* of a mode that is not that of all blocks */

/* ---- tables ---- */

/* clang-format off */
#define ROW(key_, member_, ...) FIELD_ROW(struct answer_question, key_, member_, __VA_ARGS__)
static const struct field question_rows[] = {
    ROW("cluster", cluster, FIELD_TEXT, .capacity = CLUSTER_NAME_BYTES),
    ROW("cluster_hash", cluster_hash, FIELD_TEXT, .capacity = ANSWER_HASH_BYTES),
    ROW("model", model, FIELD_TEXT, .capacity = MODEL_NAME_BYTES),
    ROW("model_hash", model_hash, FIELD_TEXT, .capacity = ANSWER_HASH_BYTES),
    ROW("devices", devices, FIELD_INT64, FIELD_RANGE(1, INT64_C(1) << 40)),
    ROW("seq_length", seq_length, FIELD_INT64, FIELD_RANGE(1, INT64_C(1) << 40)),
    ROW("global_batch", global_batch, FIELD_INT64, FIELD_RANGE(1, INT64_C(1) << 40)),
    ROW("framework", framework, FIELD_NAME, .names = &framework_names),
    ROW("arithmetic", arithmetic, FIELD_TEXT, .capacity = ANSWER_WORD_BYTES),
    ROW("memory_cap_bytes", memory_cap_bytes, FIELD_BYTES, FIELD_RANGE(0, INT64_MAX)),
    ROW("risk", risk, FIELD_REAL),
    ROW("executable", executable, FIELD_BOOL),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct layout_weights, key_, member_, __VA_ARGS__)
static const struct field weight_rows[] = {
    ROW("time", time, FIELD_REAL),
    ROW("memory", memory, FIELD_REAL),
    ROW("energy", energy, FIELD_REAL),
    ROW("raw", raw, FIELD_BOOL),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct priced_layout, key_, member_, __VA_ARGS__)
static const struct field unit_rows[] = { /* null: there is none of it */
    ROW("time_s", time_s, FIELD_REAL, .optional = true),
    ROW("memory_bytes", memory_bytes, FIELD_REAL, .optional = true),
    ROW("energy_j", energy_j, FIELD_REAL, .optional = true),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct layout_prediction, key_, member_, __VA_ARGS__)
static const struct field term_rows[] = {
    ROW("time_s", time_s, FIELD_QUANTITY),
    ROW("phase_time_s", phase_time_s, FIELD_QUANTITIES, .names = &phase_names),
    ROW("memory_bytes", memory_bytes, FIELD_QUANTITY),
    ROW("memory_term_bytes", memory_term_bytes, FIELD_QUANTITIES, .names = &memory_term_names),
    ROW("energy_j", energy_j, FIELD_QUANTITY),
    ROW("price", price, FIELD_QUANTITY),
    ROW("carbon_g", carbon_g, FIELD_QUANTITY),
};
#undef ROW
/* clang-format on */

static const struct field_table question_table = {question_rows, COUNT_OF(question_rows)};
static const struct field_table weight_table = {weight_rows, COUNT_OF(weight_rows)};
static const struct field_table unit_table = {unit_rows, COUNT_OF(unit_rows)};
static const struct field_table term_table = {term_rows, COUNT_OF(term_rows)};

/* ---- writing ---- */

void answer_question_write(const struct answer_question *question, const char *pins,
                           const struct priced_layout *units, struct jout *out)
{
    jout_string(out, "format", ANSWER_FORMAT);
    jout_int(out, "version", ANSWER_VERSION);
    fields_write(&question_table, question, out);
    jout_string(out, "pins", pins);
    jout_begin_object(out, "weights");
    fields_write(&weight_table, &question->weights, out);
    jout_end(out);
    jout_begin_object(out, "units");
    fields_write(&unit_table, units, out);
    jout_end(out);
}

void answer_terms_write(const struct layout_prediction *prediction, struct jout *out)
{
    jout_begin_object(out, "terms");
    fields_write(&term_table, prediction, out);
    jout_end(out);
}

/* ---- reading: the terms ---- */

/* A known total is the sum of its known terms. */
static enum status check_sum(const struct jin *at, const char *key, const struct quantity *total,
                             const struct quantity *terms, size_t count, struct error *err)
{
    struct quantity sum = terms[0];
    for (size_t i = 1; i < count; i++)
        sum = quantity_add(sum, terms[i]);
    if (total->provenance == PROVENANCE_ABSENT || !(total->value > 0))
        return jin_invalid(at, key, err, "must be known and above 0");
    if (sum.provenance != PROVENANCE_ABSENT &&
        !(fabs(total->value - sum.value) <= 1e-6 * fabs(sum.value)))
        return jin_invalid(at, key, err, "%.9g is not the sum of its terms, %.9g", total->value,
                           sum.value);
    return STATUS_OK;
}

static enum status read_terms(struct answer_file *out, const struct jin *root, struct error *err)
{
    struct layout_prediction *terms = &out->terms;
    struct jin at;
    TRY(jin_object(root, "terms", &at, err));
    TRY(fields_read(&term_table, &at, terms, err));
    TRY(check_sum(&at, "time_s", &terms->time_s, terms->phase_time_s, PHASE_COUNT, err));
    return check_sum(&at, "memory_bytes", &terms->memory_bytes, terms->memory_term_bytes,
                     MEMORY_TERM_COUNT, err);
}

/* ---- reading: the first layout ---- */

static enum status read_choice(struct answer_file *out, const struct jin *at,
                               enum layout_choice choice, struct error *err)
{
    const char *key = layout_choice_key(choice), *word;
    const struct name_list *names = layout_choice_names(choice);
    char *words = out->choices[choice];
    unsigned value;
    int64_t number;
    bool is_on;
    if (layout_choice_is_switch(choice)) {
        TRY(jin_bool(at, key, &is_on, err));
        (void)layout_choice_text(choice, is_on, words);
    } else if (names != NULL) {
        TRY(jin_string(at, key, &word, err));
        if (!name_parse(names, word, &value) && strcmp(word, by_block) != 0)
            return jin_invalid(at, key, err, "'%s' is no value of this choice", word);
        (void)snprintf(words, LAYOUT_CHOICE_BYTES, "%s", word);
    } else {
        TRY(jin_int(at, key, &number, err));
        if (number < (choice == LAYOUT_ZERO ? 0 : 1))
            return jin_invalid(at, key, err, "must be %d or more, is %lld",
                               choice == LAYOUT_ZERO ? 0 : 1, (long long)number);
        (void)layout_choice_text(choice, number, words);
    }
    return STATUS_OK;
}

static enum status read_plan_only(struct answer_file *out, const struct jin *layout,
                                  struct error *err)
{
    size_t used = 0, capacity = sizeof(out->plan_only);
    struct jin list;
    TRY(jin_array(layout, "plan_only", &list, err));
    for (size_t i = 0; i < jin_length(&list) && used < capacity; i++) {
        struct jin at = jin_element(&list, i);
        const char *word;
        TRY(jin_as_string(&at, &word, err));
        int written =
            snprintf(out->plan_only + used, capacity - used, "%s%s", i > 0 ? ", " : "", word);
        used += written > 0 ? (size_t)written : 0;
    }
    return STATUS_OK;
}

static enum status read_layout(struct answer_file *out, const struct jin *root, struct error *err)
{
    struct jin list;
    TRY(jin_array(root, "layouts", &list, err));
    if (jin_length(&list) == 0)
        return jin_invalid(root, "layouts", err,
                           "is empty: an answer without a layout has nothing to compare");
    struct jin first = jin_element(&list, 0);
    for (int choice = 0; choice < LAYOUT_CHOICE_COUNT; choice++)
        TRY(read_choice(out, &first, (enum layout_choice)choice, err));
    TRY(read_plan_only(out, &first, err));
    int64_t shard = strtoll(out->choices[LAYOUT_SHARD], NULL, 10);
    int64_t replicas = strtoll(out->choices[LAYOUT_DATA], NULL, 10) *
                       strtoll(out->choices[LAYOUT_CONTEXT], NULL, 10);
    out->is_plain_shard = strcmp(out->choices[LAYOUT_ZERO], "0") == 0 || shard == replicas;
    return STATUS_OK;
}

/* ---- reading: stages ---- */

struct stage_reader {
    struct answer_stages *out;
    struct jin at;        /* the stage */
    int64_t first, count; /* its blocks */
};

static enum status read_mode(const struct jin *at, const char *feature, struct block_mode *out,
                             struct error *err)
{
    const char *word;
    if (strcmp(feature, "offload") == 0)
        return jin_bool(at, "mode", &out->offload, err);
    TRY(jin_string(at, "mode", &word, err));
    bool is_known = strcmp(feature, "recompute") == 0 ? recompute_parse(word, &out->recompute)
                                                      : arithmetic_parse(word, &out->arithmetic);
    return is_known ? STATUS_OK : jin_invalid(at, "mode", err, "'%s' is no %s", word, feature);
}

static void set_mode(const char *feature, const struct block_mode *mode, struct block_mode *out)
{
    if (strcmp(feature, "offload") == 0)
        out->offload = mode->offload;
    else if (strcmp(feature, "recompute") == 0)
        out->recompute = mode->recompute;
    else
        out->arithmetic = mode->arithmetic;
}

/* The runs of one feature: together they are the stage's blocks. */
static enum status read_feature(const struct stage_reader *reader, const char *feature,
                                struct error *err)
{
    struct jin list;
    int64_t done = 0;
    TRY(jin_array(&reader->at, feature, &list, err));
    for (size_t i = 0; i < jin_length(&list); i++) {
        struct jin at = jin_element(&list, i);
        struct block_mode mode = {.offload = false};
        int64_t blocks = 0;
        TRY(read_mode(&at, feature, &mode, err));
        TRY(jin_int(&at, "blocks", &blocks, err));
        if (blocks < 1 || blocks > reader->count - done)
            return jin_invalid(&at, "blocks", err, "the stage has %lld blocks",
                               (long long)reader->count);
        for (int64_t k = 0; k < blocks; k++)
            set_mode(feature, &mode, &reader->out->modes[reader->first + done + k]);
        done += blocks;
    }
    if (done != reader->count)
        return jin_invalid(&reader->at, feature, err, "is of %lld blocks, the stage has %lld",
                           (long long)done, (long long)reader->count);
    return STATUS_OK;
}

/* The whole list before anything is allocated for it. */
static enum status count_blocks(const struct jin *list, int64_t *blocks, struct error *err)
{
    enum { BLOCKS_MOST = 1 << 20 };
    *blocks = 0;
    for (size_t i = 0; i < jin_length(list); i++) {
        struct jin at = jin_element(list, i);
        int64_t first = 0, count = 0;
        TRY(jin_int(&at, "first_block", &first, err));
        TRY(jin_int(&at, "blocks", &count, err));
        if (first != *blocks)
            return jin_invalid(&at, "first_block", err, "must be %lld, behind the stage before",
                               (long long)*blocks);
        if (count < 1 || count > BLOCKS_MOST - *blocks)
            return jin_invalid(&at, "blocks", err, "must be 1 or more, is %lld", (long long)count);
        *blocks += count;
    }
    return STATUS_OK;
}

static enum status allocate_stages(struct answer_stages *out, size_t count, struct error *err)
{
    out->modes = calloc((size_t)out->blocks, sizeof(*out->modes));
    out->stage_blocks = calloc(count, sizeof(*out->stage_blocks));
    out->stage_groups = calloc(count, sizeof(*out->stage_groups));
    if (out->modes == NULL || out->stage_blocks == NULL || out->stage_groups == NULL)
        return error_memory(err, (size_t)out->blocks * sizeof(*out->modes), "the stages");
    out->plan = (struct block_plan){out->modes, out->stage_blocks, out->stage_groups};
    return STATUS_OK;
}

static enum status read_stage(struct stage_reader *reader, size_t number, struct error *err)
{
    static const char *const features[] = {"recompute", "arithmetic", "offload"};
    int64_t group = 0;
    TRY(jin_int(&reader->at, "first_block", &reader->first, err));
    TRY(jin_int(&reader->at, "blocks", &reader->count, err));
    TRY(jin_int(&reader->at, "group", &group, err));
    if (group < 0 || group >= CLUSTER_GROUPS_MAX)
        return jin_invalid(&reader->at, "group", err, "must be from 0 to %d, is %lld",
                           CLUSTER_GROUPS_MAX - 1, (long long)group);
    reader->out->stage_blocks[number] = reader->count;
    reader->out->stage_groups[number] = (size_t)group;
    for (size_t i = 0; i < COUNT_OF(features); i++)
        TRY(read_feature(reader, features[i], err));
    return STATUS_OK;
}

/* None are written where all blocks do the same. */
static enum status read_stages(struct answer_file *file, const struct jin *root, struct error *err)
{
    struct answer_stages *out = &file->stages;
    struct jin list;
    if (!jin_has(root, "stages"))
        return STATUS_OK;
    TRY(jin_array(root, "stages", &list, err));
    size_t count = jin_length(&list);
    if (count != (size_t)strtoull(file->choices[LAYOUT_PIPELINE], NULL, 10))
        return jin_invalid(root, "stages", err, "has %zu stages, the first layout %s", count,
                           file->choices[LAYOUT_PIPELINE]);
    TRY(count_blocks(&list, &out->blocks, err));
    TRY(allocate_stages(out, count, err));
    out->count = (int64_t)count;
    for (size_t i = 0; i < count; i++) {
        struct stage_reader reader = {.out = out, .at = jin_element(&list, i)};
        TRY(read_stage(&reader, i, err));
    }
    return STATUS_OK;
}

/* ---- reading: all ---- */

static enum status read_weights(struct answer_file *out, const struct jin *root, struct error *err)
{
    const struct layout_weights *weights = &out->question.weights;
    struct jin at;
    TRY(jin_object(root, "weights", &at, err));
    TRY(fields_read(&weight_table, &at, &out->question.weights, err));
    if (!(weights->time >= 0 && weights->memory >= 0 && weights->energy >= 0 &&
          weights->time + weights->memory + weights->energy > 0))
        return jin_invalid(root, "weights", err, "must be 0 or more, one of them above 0");
    TRY(jin_object(root, "units", &at, err));
    return fields_read(&unit_table, &at, &out->units, err);
}

enum status answer_file_read(struct answer_file *out, struct json_document *document,
                             struct error *err)
{
    struct jin root = json_root(document);
    *out = (struct answer_file){.document = document, .pins = "", .currency = "", .gap = NAN};
    TRY(format_check(&root, ANSWER_FORMAT, ANSWER_VERSION, err));
    TRY(fields_read(&question_table, &root, &out->question, err));
    TRY(jin_string_opt(&root, "pins", &out->pins, err));
    TRY(jin_string_opt(&root, "currency", &out->currency, err));
    TRY(jin_real_opt(&root, "gap", &out->gap, err));
    TRY(jin_bool(&root, "whole", &out->is_whole, err));
    TRY(jin_real(&root, "mfu", &out->mfu, err));
    TRY(read_weights(out, &root, err));
    TRY(read_layout(out, &root, err));
    TRY(read_terms(out, &root, err));
    return read_stages(out, &root, err);
}

void answer_file_clear(struct answer_file *file)
{
    json_document_free(file->document);
    free(file->stages.modes);
    free(file->stages.stage_blocks);
    free(file->stages.stage_groups);
    *file = (struct answer_file){.document = NULL};
}
