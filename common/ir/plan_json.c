/* A plan as JSON; the format is described in docs/plan.md. */
#include "base/file.h"
#include "ir/plan.h"
#include "ir/plan_fields.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char format_name[] = "temper-plan";

/* ---- tables ---- */

/* The phases of version 1, which knew neither parts nor stages nor shards. */
static const char *const phase_texts_1[] = {"forward", "backward", "grad_reduce", "optimizer",
                                            "other"};
enum { PHASE_COUNT_1 = sizeof(phase_texts_1) / sizeof(phase_texts_1[0]) };
static const struct name_list phase_names_1 = {phase_texts_1, PHASE_COUNT_1};

/* clang-format off */
#define ROW(key_, member_, ...) FIELD_ROW(struct plan, key_, member_, __VA_ARGS__)
static const struct field plan_rows[] = {
    ROW("status", status, FIELD_NAME, .names = &plan_status_names),
    ROW("threads", threads, FIELD_INT, FIELD_RANGE(1, 1 << 16)),
    ROW("global_batch", global_batch, FIELD_INT64, FIELD_RANGE(1, INT64_C(1) << 40)),
    ROW("micro_batch", micro_batch, FIELD_INT64, FIELD_RANGE(1, 1 << 20)),
    ROW("micro_batches", micro_batches, FIELD_INT64, FIELD_RANGE(1, 1 << 20)),
    ROW("memory_cap_bytes", memory_cap_bytes, FIELD_BYTES, FIELD_RANGE(0, INT64_MAX)),
    ROW("pins", pins, FIELD_TEXT, .capacity = PLAN_PINS_BYTES),
    ROW("host", host, FIELD_TEXT, .capacity = 64),
    ROW("model_hash", model_hash, FIELD_TEXT, .capacity = 17),
    ROW("profile_hash", profile_hash, FIELD_TEXT, .capacity = 17),
    ROW("ranks", ranks, FIELD_INT, FIELD_RANGE(1, 1 << 20)),
    ROW("data_parallel", data_parallel, FIELD_INT, FIELD_RANGE(1, 1 << 20)),
    ROW("pipeline", pipeline, FIELD_INT, FIELD_RANGE(1, 1 << 16)),
    /* since version 2, see NEW_ROWS_PLAN */
    ROW("tensor_parallel", tensor_parallel, FIELD_INT, FIELD_RANGE(1, 1 << 16)),
    ROW("virtual_stages", virtual_stages, FIELD_INT, FIELD_RANGE(1, 1 << 12)),
    ROW("schedule", schedule, FIELD_NAME, .names = &schedule_names),
    /* since version 3 */
    ROW("gradient_reduction", gradient_reduction, FIELD_NAME, .names = &gradient_reduction_names),
};
static const struct field created_row[] = {
    ROW("created_unix_ms", created_unix_ms, FIELD_INT64, FIELD_RANGE(0, INT64_MAX)),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct layer_strategy, key_, member_, __VA_ARGS__)
static const struct field strategy_rows[] = {
    ROW("recompute", recompute, FIELD_NAME, .names = &recompute_names),
    ROW("precision", precision, FIELD_NAME, .names = &precision_names),
    ROW("zero_stage", zero_stage, FIELD_INT, FIELD_RANGE(0, 3)),
    ROW("stage", stage, FIELD_INT, FIELD_RANGE(0, 1 << 28)),
    ROW("tensor_parallel", tensor_parallel, FIELD_INT, FIELD_RANGE(1, 1 << 16)),
    /* since version 2, see NEW_ROWS_STRATEGY */
    ROW("sequence_parallel", sequence_parallel, FIELD_BOOL),
    /* since version 3 */
    ROW("attention", attention, FIELD_NAME, .names = &attention_kernel_names),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct plan_objective, key_, member_, __VA_ARGS__)
static const struct field objective_rows[] = {
    ROW("weight_time", weight_time, FIELD_REAL),
    ROW("weight_memory", weight_memory, FIELD_REAL),
    ROW("weight_energy", weight_energy, FIELD_REAL),
    ROW("raw", raw, FIELD_BOOL),
    ROW("time_unit_s", time_unit_s, FIELD_REAL),
    ROW("memory_unit_bytes", memory_unit_bytes, FIELD_REAL),
    ROW("energy_unit_j", energy_unit_j, FIELD_REAL),
    ROW("value", value, FIELD_REAL),
    ROW("bound", bound, FIELD_REAL),
    ROW("gap", gap, FIELD_REAL),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct prediction, key_, member_, __VA_ARGS__)
#define PREDICTION_ROWS(phases_)                                                                   \
    ROW("time_s", time_s, FIELD_QUANTITY),                                                         \
    ROW("phase_time_s", phase_time_s, FIELD_QUANTITIES, .names = (phases_)),                       \
    ROW("memory_bytes", memory_bytes, FIELD_QUANTITY),                                             \
    ROW("memory_term_bytes", memory_term_bytes, FIELD_QUANTITIES, .names = &memory_term_names),    \
    ROW("energy_j", energy_j, FIELD_QUANTITY),                                                     \
    ROW("phase_energy_j", phase_energy_j, FIELD_QUANTITIES, .names = (phases_)),
static const struct field prediction_rows[] = {PREDICTION_ROWS(&phase_names)};
static const struct field prediction_rows_1[] = {PREDICTION_ROWS(&phase_names_1)};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct layer_prediction, key_, member_, __VA_ARGS__)
#define LAYER_PREDICTION_ROWS(phases_)                                                             \
    ROW("time_s", time_s, FIELD_QUANTITIES, .names = (phases_)),                                   \
    ROW("energy_j", energy_j, FIELD_QUANTITIES, .names = (phases_)),                               \
    ROW("saved_bytes", saved_bytes, FIELD_BYTES, FIELD_RANGE(0, INT64_MAX)),                       \
    ROW("scratch_bytes", scratch_bytes, FIELD_BYTES, FIELD_RANGE(0, INT64_MAX)),                   \
    ROW("static_bytes", static_bytes, FIELD_BYTES, FIELD_RANGE(0, INT64_MAX)),
static const struct field layer_prediction_rows[] = {LAYER_PREDICTION_ROWS(&phase_names)};
static const struct field layer_prediction_rows_1[] = {LAYER_PREDICTION_ROWS(&phase_names_1)};
#undef ROW

#define COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))
#define TABLE(rows) {rows, COUNT(rows)}
/* clang-format on */

/* The last rows of a table that version 1 did not have; of each table one came with version 3. */
enum { NEW_ROWS_PLAN = 4, NEW_ROWS_PLAN_3 = 1, NEW_ROWS_STRATEGY = 2, NEW_ROWS_STRATEGY_3 = 1 };

const struct field_table plan_table = TABLE(plan_rows);
const struct field_table strategy_table = TABLE(strategy_rows);
const struct field_table objective_table = TABLE(objective_rows);
static const struct field_table created_table = TABLE(created_row);

/* What of a file differs between the versions. */
static const struct layout {
    struct field_table plan, strategy, prediction, layer_prediction;
} layouts[] = {
    {
        .plan = {plan_rows, COUNT(plan_rows) - NEW_ROWS_PLAN},
        .strategy = {strategy_rows, COUNT(strategy_rows) - NEW_ROWS_STRATEGY},
        .prediction = TABLE(prediction_rows_1),
        .layer_prediction = TABLE(layer_prediction_rows_1),
    },
    {
        .plan = {plan_rows, COUNT(plan_rows) - NEW_ROWS_PLAN_3},
        .strategy = {strategy_rows, COUNT(strategy_rows) - NEW_ROWS_STRATEGY_3},
        .prediction = TABLE(prediction_rows),
        .layer_prediction = TABLE(layer_prediction_rows),
    },
    {
        .plan = TABLE(plan_rows),
        .strategy = TABLE(strategy_rows),
        .prediction = TABLE(prediction_rows),
        .layer_prediction = TABLE(layer_prediction_rows),
    },
};
_Static_assert(COUNT(layouts) == PLAN_VERSION, "each version has its layout");
static const struct layout *const newest = &layouts[PLAN_VERSION - 1];

/* ---- writing ---- */

static void layers_write(const struct plan *plan, struct jout *out)
{
    jout_begin_array(out, "layers");
    for (size_t i = 0; i < plan->layer_count; i++) {
        jout_begin_object(out, NULL);
        jout_int(out, "layer", (int64_t)i);
        jout_string(out, "kind", layer_kind_name(model_layer(&plan->model, i).kind));
        fields_write(&strategy_table, &plan->layers[i], out);
        jout_end(out);
    }
    jout_end(out);
}

static void prediction_write(const struct prediction *prediction, struct jout *out)
{
    if (prediction->layers == NULL) {
        jout_null(out, "prediction");
        return;
    }
    jout_begin_object(out, "prediction");
    fields_write(&newest->prediction, prediction, out);
    jout_begin_array(out, "layers");
    for (size_t i = 0; i < prediction->layer_count; i++) {
        jout_begin_object(out, NULL);
        jout_int(out, "layer", (int64_t)i);
        fields_write(&newest->layer_prediction, &prediction->layers[i], out);
        jout_end(out);
    }
    jout_end(out);
    jout_end(out);
}

enum status plan_write_json(const struct plan *plan, struct text *out, struct error *err)
{
    struct jout *json = jout_new();

    jout_string(json, "format", format_name);
    jout_int(json, "version", PLAN_VERSION);
    fields_write(&created_table, plan, json);
    fields_write(&plan_table, plan, json);
    model_write(&plan->model, "model", json);
    jout_begin_object(json, "objective");
    fields_write(&objective_table, &plan->objective, json);
    jout_end(json);
    layers_write(plan, json);
    prediction_write(&plan->prediction, json);
    return jout_finish(json, 1, out, err);
}

enum status plan_save(const struct plan *plan, const char *path, struct error *err)
{
    struct text text = {0};
    enum status status = plan_write_json(plan, &text, err);
    if (status == STATUS_OK)
        status = file_write(path, text.data, text.bytes, err);
    text_free(&text);
    return status;
}

/* ---- reading ---- */

static enum status check_index(const struct jin *row, size_t index, struct error *err)
{
    int64_t layer;
    TRY(jin_int(row, "layer", &layer, err));
    if (layer != (int64_t)index)
        return jin_invalid(row, "layer", err, "must be %zu, is %lld", index, (long long)layer);
    return STATUS_OK;
}

static enum status strategy_read(struct layer_strategy *out, enum layer_kind kind, size_t index,
                                 const struct field_table *table, const struct jin *row,
                                 struct error *err)
{
    static const char *const others[] = {"layer", "kind", NULL};
    const char *name;

    if (!jin_is_object(row))
        return jin_invalid(row, NULL, err, "expected an object that describes a layer");
    TRY(keys_check(table, others, row, err));
    TRY(check_index(row, index, err));
    TRY(jin_string(row, "kind", &name, err));
    if (strcmp(name, layer_kind_name(kind)) != 0)
        return jin_invalid(row, "kind", err, "must be '%s' at this place of the model, is '%s'",
                           layer_kind_name(kind), name);
    return fields_read(table, row, out, err);
}

/* The array `key`, which has one row for each layer of the model. */
static enum status layer_rows(const struct plan *plan, const struct jin *at, const char *key,
                              struct jin *rows, struct error *err)
{
    size_t expected = model_layer_count(&plan->model);
    TRY(jin_array(at, key, rows, err));
    if (jin_length(rows) != expected)
        return jin_invalid(at, key, err, "has %zu rows, the model has %zu layers", jin_length(rows),
                           expected);
    return STATUS_OK;
}

static enum status layers_read(struct plan *plan, const struct layout *layout, const struct jin *at,
                               struct error *err)
{
    size_t count = model_layer_count(&plan->model);
    struct jin rows;

    TRY(layer_rows(plan, at, "layers", &rows, err));
    plan->layers = calloc(count, sizeof(*plan->layers));
    if (plan->layers == NULL)
        return error_memory(err, count * sizeof(*plan->layers), "a plan's layers");
    plan->layer_count = count;
    for (size_t i = 0; i < count; i++) {
        struct jin row = jin_element(&rows, i);
        TRY(strategy_read(&plan->layers[i], model_layer(&plan->model, i).kind, i, &layout->strategy,
                          &row, err));
    }
    return STATUS_OK;
}

static void prediction_set_absent(struct prediction *prediction)
{
    *prediction = (struct prediction){
        .time_s = quantity_absent(),
        .memory_bytes = quantity_absent(),
        .energy_j = quantity_absent(),
    };
    for (size_t i = 0; i < PHASE_COUNT; i++) {
        prediction->phase_time_s[i] = quantity_absent();
        prediction->phase_energy_j[i] = quantity_absent();
    }
    for (size_t i = 0; i < MEMORY_TERM_COUNT; i++)
        prediction->memory_term_bytes[i] = quantity_absent();
}

/* Quantities that were read by the phases of version 1 by those of today. What version 1 did not do
 * took no time; no energy is known of it where none is known of the whole. */
static void phases_spread(struct quantity quantities[PHASE_COUNT])
{
    struct quantity old[PHASE_COUNT_1];
    struct quantity none = {.provenance = PROVENANCE_MEASURED};

    memcpy(old, quantities, sizeof(old));
    if (old[0].provenance == PROVENANCE_ABSENT)
        none = quantity_absent();
    for (size_t i = 0; i < PHASE_COUNT; i++)
        quantities[i] = none;
    for (size_t i = 0; i < PHASE_COUNT_1; i++) {
        enum phase phase;
        bool is_known = phase_parse(phase_texts_1[i], &phase);
        assert(is_known);
        if (is_known)
            quantities[phase] = old[i];
    }
}

static void prediction_upgrade(struct prediction *prediction)
{
    phases_spread(prediction->phase_time_s);
    phases_spread(prediction->phase_energy_j);
    for (size_t i = 0; i < prediction->layer_count; i++) {
        phases_spread(prediction->layers[i].time_s);
        phases_spread(prediction->layers[i].energy_j);
    }
}

static enum status prediction_read(struct plan *plan, const struct layout *layout,
                                   const struct jin *root, struct error *err)
{
    static const char *const others[] = {"layers", NULL};
    static const char *const layer_others[] = {"layer", NULL};
    struct prediction *prediction = &plan->prediction;
    struct jin at, rows;

    if (!jin_has(root, "prediction")) {
        prediction_set_absent(prediction);
        return STATUS_OK;
    }
    TRY(jin_object(root, "prediction", &at, err));
    TRY(keys_check(&layout->prediction, others, &at, err));
    TRY(fields_read(&layout->prediction, &at, prediction, err));
    TRY(layer_rows(plan, &at, "layers", &rows, err));
    prediction->layers = calloc(plan->layer_count, sizeof(*prediction->layers));
    if (prediction->layers == NULL)
        return error_memory(err, plan->layer_count * sizeof(*prediction->layers),
                            "a plan's prediction");
    prediction->layer_count = plan->layer_count;
    for (size_t i = 0; i < plan->layer_count; i++) {
        struct jin row = jin_element(&rows, i);
        if (!jin_is_object(&row))
            return jin_invalid(&row, NULL, err, "expected an object that predicts a layer");
        TRY(keys_check(&layout->layer_prediction, layer_others, &row, err));
        TRY(check_index(&row, i, err));
        TRY(fields_read(&layout->layer_prediction, &row, &prediction->layers[i], err));
    }
    if (layout == &layouts[0])
        prediction_upgrade(prediction);
    return STATUS_OK;
}

static enum status plan_read(struct plan *plan, const struct jin *root, struct error *err)
{
    static const char *const others[] = {"format",    "version", "created_unix_ms", "model",
                                         "objective", "layers",  "prediction",      NULL};
    struct jin model, objective;
    int64_t version;

    if (!jin_is_object(root))
        return jin_invalid(root, NULL, err, "a plan must be a JSON object");
    TRY(format_check(root, format_name, PLAN_VERSION, err));
    TRY(jin_int(root, "version", &version, err));
    const struct layout *layout = &layouts[version - 1];
    TRY(keys_check(&layout->plan, others, root, err));
    TRY(fields_read(&created_table, root, plan, err));
    TRY(fields_read(&layout->plan, root, plan, err));
    TRY(jin_object(root, "model", &model, err));
    TRY(model_read(&plan->model, &model, err));
    TRY(jin_object(root, "objective", &objective, err));
    TRY(keys_check(&objective_table, NULL, &objective, err));
    TRY(fields_read(&objective_table, &objective, &plan->objective, err));
    TRY(layers_read(plan, layout, root, err));
    TRY(prediction_read(plan, layout, root, err));
    return plan_validate(plan, root->file, err);
}

/* Takes the document. */
static enum status plan_from_document(struct plan *out, struct json_document *document,
                                      struct error *err)
{
    struct jin root = json_root(document);
    /* what a file of version 1 does not say; zero is also what one of version 2 does not */
    struct plan plan = {.tensor_parallel = 1, .virtual_stages = 1, .schedule = SCHEDULE_1F1B};
    enum status status = plan_read(&plan, &root, err);

    json_document_free(document);
    if (status != STATUS_OK) {
        plan_clear(&plan);
        return status;
    }
    *out = plan;
    return STATUS_OK;
}

enum status plan_load(struct plan *out, const char *path, struct error *err)
{
    struct json_document *document;
    TRY(json_parse_file(&document, path, err));
    return plan_from_document(out, document, err);
}

enum status plan_parse(struct plan *out, const char *json_text, const char *name, struct error *err)
{
    struct json_document *document;
    TRY(json_parse_text(&document, json_text, strlen(json_text), name, err));
    return plan_from_document(out, document, err);
}
