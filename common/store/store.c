#include "store/store.h"

#include "base/file.h"
#include "store/table.h"

#include <assert.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* In the header of the file: "tmpr", and the version of the schema in docs/store.md. */
enum { APPLICATION_ID = 0x746d7072, OLDEST_VERSION = 1, SCHEMA_VERSION = 3 };

enum { BUSY_TIMEOUT_MS = 10000 };

/* In the order of their references. */
static const struct table *const schema[] = {
    &stored_sessions, &stored_measurements, &stored_plans,  &stored_runs,
    &stored_steps,    &stored_evaluations,  &stored_events, &stored_layer_times,
};

static enum status create_schema(struct store *store, struct error *err)
{
    char header[96];
    for (size_t i = 0; i < sizeof(schema) / sizeof(schema[0]); i++)
        TRY(table_create(store, schema[i], err));
    snprintf(header, sizeof(header), "PRAGMA application_id = %d; PRAGMA user_version = %d;",
             APPLICATION_ID, SCHEMA_VERSION);
    return sql_execute(store, header, "creating the tables", err);
}

/* ---- older versions ---- */

/* Version 2 has how long a rank waited in an event. In version 1 an event of communication was the
 * waiting alone, and those of compute had none in them. */
#define VERSION_1_WAITED_NS "CASE stream WHEN 'comm' THEN end_ns - start_ns ELSE 0 END"

/* Version 3 has which kernel attention was measured with, and the copy rate of a run. What each
 * version lacks of the next; the same columns are added for good by a writer and for one connection
 * by a reader. */
static const struct step {
    const char *migrate, *view;
} steps[SCHEMA_VERSION] = {
    [1] = {.migrate = "ALTER TABLE event ADD COLUMN waited_ns INTEGER NOT NULL DEFAULT 0;"
                      "UPDATE event SET waited_ns = " VERSION_1_WAITED_NS ";",
           .view = "CREATE TEMP VIEW event AS SELECT id, run_id, start_ns, end_ns, step, rank, "
                   "layer, micro_batch, stream, phase, live_bytes, " VERSION_1_WAITED_NS
                   " AS waited_ns FROM main.event;"},
    [2] = {.migrate = "ALTER TABLE measurement ADD COLUMN attention TEXT NOT NULL DEFAULT 'plain';"
                      "ALTER TABLE run ADD COLUMN copy_bytes_s REAL;",
           .view = "CREATE TEMP VIEW measurement AS SELECT *, 'plain' AS attention "
                   "FROM main.measurement;"
                   "CREATE TEMP VIEW run AS SELECT *, NULL AS copy_bytes_s FROM main.run;"},
};

static enum status migrate(struct store *store, int64_t version, struct error *err)
{
    char pragma[64];
    for (; version < SCHEMA_VERSION; version++)
        TRY(sql_execute(store, steps[version].migrate, "bringing the store to the present version",
                        err));
    snprintf(pragma, sizeof(pragma), "PRAGMA user_version = %d;", SCHEMA_VERSION);
    return sql_execute(store, pragma, "bringing the store to the present version", err);
}

/* A reader leaves an old store as it is, which it may not even be allowed to write: for this
 * connection only, views stand before the tables and have the columns that the tables lack. A
 * writer may add them meanwhile: of two columns of one name the table's own stands first. */
static enum status read_old(struct store *store, int64_t version, struct error *err)
{
    static const char doing[] = "reading a store of an older version";
    TRY(sql_execute(store, "PRAGMA temp_store = MEMORY;", doing, err));
    for (; version < SCHEMA_VERSION; version++)
        TRY(sql_execute(store, steps[version].view, doing, err));
    return STATUS_OK;
}

/* ---- opening ---- */

static int64_t file_bytes(const char *path)
{
    struct stat file;
    return stat(path, &file) == 0 ? (int64_t)file.st_size : 0;
}

/* Is the file a store that this program reads (its version from OLDEST_VERSION on), or nothing yet
 * (0)? Anything else is an error. Called in a transaction, so that no other process makes the store
 * meanwhile. */
static enum status identify(struct store *store, int64_t *out, struct error *err)
{
    int64_t application, version, objects, pages, page_bytes;
    TRY(sql_integer(store, "SELECT count(*) FROM sqlite_schema", 0, &objects, err));
    TRY(sql_integer(store, "PRAGMA application_id", 0, &application, err));
    TRY(sql_integer(store, "PRAGMA user_version", 0, &version, err));
    TRY(sql_integer(store, "PRAGMA page_count", 0, &pages, err));
    TRY(sql_integer(store, "PRAGMA page_size", 0, &page_bytes, err));
    /* Only now that SQLite has rolled back what a killed writer may have left. */
    int64_t bytes = file_bytes(store->path);
    *out = 0;
    if (objects == 0 && bytes == 0)
        return STATUS_OK;
    /* SQLite takes a file of a few bytes for an empty one, and would write over it. */
    if (pages == 0)
        return error_set(err, STATUS_INVALID,
                         "%s: not a temper store: the file is no database, or one cut short",
                         store->path);
    if (application != APPLICATION_ID)
        return error_set(err, STATUS_INVALID,
                         "%s: an SQLite database of another program (application id %lld, a "
                         "temper store has %d)",
                         store->path, (long long)application, APPLICATION_ID);
    if (version > SCHEMA_VERSION)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: a store of version %lld, written by a newer temper; this one reads "
                         "versions %d to %d",
                         store->path, (long long)version, OLDEST_VERSION, SCHEMA_VERSION);
    if (version < OLDEST_VERSION)
        return error_set(err, STATUS_CORRUPT, "%s: the store says version %lld, which never was",
                         store->path, (long long)version);
    /* SQLite notices when whole pages are missing, but not when a part of the last one is. */
    if (page_bytes > 0 && bytes % page_bytes != 0)
        return error_set(err, STATUS_CORRUPT,
                         "%s: the store is truncated: it ends in the middle of a page, after %lld "
                         "bytes",
                         store->path, (long long)bytes);
    *out = version;
    return STATUS_OK;
}

static enum status look(struct store *store, int64_t *version, struct error *err)
{
    TRY(store_begin_reading(store, err));
    enum status status = identify(store, version, err);
    store_rollback(store);
    return status;
}

/* Made if there is nothing yet, and of the present version afterwards. */
static enum status create_or_migrate(struct store *store, struct error *err)
{
    int64_t version;
    TRY(store_begin(store, err));
    /* Another process may have done it since we looked. */
    enum status status = identify(store, &version, err);
    if (status == STATUS_OK && version == 0)
        status = create_schema(store, err);
    else if (status == STATUS_OK && version < SCHEMA_VERSION)
        status = migrate(store, version, err);
    if (status == STATUS_OK)
        return store_commit(store, err);
    store_rollback(store);
    return status;
}

static enum status prepare(struct store *store, enum store_mode mode, struct error *err)
{
    int64_t version;
    sqlite3_busy_timeout(store->handle, BUSY_TIMEOUT_MS);
    TRY(sql_execute(store,
                    "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;"
                    "PRAGMA cell_size_check = ON; PRAGMA synchronous = FULL;",
                    "opening", err));
    TRY(look(store, &version, err));
    if (mode == STORE_CREATE) {
        if (sqlite3_db_readonly(store->handle, "main") == 1)
            return error_set(err, STATUS_IO, "%s: opening: the file cannot be written",
                             store->path);
        return version < SCHEMA_VERSION ? create_or_migrate(store, err) : STATUS_OK;
    }
    if (version == 0)
        return error_set(err, STATUS_INVALID,
                         "%s: an empty file, not a store; `temper profile --store %s` makes one",
                         store->path, store->path);
    if (version < SCHEMA_VERSION)
        TRY(read_old(store, version, err));
    return sql_execute(store, "PRAGMA query_only = ON", "opening", err);
}

enum status store_open(struct store **out, const char *path, enum store_mode mode,
                       struct error *err)
{
    if (path[0] == '\0')
        return error_set(err, STATUS_INVALID, "the store's path is empty; name a file");
    if (mode == STORE_READ && !file_exists(path))
        return error_set(err, STATUS_INVALID,
                         "%s: no such store; `temper profile --store %s` makes one", path, path);
    struct store *store = calloc(1, sizeof(*store));
    if (!store)
        return error_memory(err, sizeof(*store), "a store");
    store->path = strdup(path);
    if (!store->path) {
        error_memory(err, strlen(path) + 1, "a store's path");
        goto close_store;
    }
    /* Also to read, the file is opened for writing where that is allowed: what a killed writer left
     * half done must be rolled back first. */
    int flags = SQLITE_OPEN_READWRITE | (mode == STORE_CREATE ? SQLITE_OPEN_CREATE : 0);
    if (sqlite3_open_v2(path, &store->handle, flags, NULL) != SQLITE_OK) {
        sql_failed(store, "opening", err);
        goto close_store;
    }
    if (prepare(store, mode, err) != STATUS_OK)
        goto close_store;
    *out = store;
    return STATUS_OK;

close_store:
    store_close(store);
    return err->status;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    sqlite3_close(store->handle);
    free(store->path);
    free(store);
}

const char *store_path(const struct store *store)
{
    return store->path;
}

bool store_in_transaction(const struct store *store)
{
    return !sqlite3_get_autocommit(store->handle);
}

enum status store_begin_reading(struct store *store, struct error *err)
{
    assert(!store_in_transaction(store));
    return sql_execute(store, "BEGIN", "reading", err);
}

enum status store_begin(struct store *store, struct error *err)
{
    assert(!store_in_transaction(store));
    return sql_execute(store, "BEGIN IMMEDIATE", "writing", err);
}

enum status store_commit(struct store *store, struct error *err)
{
    enum status status = sql_execute(store, "COMMIT", "writing", err);
    if (status != STATUS_OK)
        store_rollback(store);
    return status;
}

void store_rollback(struct store *store)
{
    /* SQLite has rolled back by itself after some failures; another ROLLBACK would be an error. */
    if (store_in_transaction(store))
        sqlite3_exec(store->handle, "ROLLBACK", NULL, NULL, NULL);
}
