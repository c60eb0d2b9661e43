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
enum { APPLICATION_ID = 0x746d7072, SCHEMA_VERSION = 1 };

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

static int64_t file_bytes(const char *path)
{
    struct stat file;
    return stat(path, &file) == 0 ? (int64_t)file.st_size : 0;
}

/* Is the file a store that this program reads (*empty false), or nothing yet (*empty true)?
 * Anything else is an error. Called in a transaction, so that no other process makes the store
 * meanwhile. */
static enum status identify(struct store *store, bool *empty, struct error *err)
{
    int64_t application, version, objects, pages, page_bytes;
    TRY(sql_integer(store, "SELECT count(*) FROM sqlite_schema", 0, &objects, err));
    TRY(sql_integer(store, "PRAGMA application_id", 0, &application, err));
    TRY(sql_integer(store, "PRAGMA user_version", 0, &version, err));
    TRY(sql_integer(store, "PRAGMA page_count", 0, &pages, err));
    TRY(sql_integer(store, "PRAGMA page_size", 0, &page_bytes, err));
    /* Only now that SQLite has rolled back what a killed writer may have left. */
    int64_t bytes = file_bytes(store->path);
    *empty = objects == 0 && bytes == 0;
    if (*empty)
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
                         "version %d",
                         store->path, (long long)version, SCHEMA_VERSION);
    if (version < SCHEMA_VERSION)
        return error_set(err, STATUS_CORRUPT, "%s: the store says version %lld, which never was",
                         store->path, (long long)version);
    /* SQLite notices when whole pages are missing, but not when a part of the last one is. */
    if (page_bytes > 0 && bytes % page_bytes != 0)
        return error_set(err, STATUS_CORRUPT,
                         "%s: the store is truncated: it ends in the middle of a page, after %lld "
                         "bytes",
                         store->path, (long long)bytes);
    return STATUS_OK;
}

static enum status look(struct store *store, bool *empty, struct error *err)
{
    TRY(store_begin_reading(store, err));
    enum status status = identify(store, empty, err);
    store_rollback(store);
    return status;
}

static enum status create(struct store *store, struct error *err)
{
    bool empty;
    TRY(store_begin(store, err));
    /* Another process may have made it since we looked. */
    enum status status = identify(store, &empty, err);
    if (status == STATUS_OK && empty)
        status = create_schema(store, err);
    if (status == STATUS_OK)
        return store_commit(store, err);
    store_rollback(store);
    return status;
}

static enum status prepare(struct store *store, enum store_mode mode, struct error *err)
{
    bool empty;
    sqlite3_busy_timeout(store->handle, BUSY_TIMEOUT_MS);
    TRY(sql_execute(store,
                    "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;"
                    "PRAGMA cell_size_check = ON; PRAGMA synchronous = FULL;",
                    "opening", err));
    TRY(look(store, &empty, err));
    if (mode == STORE_CREATE) {
        if (sqlite3_db_readonly(store->handle, "main") == 1)
            return error_set(err, STATUS_IO, "%s: opening: the file cannot be written",
                             store->path);
        return empty ? create(store, err) : STATUS_OK;
    }
    if (empty)
        return error_set(err, STATUS_INVALID,
                         "%s: an empty file, not a store; `temper profile --store %s` makes one",
                         store->path, store->path);
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
