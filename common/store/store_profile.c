#include "store/table.h"

#include <stdlib.h>
#include <string.h>

/* Name and unit of every metric. */
#define METRICS(ROW)                                                                               \
    ROW(METRIC_FORWARD_S, "forward", "s")                                                          \
    ROW(METRIC_BACKWARD_S, "backward", "s")                                                        \
    ROW(METRIC_OPTIMIZER_S, "optimizer", "s")                                                      \
    ROW(METRIC_FORWARD_J, "forward_energy", "J")                                                   \
    ROW(METRIC_BACKWARD_J, "backward_energy", "J")                                                 \
    ROW(METRIC_OPTIMIZER_J, "optimizer_energy", "J")                                               \
    ROW(METRIC_SAVED_BYTES, "saved", "B")                                                          \
    ROW(METRIC_SCRATCH_BYTES, "scratch", "B")                                                      \
    ROW(METRIC_LINK_S, "link", "s")                                                                \
    ROW(METRIC_PROCESS_BYTES, "process", "B")                                                      \
    ROW(METRIC_OVERLAP, "overlap", "1")                                                            \
    ROW(METRIC_STEP_OVERHEAD_S, "step_overhead", "s")                                              \
    ROW(METRIC_MATMUL_FLOPS, "matmul", "FLOP/s")                                                   \
    ROW(METRIC_COPY_BYTES_S, "copy", "B/s")                                                        \
    ROW(METRIC_IDLE_W, "idle_power", "W")                                                          \
    ROW(METRIC_ACTIVE_W, "active_power", "W")                                                      \
    ROW(METRIC_HOST_RANKS, "host_ranks", "1")                                                      \
    ROW(METRIC_FORWARD_TENSOR_S, "forward_tensor", "s")                                            \
    ROW(METRIC_BACKWARD_TENSOR_S, "backward_tensor", "s")

#define NAME_OF(metric_, name_, unit_) [metric_] = (name_),
#define UNIT_OF(metric_, name_, unit_) [metric_] = (unit_),
static const char *const names[METRIC_COUNT] = {METRICS(NAME_OF)};
static const char *const units[METRIC_COUNT] = {METRICS(UNIT_OF)};
static const struct name_list metric_names = {names, METRIC_COUNT};
static const struct name_list metric_units = {units, METRIC_COUNT};

const char *metric_name(enum metric metric)
{
    return name_of(&metric_names, metric);
}

const char *metric_unit(enum metric metric)
{
    return name_of(&metric_units, metric);
}

static const struct column session_columns[] = {
    COLUMN(struct profile_session, host.name, "host", COLUMN_TEXT),
    COLUMN(struct profile_session, host.cpu, "cpu", COLUMN_TEXT),
    COLUMN(struct profile_session, host.cores, "cores", COLUMN_INT),
    COLUMN(struct profile_session, host.memory_bytes, "memory_bytes", COLUMN_SIZE),
    COLUMN(struct profile_session, host.has_avx512_bf16, "avx512_bf16", COLUMN_BOOL),
    COLUMN(struct profile_session, host.has_amx_bf16, "amx_bf16", COLUMN_BOOL),
    COLUMN(struct profile_session, libraries, "libraries", COLUMN_TEXT),
    COLUMN(struct profile_session, revision, "revision", COLUMN_TEXT),
    COLUMN(struct profile_session, model_name, "model", COLUMN_TEXT),
    COLUMN(struct profile_session, options, "options", COLUMN_TEXT),
    COLUMN(struct profile_session, started_unix_ms, "started_unix_ms", COLUMN_INT),
};

const struct table stored_sessions = {
    .name = "session",
    .columns = session_columns,
    .column_count = sizeof(session_columns) / sizeof(session_columns[0]),
    .row_bytes = sizeof(struct profile_session),
};

static const struct column measurement_columns[] = {
    COLUMN(struct measurement, subject, "subject", COLUMN_TEXT),
    COLUMN_NAMED(struct measurement, metric, "metric", COLUMN_NAME, &metric_names),
    COLUMN_NAMED(struct measurement, metric, "unit", COLUMN_SHOWN, &metric_units),
    COLUMN_NAMED(struct measurement, precision, "precision", COLUMN_NAME, &precision_names),
    COLUMN_NAMED(struct measurement, recompute, "recompute", COLUMN_NAME, &recompute_names),
    COLUMN_NAMED(struct measurement, attention, "attention", COLUMN_NAME, &attention_kernel_names),
    COLUMN(struct measurement, micro_batch, "micro_batch", COLUMN_INT),
    COLUMN(struct measurement, ranks, "ranks", COLUMN_INT),
    COLUMN(struct measurement, threads, "threads", COLUMN_INT),
    COLUMN(struct measurement, bytes, "bytes", COLUMN_INT),
    COLUMN(struct measurement, n, "n", COLUMN_SIZE),
    COLUMN_TRUSTED(struct measurement, mean, "mean", provenance),
    COLUMN_TRUSTED(struct measurement, deviation, "deviation", provenance),
    COLUMN_NAMED(struct measurement, provenance, "provenance", COLUMN_NAME, &provenance_names),
    COLUMN(struct measurement, measured_unix_ms, "measured_unix_ms", COLUMN_INT),
};

const struct table stored_measurements = {
    .name = "measurement",
    .parent = "session",
    .columns = measurement_columns,
    .column_count = sizeof(measurement_columns) / sizeof(measurement_columns[0]),
    .row_bytes = sizeof(struct measurement),
    .rules = "CONSTRAINT only_an_absent_mean_is_null "
             "CHECK ((mean IS NULL) = (provenance = 'absent')),\n"
             "  CONSTRAINT mean_is_finite CHECK (mean BETWEEN -1e308 AND 1e308)",
    .index = "session_id",
};

enum status store_profile_begin(struct store *store, struct profile_session *session,
                                struct error *err)
{
    TRY(table_insert(store, &stored_sessions, 0, session, 1, err));
    session->id = sql_last_id(store);
    return STATUS_OK;
}

enum status store_measurement_add(struct store *store, int64_t session_id,
                                  const struct measurement *measurement, struct error *err)
{
    return table_insert(store, &stored_measurements, session_id, measurement, 1, err);
}

void measurement_list_free(struct measurement_list *list)
{
    free(list->rows);
    *list = (struct measurement_list){0};
}

enum { HOST_BYTES = sizeof(((struct host_info *)NULL)->name) };

/* The host of the newest session that has measurements. */
static enum status newest_host(struct store *store, char host[HOST_BYTES], struct error *err)
{
    struct statement select;
    bool row;
    TRY(statement_open(&select, store,
                       "SELECT host FROM session WHERE id = (SELECT max(session_id) FROM "
                       "measurement)",
                       "finding the newest profile", err));
    enum status status = statement_step(&select, &row, err);
    if (status == STATUS_OK) {
        const char *text = row ? column_text(&select, 0) : NULL;
        if (text && strlen(text) < HOST_BYTES)
            memcpy(host, text, strlen(text) + 1);
        else if (text)
            status = error_set(err, STATUS_CORRUPT,
                               "%s: session: column 'host': a host name of "
                               "%zu bytes: at most %d are allowed",
                               store->path, strlen(text), HOST_BYTES - 1);
        else
            status = error_set(err, STATUS_INVALID,
                               "%s: the store holds no measurements; `temper profile --store %s` "
                               "fills it",
                               store->path, store->path);
    }
    statement_close(&select);
    return status;
}

static enum status not_of_this_host(struct store *store, const char *host, struct error *err)
{
    struct statement select;
    bool row;
    TRY(statement_open(&select, store,
                       "SELECT group_concat(DISTINCT host) FROM session WHERE id IN (SELECT "
                       "session_id FROM measurement)",
                       "finding the hosts of the profiles", err));
    enum status status = statement_step(&select, &row, err);
    if (status == STATUS_OK) {
        const char *others = row ? column_text(&select, 0) : NULL;
        status = error_set(err, STATUS_INVALID,
                           "%s: no measurements of host '%s' (the store has those of: %.256s); "
                           "`temper profile --store %s` on that host adds them",
                           store->path, host, others ? others : "none", store->path);
    }
    statement_close(&select);
    return status;
}

/* Of the rows that share a key, the one of the newest session, and of that the last. */
static const char newest_of_each_key[] =
    "WHERE id IN (SELECT id FROM (SELECT m.id AS id, row_number() OVER (PARTITION BY subject, "
    "metric, precision, recompute, attention, micro_batch, ranks, threads, bytes ORDER BY "
    "session_id DESC, "
    "m.id DESC) AS age FROM measurement AS m JOIN session ON session.id = session_id WHERE host = "
    "?) WHERE age = 1) ORDER BY id";

enum status store_measurements_load(struct store *store, const char *host_name,
                                    struct measurement_list *out, char host_out[64],
                                    struct error *err)
{
    char newest[HOST_BYTES];
    struct statement select;
    void *rows;
    size_t count;
    if (!host_name) {
        TRY(newest_host(store, newest, err));
        host_name = newest;
    }
    TRY(table_select(&select, store, &stored_measurements, newest_of_each_key, err));
    bind_text(&select, host_name, strlen(host_name));
    TRY(table_read(&select, &stored_measurements, &rows, &count, err));
    if (count == 0)
        return not_of_this_host(store, host_name, err);
    *out = (struct measurement_list){.rows = rows, .count = count};
    if (host_out)
        memcpy(host_out, host_name, strlen(host_name) + 1);
    return STATUS_OK;
}
