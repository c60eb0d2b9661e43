#include "store/table.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *sql_type(const struct column *column)
{
    switch (column->type) {
    case COLUMN_INT:
    case COLUMN_SIZE:
    case COLUMN_BOOL:
        return "INTEGER NOT NULL";
    case COLUMN_TEXT:
    case COLUMN_NAME:
    case COLUMN_SHOWN:
    case COLUMN_DOCUMENT:
        return "TEXT NOT NULL";
    case COLUMN_REAL:
    case COLUMN_QUANTITY:
        break;
    }
    return "REAL";
}

/* Run the statements that were put together in `sql`, and free it. */
static enum status execute_text(struct store *store, struct text *sql, const char *doing,
                                struct error *err)
{
    enum status status = text_check(sql, err);
    if (status == STATUS_OK)
        status = sql_execute(store, sql->data, doing, err);
    text_free(sql);
    return status;
}

/* Prepare the statement that was put together in `sql`, and free it. */
static enum status open_text(struct statement *out, struct store *store, struct text *sql,
                             const char *doing, struct error *err)
{
    enum status status = text_check(sql, err);
    if (status == STATUS_OK)
        status = statement_open(out, store, sql->data, doing, err);
    text_free(sql);
    return status;
}

enum status table_create(struct store *store, const struct table *table, struct error *err)
{
    struct text sql = {0};
    text_printf(&sql, "CREATE TABLE %s (\n  id INTEGER PRIMARY KEY", table->name);
    if (table->parent)
        text_printf(&sql, ",\n  %s_id INTEGER NOT NULL REFERENCES %s (id)", table->parent,
                    table->parent);
    for (size_t i = 0; i < table->column_count; i++) {
        const struct column *column = &table->columns[i];
        text_printf(&sql, ",\n  %s %s", column->name, sql_type(column));
        if (column->references)
            text_printf(&sql, " REFERENCES %s (id)", column->references);
    }
    if (table->rules)
        text_printf(&sql, ",\n  %s", table->rules);
    text_append(&sql, "\n) STRICT;");
    if (table->index)
        text_printf(&sql, "\nCREATE INDEX %s_by_%s_id ON %s (%s);", table->name, table->parent,
                    table->name, table->index);
    return execute_text(store, &sql, "creating the tables", err);
}

/* ---- writing ---- */

static void bind_name(struct statement *statement, const struct column *column, const void *at)
{
    unsigned value = 0;
    if (column->bytes == sizeof(uint8_t))
        value = *(const uint8_t *)at;
    else
        memcpy(&value, at, sizeof(value));
    const char *name = name_of(column->names, value);
    bind_text(statement, name, strlen(name));
}

static double real_at(const void *at)
{
    double value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static void bind_column(struct statement *statement, const struct column *column, const char *row)
{
    const char *at = row + column->offset;
    const char *document;
    int32_t narrow;
    int64_t wide;
    enum provenance provenance;
    switch (column->type) {
    case COLUMN_INT:
    case COLUMN_SIZE:
        if (column->bytes == sizeof(narrow)) {
            memcpy(&narrow, at, sizeof(narrow));
            wide = narrow;
        } else {
            memcpy(&wide, at, sizeof(wide));
        }
        assert(column->type != COLUMN_SIZE || wide >= 0);
        bind_int(statement, wide);
        return;
    case COLUMN_BOOL:
        bind_int(statement, *(const bool *)at);
        return;
    case COLUMN_REAL:
        bind_real(statement, real_at(at));
        return;
    case COLUMN_TEXT:
        bind_text(statement, at, strnlen(at, column->bytes));
        return;
    case COLUMN_NAME:
    case COLUMN_SHOWN:
        bind_name(statement, column, at);
        return;
    case COLUMN_DOCUMENT:
        memcpy(&document, at, sizeof(document));
        bind_text(statement, document, strlen(document));
        return;
    case COLUMN_QUANTITY:
        memcpy(&provenance, row + column->provenance_offset, sizeof(provenance));
        bind_real(statement, provenance == PROVENANCE_ABSENT ? NAN : real_at(at));
        return;
    }
}

static enum status open_insert(struct statement *out, struct store *store,
                               const struct table *table, struct error *err)
{
    struct text sql = {0};
    text_printf(&sql, "INSERT INTO %s (", table->name);
    if (table->parent)
        text_printf(&sql, "%s_id, ", table->parent);
    for (size_t i = 0; i < table->column_count; i++)
        text_printf(&sql, "%s%s", i > 0 ? ", " : "", table->columns[i].name);
    text_append(&sql, table->parent ? ") VALUES (?, " : ") VALUES (");
    for (size_t i = 0; i < table->column_count; i++)
        text_append(&sql, i > 0 ? ", ?" : "?");
    text_append(&sql, ")");
    return open_text(out, store, &sql, table->name, err);
}

static enum status insert_rows(struct store *store, const struct table *table, int64_t parent_id,
                               const void *rows, size_t count, struct error *err)
{
    struct statement insert;
    enum status status = open_insert(&insert, store, table, err);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        const char *row = (const char *)rows + i * table->row_bytes;
        if (table->parent)
            bind_int(&insert, parent_id);
        for (size_t j = 0; j < table->column_count; j++)
            bind_column(&insert, &table->columns[j], row);
        status = statement_run(&insert, err);
    }
    statement_close(&insert);
    return status;
}

enum status table_insert(struct store *store, const struct table *table, int64_t parent_id,
                         const void *rows, size_t count, struct error *err)
{
    if (store_in_transaction(store))
        return insert_rows(store, table, parent_id, rows, count, err);
    TRY(store_begin(store, err));
    enum status status = insert_rows(store, table, parent_id, rows, count, err);
    if (status == STATUS_OK)
        return store_commit(store, err);
    store_rollback(store);
    return status;
}

static enum status no_such_row(const struct store *store, const struct table *table, int64_t id,
                               struct error *err)
{
    return error_set(err, STATUS_INVALID, "%s: there is no %s %lld", store->path, table->name,
                     (long long)id);
}

enum status table_update(struct store *store, const struct table *table, int64_t id,
                         const void *row, struct error *err)
{
    struct text sql = {0};
    struct statement update = {0};
    text_printf(&sql, "UPDATE %s SET ", table->name);
    for (size_t i = 0; i < table->column_count; i++)
        text_printf(&sql, "%s%s = ?", i > 0 ? ", " : "", table->columns[i].name);
    text_append(&sql, " WHERE id = ?");
    TRY(open_text(&update, store, &sql, table->name, err));
    for (size_t i = 0; i < table->column_count; i++)
        bind_column(&update, &table->columns[i], row);
    bind_int(&update, id);
    enum status status = statement_run(&update, err);
    statement_close(&update);
    if (status == STATUS_OK && sql_changed_rows(store) == 0)
        return no_such_row(store, table, id, err);
    return status;
}

/* ---- reading ---- */

/* Columns of a table_select: the id, then the table's own. */
enum { COLUMN_ID, COLUMNS_BEGIN };

static enum status bad_value(const struct statement *statement, const struct table *table,
                             const struct column *column, const char *expected, struct error *err)
{
    return error_set(err, STATUS_CORRUPT, "%s: %s %lld: column '%s': expected %s",
                     statement->store->path, table->name,
                     (long long)column_int(statement, COLUMN_ID), column->name, expected);
}

static enum status read_integer(const struct statement *statement, const struct table *table,
                                size_t index, void *at, struct error *err)
{
    const struct column *column = &table->columns[index];
    int64_t value = column_int(statement, COLUMNS_BEGIN + (int)index);
    if (column->type == COLUMN_BOOL) {
        if (value != 0 && value != 1)
            return bad_value(statement, table, column, "0 or 1", err);
        *(bool *)at = value == 1;
    } else if (column->type == COLUMN_SIZE && value < 0) {
        return bad_value(statement, table, column, "0 or more", err);
    } else if (column->bytes == sizeof(int32_t)) {
        int32_t narrow = (int32_t)value;
        if (narrow != value)
            return bad_value(statement, table, column, "an integer of 32 bits", err);
        memcpy(at, &narrow, sizeof(narrow));
    } else {
        memcpy(at, &value, sizeof(value));
    }
    return STATUS_OK;
}

static enum status bad_name(const struct statement *statement, const struct table *table,
                            const struct column *column, const char *found, struct error *err)
{
    struct text expected = {0};
    text_append(&expected, "one of ");
    names_append(column->names, &expected);
    text_printf(&expected, "; found '%.64s'", found ? found : "NULL");
    enum status status = text_check(&expected, err);
    if (status == STATUS_OK)
        status = bad_value(statement, table, column, expected.data, err);
    text_free(&expected);
    return status;
}

static enum status read_text(const struct statement *statement, const struct table *table,
                             size_t index, char *at, struct error *err)
{
    const struct column *column = &table->columns[index];
    const char *text = column_text(statement, COLUMNS_BEGIN + (int)index);
    if (column->type == COLUMN_NAME) {
        unsigned value;
        if (!text || !name_parse(column->names, text, &value))
            return bad_name(statement, table, column, text, err);
        if (column->bytes == sizeof(uint8_t))
            *(uint8_t *)at = (uint8_t)value;
        else
            memcpy(at, &value, sizeof(value));
        return STATUS_OK;
    }
    size_t length = text ? strlen(text) : column->bytes;
    if (length >= column->bytes)
        return bad_value(statement, table, column, "a text that fits its place", err);
    memcpy(at, text, length + 1);
    return STATUS_OK;
}

static enum status read_column(const struct statement *statement, const struct table *table,
                               size_t index, char *row, struct error *err)
{
    const struct column *column = &table->columns[index];
    int place = COLUMNS_BEGIN + (int)index;
    char *at = row + column->offset;
    double real = column_is_null(statement, place) ? NAN : column_real(statement, place);
    switch (column->type) {
    case COLUMN_INT:
    case COLUMN_SIZE:
    case COLUMN_BOOL:
        return read_integer(statement, table, index, at, err);
    case COLUMN_TEXT:
    case COLUMN_NAME:
        return read_text(statement, table, index, at, err);
    case COLUMN_QUANTITY:
        real = isnan(real) ? 0.0 : real;
        memcpy(at, &real, sizeof(real));
        return STATUS_OK;
    case COLUMN_REAL:
        memcpy(at, &real, sizeof(real));
        return STATUS_OK;
    case COLUMN_DOCUMENT:
    case COLUMN_SHOWN:
        break;
    }
    return STATUS_OK;
}

enum status table_select(struct statement *out, struct store *store, const struct table *table,
                         const char *tail, struct error *err)
{
    struct text sql = {0};
    text_append(&sql, "SELECT id");
    for (size_t i = 0; i < table->column_count; i++)
        text_printf(&sql, ", %s", table->columns[i].name);
    text_printf(&sql, " FROM %s %s", table->name, tail);
    return open_text(out, store, &sql, table->name, err);
}

static enum status grow(void **rows, size_t *capacity, size_t row_bytes, struct error *err)
{
    size_t larger = *capacity > 0 ? *capacity * 2 : 16;
    void *grown = realloc(*rows, larger * row_bytes);
    if (!grown)
        return error_memory(err, larger * row_bytes, "rows of the store");
    *rows = grown;
    *capacity = larger;
    return STATUS_OK;
}

enum status table_read(struct statement *statement, const struct table *table, void **out,
                       size_t *out_count, struct error *err)
{
    void *rows = NULL;
    size_t count = 0, capacity = 0;
    bool row;
    enum status status = statement_step(statement, &row, err);
    while (status == STATUS_OK && row) {
        if (count == capacity)
            status = grow(&rows, &capacity, table->row_bytes, err);
        if (status != STATUS_OK)
            break;
        char *at = (char *)rows + count++ * table->row_bytes;
        memset(at, 0, table->row_bytes);
        for (size_t i = 0; i < table->column_count && status == STATUS_OK; i++)
            status = read_column(statement, table, i, at, err);
        if (status == STATUS_OK)
            status = statement_step(statement, &row, err);
    }
    statement_close(statement);
    if (status != STATUS_OK) {
        free(rows);
        return status;
    }
    *out = rows;
    *out_count = count;
    return STATUS_OK;
}

enum status table_read_children(struct store *store, const struct table *table, int64_t parent_id,
                                const char *order, void **rows, size_t *count, struct error *err)
{
    struct text tail = {0};
    struct statement select;
    assert(table->parent);
    text_printf(&tail, "WHERE %s_id = ? ORDER BY %s", table->parent, order);
    enum status status = text_check(&tail, err);
    if (status == STATUS_OK)
        status = table_select(&select, store, table, tail.data, err);
    text_free(&tail);
    TRY(status);
    bind_int(&select, parent_id);
    return table_read(&select, table, rows, count, err);
}

enum status table_read_one(struct store *store, const struct table *table, int64_t id, void *row,
                           struct error *err)
{
    struct statement select;
    void *rows;
    size_t count;
    TRY(table_select(&select, store, table, "WHERE id = ?", err));
    bind_int(&select, id);
    TRY(table_read(&select, table, &rows, &count, err));
    if (count == 0)
        return no_such_row(store, table, id, err);
    memcpy(row, rows, table->row_bytes);
    free(rows);
    return STATUS_OK;
}
