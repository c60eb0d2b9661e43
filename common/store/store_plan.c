#include "store/table.h"

#include "base/hash.h"

#include <stdio.h>
#include <string.h>

/* A plan as it stands in the table: its figures for whoever reads the table, and all of it as JSON.
 */
struct plan_row {
    struct plan plan; /* borrowed members */
    const char *identity;
    const char *json;
};

#define TERM(member_, name_)                                                                       \
    COLUMN_TRUSTED(struct plan_row, plan.prediction.member_.value, name_,                          \
                   plan.prediction.member_.provenance)
#define TERM_DEVIATION(member_, name_)                                                             \
    COLUMN_TRUSTED(struct plan_row, plan.prediction.member_.deviation, name_,                      \
                   plan.prediction.member_.provenance)
#define TERM_PROVENANCE(member_, name_)                                                            \
    COLUMN_NAMED(struct plan_row, plan.prediction.member_.provenance, name_, COLUMN_NAME,          \
                 &provenance_names)

static const struct column plan_columns[] = {
    COLUMN(struct plan_row, identity, "identity", COLUMN_DOCUMENT),
    COLUMN(struct plan_row, plan.model.name, "model", COLUMN_TEXT),
    COLUMN(struct plan_row, plan.ranks, "ranks", COLUMN_INT),
    COLUMN(struct plan_row, plan.data_parallel, "data_parallel", COLUMN_INT),
    COLUMN(struct plan_row, plan.pipeline, "pipeline", COLUMN_INT),
    COLUMN(struct plan_row, plan.threads, "threads", COLUMN_INT),
    COLUMN(struct plan_row, plan.global_batch, "global_batch", COLUMN_INT),
    COLUMN(struct plan_row, plan.micro_batch, "micro_batch", COLUMN_INT),
    COLUMN(struct plan_row, plan.micro_batches, "micro_batches", COLUMN_INT),
    COLUMN(struct plan_row, plan.memory_cap_bytes, "memory_cap_bytes", COLUMN_SIZE),
    COLUMN_NAMED(struct plan_row, plan.status, "status", COLUMN_NAME, &plan_status_names),
    COLUMN(struct plan_row, plan.objective.value, "objective", COLUMN_REAL),
    COLUMN(struct plan_row, plan.objective.bound, "bound", COLUMN_REAL),
    COLUMN(struct plan_row, plan.objective.gap, "gap", COLUMN_REAL),
    TERM(time_s, "time_s"),
    TERM_DEVIATION(time_s, "time_deviation_s"),
    TERM_PROVENANCE(time_s, "time_provenance"),
    TERM(memory_bytes, "memory_bytes"),
    TERM_DEVIATION(memory_bytes, "memory_deviation_bytes"),
    TERM_PROVENANCE(memory_bytes, "memory_provenance"),
    TERM(energy_j, "energy_j"),
    TERM_DEVIATION(energy_j, "energy_deviation_j"),
    TERM_PROVENANCE(energy_j, "energy_provenance"),
    COLUMN(struct plan_row, plan.pins, "pins", COLUMN_TEXT),
    COLUMN(struct plan_row, plan.host, "host", COLUMN_TEXT),
    COLUMN(struct plan_row, plan.model_hash, "model_hash", COLUMN_TEXT),
    COLUMN(struct plan_row, plan.profile_hash, "profile_hash", COLUMN_TEXT),
    COLUMN(struct plan_row, plan.created_unix_ms, "created_unix_ms", COLUMN_INT),
    COLUMN(struct plan_row, json, "json", COLUMN_DOCUMENT),
};

const struct table stored_plans = {
    .name = "plan",
    .columns = plan_columns,
    .column_count = sizeof(plan_columns) / sizeof(plan_columns[0]),
    .row_bytes = sizeof(struct plan_row),
    .rules = "UNIQUE (identity)",
};

/* Hash of all of the plan but when it was made, its prediction included: a run is held against the
 * very prediction that it was started with. */
static enum status plan_identity(const struct plan *plan, char identity[HASH_TEXT_BYTES],
                                 struct error *err)
{
    struct text json = {0};
    struct plan timeless = *plan;
    timeless.created_unix_ms = 0;
    enum status status = plan_write_json(&timeless, &json, err);
    if (status == STATUS_OK)
        hash_format(hash_bytes(json.data, json.bytes), identity);
    text_free(&json);
    return status;
}

/* 0 when the plan is not in the store. */
static enum status find_plan(struct store *store, const char *identity, int64_t *id,
                             struct error *err)
{
    struct statement select;
    bool row;
    TRY(statement_open(&select, store, "SELECT id FROM plan WHERE identity = ?", "plan", err));
    bind_text(&select, identity, strlen(identity));
    enum status status = statement_step(&select, &row, err);
    if (status == STATUS_OK)
        *id = row ? column_int(&select, 0) : 0;
    statement_close(&select);
    return status;
}

static enum status find_or_insert(struct store *store, const struct plan_row *row, int64_t *out,
                                  struct error *err)
{
    int64_t id;
    TRY(find_plan(store, row->identity, &id, err));
    if (id == 0) {
        TRY(table_insert(store, &stored_plans, 0, row, 1, err));
        id = sql_last_id(store);
    }
    *out = id;
    return STATUS_OK;
}

enum status store_plan_add(struct store *store, const struct plan *plan, int64_t *id,
                           struct error *err)
{
    char identity[HASH_TEXT_BYTES];
    struct text json = {0};
    TRY(plan_identity(plan, identity, err));
    enum status status = plan_write_json(plan, &json, err);
    if (status != STATUS_OK)
        goto free_json;
    const struct plan_row row = {.plan = *plan, .identity = identity, .json = json.data};
    bool own = !store_in_transaction(store);
    if (own)
        status = store_begin(store, err);
    if (status != STATUS_OK)
        goto free_json;
    int64_t found = 0;
    status = find_or_insert(store, &row, &found, err);
    if (own && status == STATUS_OK)
        status = store_commit(store, err);
    else if (own)
        store_rollback(store);
    if (status == STATUS_OK)
        *id = found;

free_json:
    text_free(&json);
    return status;
}

enum status store_plan_load(struct store *store, int64_t id, struct plan *out, struct error *err)
{
    struct statement select;
    bool row;
    struct text name = {0};
    TRY(statement_open(&select, store, "SELECT json FROM plan WHERE id = ?", "plan", err));
    bind_int(&select, id);
    enum status status = statement_step(&select, &row, err);
    if (status != STATUS_OK)
        goto close_select;
    const char *json = row ? column_text(&select, 0) : NULL;
    if (!json) {
        status =
            error_set(err, STATUS_INVALID, "%s: there is no plan %lld", store->path, (long long)id);
        goto close_select;
    }
    text_printf(&name, "%s: plan %lld", store->path, (long long)id);
    status = text_check(&name, err);
    if (status == STATUS_OK)
        status = plan_parse(out, json, name.data, err);
    text_free(&name);

close_select:
    statement_close(&select);
    return status;
}
