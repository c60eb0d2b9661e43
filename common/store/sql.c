#include "store/sql.h"

#include <sqlite3.h>
#include <string.h>

static const struct fault {
    int code; /* SQLite's primary result code */
    enum status status;
    const char *meaning;
    bool system; /* errno says more */
} faults[] = {
    {SQLITE_FULL, STATUS_IO, "the disk is full; what was committed before is kept", false},
    {SQLITE_BUSY, STATUS_IO, "another process keeps it locked; try again when that one is done",
     false},
    {SQLITE_LOCKED, STATUS_IO, "it is locked by another statement", false},
    {SQLITE_READONLY, STATUS_IO, "the file or its folder cannot be written", false},
    {SQLITE_PERM, STATUS_IO, "access was denied", false},
    {SQLITE_CANTOPEN, STATUS_IO, "the file, or the journal beside it, cannot be opened", true},
    {SQLITE_IOERR, STATUS_IO, "the system refused a read, write or lock", true},
    {SQLITE_NOMEM, STATUS_MEMORY, "out of memory", false},
    {SQLITE_NOTADB, STATUS_INVALID, "not a temper store: the file is no database", false},
    {SQLITE_CORRUPT, STATUS_CORRUPT, "the store is damaged or truncated", false},
    {SQLITE_CONSTRAINT, STATUS_INVALID, "a row contradicts the schema", false},
    {SQLITE_ERROR, STATUS_CORRUPT, "the store has not the tables of its version", false},
};

static enum status describe(struct store *store, int code, const char *text, const char *doing,
                            struct error *err)
{
    const struct fault *fault = NULL;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]) && !fault; i++) {
        if (faults[i].code == (code & 0xff))
            fault = &faults[i];
    }
    int system = sqlite3_system_errno(store->handle);
    bool say_system = system != 0 && fault && fault->system;
    return error_set(err, fault ? fault->status : STATUS_IO, "%s: %s: %s (%s%s%s)", store->path,
                     doing, fault ? fault->meaning : "SQLite refused", text, say_system ? "; " : "",
                     say_system ? strerror(system) : "");
}

enum status sql_failed(struct store *store, const char *doing, struct error *err)
{
    return describe(store, sqlite3_errcode(store->handle), sqlite3_errmsg(store->handle), doing,
                    err);
}

enum status sql_execute(struct store *store, const char *sql, const char *doing, struct error *err)
{
    if (sqlite3_exec(store->handle, sql, NULL, NULL, NULL) != SQLITE_OK)
        return sql_failed(store, doing, err);
    return STATUS_OK;
}

enum status sql_integer(struct store *store, const char *sql, int64_t absent, int64_t *out,
                        struct error *err)
{
    struct statement statement;
    bool row;
    TRY(statement_open(&statement, store, sql, "reading", err));
    enum status status = statement_step(&statement, &row, err);
    if (status == STATUS_OK)
        *out = row && !column_is_null(&statement, 0) ? column_int(&statement, 0) : absent;
    statement_close(&statement);
    return status;
}

int64_t sql_last_id(struct store *store)
{
    return sqlite3_last_insert_rowid(store->handle);
}

int64_t sql_changed_rows(struct store *store)
{
    return sqlite3_changes64(store->handle);
}

enum status statement_open(struct statement *out, struct store *store, const char *sql,
                           const char *doing, struct error *err)
{
    *out = (struct statement){.store = store, .doing = doing, .failure = SQLITE_OK};
    if (sqlite3_prepare_v2(store->handle, sql, -1, &out->handle, NULL) != SQLITE_OK)
        return sql_failed(store, doing, err);
    return STATUS_OK;
}

void statement_close(struct statement *statement)
{
    sqlite3_finalize(statement->handle);
    statement->handle = NULL;
}

static void keep_failure(struct statement *statement, int code)
{
    if (statement->failure == SQLITE_OK)
        statement->failure = code;
}

void bind_int(struct statement *statement, int64_t value)
{
    keep_failure(statement, sqlite3_bind_int64(statement->handle, ++statement->bound, value));
}

void bind_real(struct statement *statement, double value)
{
    keep_failure(statement, sqlite3_bind_double(statement->handle, ++statement->bound, value));
}

void bind_text(struct statement *statement, const char *value, size_t bytes)
{
    keep_failure(statement, sqlite3_bind_text64(statement->handle, ++statement->bound, value, bytes,
                                                SQLITE_STATIC, SQLITE_UTF8));
}

void bind_null(struct statement *statement)
{
    keep_failure(statement, sqlite3_bind_null(statement->handle, ++statement->bound));
}

enum status statement_step(struct statement *statement, bool *row, struct error *err)
{
    if (statement->failure != SQLITE_OK)
        return describe(statement->store, statement->failure, sqlite3_errstr(statement->failure),
                        statement->doing, err);
    int code = sqlite3_step(statement->handle);
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        return sql_failed(statement->store, statement->doing, err);
    *row = code == SQLITE_ROW;
    return STATUS_OK;
}

enum status statement_run(struct statement *statement, struct error *err)
{
    bool row;
    do {
        TRY(statement_step(statement, &row, err));
    } while (row);
    sqlite3_reset(statement->handle);
    statement->bound = 0;
    return STATUS_OK;
}

bool column_is_null(const struct statement *statement, int index)
{
    return sqlite3_column_type(statement->handle, index) == SQLITE_NULL;
}

int64_t column_int(const struct statement *statement, int index)
{
    return sqlite3_column_int64(statement->handle, index);
}

double column_real(const struct statement *statement, int index)
{
    return sqlite3_column_double(statement->handle, index);
}

const char *column_text(const struct statement *statement, int index)
{
    return (const char *)sqlite3_column_text(statement->handle, index);
}
