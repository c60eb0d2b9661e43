#include "base/clock.h"
#include "store/table.h"

#include <stdlib.h>
#include <string.h>

static const char *const run_statuses[RUN_STATUS_COUNT] = {
    [RUN_RUNNING] = "running",
    [RUN_DONE] = "done",
    [RUN_INTERRUPTED] = "interrupted",
    [RUN_FAILED] = "failed",
};
static const struct name_list run_status_names = {run_statuses, RUN_STATUS_COUNT};

static const char *const streams[STREAM_COUNT] = {
    [STREAM_COMPUTE] = "compute",
    [STREAM_COMM] = "comm",
};
static const struct name_list stream_names = {streams, STREAM_COUNT};

const char *run_status_name(enum run_status status)
{
    return name_of(&run_status_names, status);
}

static const struct column run_columns[] = {
    COLUMN_REFERENCE(struct run_info, plan_id, "plan_id", "plan"),
    COLUMN(struct run_info, host, "host", COLUMN_TEXT),
    COLUMN(struct run_info, data_path, "data_path", COLUMN_TEXT),
    COLUMN(struct run_info, options, "options", COLUMN_TEXT),
    COLUMN(struct run_info, revision, "revision", COLUMN_TEXT),
    COLUMN(struct run_info, seed, "seed", COLUMN_INT),
    COLUMN(struct run_info, started_unix_ms, "started_unix_ms", COLUMN_INT),
    COLUMN(struct run_info, ended_unix_ms, "ended_unix_ms", COLUMN_INT),
    COLUMN_NAMED(struct run_info, status, "status", COLUMN_NAME, &run_status_names),
    COLUMN(struct run_info, process_bytes_at_start, "process_bytes_at_start", COLUMN_INT),
    COLUMN(struct run_info, layout_bytes, "layout_bytes", COLUMN_INT),
    COLUMN(struct run_info, peak_bytes, "peak_bytes", COLUMN_INT),
    COLUMN(struct run_info, matmul_flops, "matmul_flops", COLUMN_REAL),
    COLUMN(struct run_info, copy_bytes_s, "copy_bytes_s", COLUMN_REAL),
    COLUMN_TRUSTED(struct run_info, energy_j.value, "energy_j", energy_j.provenance),
    COLUMN_TRUSTED(struct run_info, energy_j.deviation, "energy_deviation_j", energy_j.provenance),
    COLUMN_NAMED(struct run_info, energy_j.provenance, "energy_provenance", COLUMN_NAME,
                 &provenance_names),
    COLUMN(struct run_info, skipped_steps, "skipped_steps", COLUMN_INT),
};

#define ENERGY_RULE                                                                                \
    "CONSTRAINT only_an_absent_energy_is_null "                                                    \
    "CHECK ((energy_j IS NULL) = (energy_provenance = 'absent'))"

const struct table stored_runs = {
    .name = "run",
    .columns = run_columns,
    .column_count = sizeof(run_columns) / sizeof(run_columns[0]),
    .row_bytes = sizeof(struct run_info),
    .rules = ENERGY_RULE,
};

static const struct column step_columns[] = {
    COLUMN(struct run_step, step, "step", COLUMN_INT),
    COLUMN(struct run_step, loss, "loss", COLUMN_REAL),
    COLUMN(struct run_step, gradient_norm, "gradient_norm", COLUMN_REAL),
    COLUMN(struct run_step, learning_rate, "learning_rate", COLUMN_REAL),
    COLUMN(struct run_step, seconds, "seconds", COLUMN_REAL),
    COLUMN(struct run_step, tokens, "tokens", COLUMN_INT),
    COLUMN(struct run_step, resident_bytes, "resident_bytes", COLUMN_INT),
    COLUMN(struct run_step, skipped, "skipped", COLUMN_BOOL),
    COLUMN_TRUSTED(struct run_step, energy_j.value, "energy_j", energy_j.provenance),
    COLUMN_TRUSTED(struct run_step, energy_j.deviation, "energy_deviation_j", energy_j.provenance),
    COLUMN_NAMED(struct run_step, energy_j.provenance, "energy_provenance", COLUMN_NAME,
                 &provenance_names),
};

const struct table stored_steps = {
    .name = "step",
    .parent = "run",
    .columns = step_columns,
    .column_count = sizeof(step_columns) / sizeof(step_columns[0]),
    .row_bytes = sizeof(struct run_step),
    .rules = "UNIQUE (run_id, step),\n  " ENERGY_RULE,
};

static const struct column evaluation_columns[] = {
    COLUMN(struct run_evaluation, step, "step", COLUMN_INT),
    COLUMN(struct run_evaluation, loss, "loss", COLUMN_REAL),
};

const struct table stored_evaluations = {
    .name = "evaluation",
    .parent = "run",
    .columns = evaluation_columns,
    .column_count = sizeof(evaluation_columns) / sizeof(evaluation_columns[0]),
    .row_bytes = sizeof(struct run_evaluation),
    .rules = "UNIQUE (run_id, step) ON CONFLICT REPLACE",
};

static const struct column event_columns[] = {
    COLUMN(struct event, start_ns, "start_ns", COLUMN_INT),
    COLUMN(struct event, end_ns, "end_ns", COLUMN_INT),
    COLUMN(struct event, step, "step", COLUMN_INT),
    COLUMN(struct event, rank, "rank", COLUMN_INT),
    COLUMN(struct event, layer, "layer", COLUMN_INT),
    COLUMN(struct event, micro_batch, "micro_batch", COLUMN_INT),
    COLUMN_NAMED(struct event, stream, "stream", COLUMN_NAME, &stream_names),
    COLUMN_NAMED(struct event, phase, "phase", COLUMN_NAME, &phase_names),
    COLUMN(struct event, live_bytes, "live_bytes", COLUMN_SIZE),
    COLUMN(struct event, waited_ns, "waited_ns", COLUMN_INT), /* since version 2: store.c */
};

const struct table stored_events = {
    .name = "event",
    .parent = "run",
    .columns = event_columns,
    .column_count = sizeof(event_columns) / sizeof(event_columns[0]),
    .row_bytes = sizeof(struct event),
    .index = "run_id",
};

static const struct column layer_time_columns[] = {
    COLUMN(struct layer_time, rank, "rank", COLUMN_INT),
    COLUMN(struct layer_time, layer, "layer", COLUMN_INT),
    COLUMN_NAMED(struct layer_time, phase, "phase", COLUMN_NAME, &phase_names),
    COLUMN(struct layer_time, n, "n", COLUMN_SIZE),
    COLUMN(struct layer_time, mean_s, "mean_s", COLUMN_REAL),
    COLUMN(struct layer_time, deviation_s, "deviation_s", COLUMN_REAL),
};

const struct table stored_layer_times = {
    .name = "layer_time",
    .parent = "run",
    .columns = layer_time_columns,
    .column_count = sizeof(layer_time_columns) / sizeof(layer_time_columns[0]),
    .row_bytes = sizeof(struct layer_time),
    .rules = "UNIQUE (run_id, rank, layer, phase) ON CONFLICT REPLACE",
};

/* ---- writing ---- */

enum status store_run_begin(struct store *store, struct run_info *run, struct error *err)
{
    TRY(table_insert(store, &stored_runs, 0, run, 1, err));
    run->id = sql_last_id(store);
    return STATUS_OK;
}

enum status store_run_update(struct store *store, const struct run_info *run, struct error *err)
{
    return table_update(store, &stored_runs, run->id, run, err);
}

enum status store_run_bury(struct store *store, int64_t started_unix_ms, struct error *err)
{
    static const char sql[] = "UPDATE run SET status = ?, ended_unix_ms = ? "
                              "WHERE started_unix_ms = ? AND status <> ?";
    const char *failed = run_statuses[RUN_FAILED], *done = run_statuses[RUN_DONE];
    struct statement statement;
    TRY(statement_open(&statement, store, sql, "noting that a run died", err));
    bind_text(&statement, failed, strlen(failed));
    bind_int(&statement, clock_unix_ms());
    bind_int(&statement, started_unix_ms);
    bind_text(&statement, done, strlen(done));
    enum status status = statement_run(&statement, err);
    statement_close(&statement);
    return status;
}

enum status store_run_steps_add(struct store *store, int64_t run_id, const struct run_step *steps,
                                size_t count, struct error *err)
{
    return table_insert(store, &stored_steps, run_id, steps, count, err);
}

enum status store_run_evaluation_add(struct store *store, int64_t run_id,
                                     const struct run_evaluation *evaluation, struct error *err)
{
    return table_insert(store, &stored_evaluations, run_id, evaluation, 1, err);
}

enum status store_run_events_add(struct store *store, int64_t run_id, const struct event *events,
                                 size_t count, struct error *err)
{
    return table_insert(store, &stored_events, run_id, events, count, err);
}

enum status store_run_layer_times_add(struct store *store, int64_t run_id,
                                      const struct layer_time *times, size_t count,
                                      struct error *err)
{
    return table_insert(store, &stored_layer_times, run_id, times, count, err);
}

/* ---- reading ---- */

void run_record_free(struct run_record *record)
{
    plan_clear(&record->plan);
    free(record->steps);
    free(record->evaluations);
    free(record->events);
    free(record->layer_times);
    *record = (struct run_record){0};
}

static enum status resolve_run(struct store *store, int64_t *id, struct error *err)
{
    int64_t newest;
    TRY(sql_integer(store, "SELECT max(id) FROM run", 0, &newest, err));
    if (newest == 0)
        return error_set(err, STATUS_INVALID,
                         "%s: the store holds no runs; `temper run PLAN --store %s` records one",
                         store->path, store->path);
    if (*id == 0)
        *id = newest;
    if (*id < 0 || *id > newest)
        return error_set(err, STATUS_INVALID, "%s: there is no run %lld: runs are 1 to %lld",
                         store->path, (long long)*id, (long long)newest);
    return STATUS_OK;
}

static enum status load_children(struct store *store, struct run_record *record, struct error *err)
{
    const struct {
        const struct table *table;
        const char *order;
        size_t rows_offset, count_offset;
    } children[] = {
        {&stored_steps, "step", offsetof(struct run_record, steps),
         offsetof(struct run_record, step_count)},
        {&stored_evaluations, "step", offsetof(struct run_record, evaluations),
         offsetof(struct run_record, evaluation_count)},
        {&stored_events, "start_ns, rank, id", offsetof(struct run_record, events),
         offsetof(struct run_record, event_count)},
        {&stored_layer_times, "rank, layer, id", offsetof(struct run_record, layer_times),
         offsetof(struct run_record, layer_time_count)},
    };
    for (size_t i = 0; i < sizeof(children) / sizeof(children[0]); i++) {
        void *rows = NULL;
        size_t count = 0;
        TRY(table_read_children(store, children[i].table, record->info.id, children[i].order, &rows,
                                &count, err));
        memcpy((char *)record + children[i].rows_offset, &rows, sizeof(rows));
        memcpy((char *)record + children[i].count_offset, &count, sizeof(count));
    }
    return STATUS_OK;
}

static enum status load_record(struct store *store, int64_t id, struct run_record *record,
                               struct error *err)
{
    TRY(resolve_run(store, &id, err));
    TRY(table_read_one(store, &stored_runs, id, &record->info, err));
    record->info.id = id;
    TRY(store_plan_load(store, record->info.plan_id, &record->plan, err));
    return load_children(store, record, err);
}

enum status store_run_load(struct store *store, int64_t id, struct run_record *out,
                           struct error *err)
{
    struct run_record record = {0};
    bool own = !store_in_transaction(store);
    if (own)
        TRY(store_begin_reading(store, err));
    enum status status = load_record(store, id, &record, err);
    if (own)
        store_rollback(store);
    if (status != STATUS_OK) {
        run_record_free(&record);
        return status;
    }
    *out = record;
    return STATUS_OK;
}
