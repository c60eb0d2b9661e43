#include "base/csv.h"

#include "base/file.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Walks over the text and unquotes in place: what is written never overtakes what is read. */
struct scanner {
    const char *name; /* in messages */
    char *at, *end;   /* *end is NUL */
    size_t line;
};

/* ---- fields ---- */

static enum status fault(const struct scanner *scanner, size_t line, const char *what,
                         struct error *err)
{
    return error_set(err, STATUS_INVALID, "%s: line %zu: %s", scanner->name, line, what);
}

static enum status read_quoted(struct scanner *scanner, const char **out, struct error *err)
{
    size_t first_line = scanner->line;
    char *write = ++scanner->at;
    *out = write;
    for (; scanner->at < scanner->end; scanner->at++) {
        if (*scanner->at == '"' && *++scanner->at != '"') {
            *write = '\0';
            return STATUS_OK;
        }
        scanner->line += *scanner->at == '\n' ? 1 : 0;
        *write++ = *scanner->at;
        if (write - *out > CSV_FIELD_BYTES_MAX)
            return fault(scanner, first_line, "a field of more than 65536 bytes", err);
    }
    return fault(scanner, first_line, "the quote that opens here is never closed", err);
}

static enum status read_bare(struct scanner *scanner, const char **out, struct error *err)
{
    size_t bytes = strcspn(scanner->at, ",\"\r\n");
    *out = scanner->at;
    if (bytes > CSV_FIELD_BYTES_MAX)
        return fault(scanner, scanner->line, "a field of more than 65536 bytes", err);
    scanner->at += bytes;
    return STATUS_OK;
}

/* Steps over what follows a field, which becomes its end: a comma, a line's end or the file's. */
static enum status end_field(struct scanner *scanner, bool *ends_record, struct error *err)
{
    char *at = scanner->at;
    if (at[0] == '\r' && (at[1] == '\n' || at + 1 == scanner->end))
        scanner->at++;
    *ends_record = scanner->at == scanner->end || *scanner->at == '\n';
    if (!*ends_record && *scanner->at != ',')
        return fault(scanner, scanner->line,
                     *at == '\r' ? "a carriage return inside a field"
                                 : "a quote inside a field: quote the whole field and write \"\"",
                     err);
    if (scanner->at < scanner->end) {
        scanner->line += *ends_record ? 1 : 0;
        scanner->at++;
    }
    *at = '\0';
    return STATUS_OK;
}

/* ---- records ---- */

struct cell_list {
    const char **cells;
    size_t count, capacity;
};

static enum status add_cell(struct cell_list *list, const char *cell, struct error *err)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity > 0 ? 2 * list->capacity : 64;
        const char **cells = realloc(list->cells, capacity * sizeof(*cells));
        if (cells == NULL)
            return error_memory(err, capacity * sizeof(*cells), "the cells of a table");
        list->cells = cells;
        list->capacity = capacity;
    }
    list->cells[list->count++] = cell;
    return STATUS_OK;
}

static enum status read_record(struct scanner *scanner, struct cell_list *list, struct error *err)
{
    bool ends_record = false;
    while (!ends_record) {
        const char *cell = NULL;
        if (*scanner->at == '"')
            TRY(read_quoted(scanner, &cell, err));
        else
            TRY(read_bare(scanner, &cell, err));
        TRY(end_field(scanner, &ends_record, err));
        TRY(add_cell(list, cell, err));
    }
    return STATUS_OK;
}

static void skip_empty_lines(struct scanner *scanner)
{
    while (scanner->at < scanner->end) {
        size_t bytes = scanner->at[0] == '\r' ? 1 : 0;
        if (scanner->at[bytes] != '\n')
            return;
        scanner->at += bytes + 1;
        scanner->line++;
    }
}

static enum status check_header(const struct csv_table *table, const char *name, struct error *err)
{
    for (size_t i = 0; i < table->column_count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(table->columns[i], table->columns[k]) == 0)
                return error_set(err, STATUS_INVALID, "%s: column '%s' is there twice", name,
                                 table->columns[i]);
    return STATUS_OK;
}

static enum status read_header(struct scanner *scanner, struct csv_table *table, struct error *err)
{
    struct cell_list header = {0};
    skip_empty_lines(scanner);
    if (scanner->at == scanner->end)
        return error_set(err, STATUS_INVALID,
                         "%s: the file is empty; expected a header with the names of the columns",
                         scanner->name);
    enum status status = read_record(scanner, &header, err);
    table->columns = header.cells;
    table->column_count = header.count;
    return status == STATUS_OK ? check_header(table, scanner->name, err) : status;
}

static enum status read_rows(struct scanner *scanner, struct csv_table *table,
                             struct cell_list *list, struct error *err)
{
    for (skip_empty_lines(scanner); scanner->at < scanner->end; skip_empty_lines(scanner)) {
        size_t line = scanner->line, before = list->count;
        TRY(read_record(scanner, list, err));
        size_t fields = list->count - before;
        if (fields != table->column_count)
            return error_set(err, STATUS_INVALID,
                             "%s: line %zu: %zu fields, but the header has %zu", scanner->name,
                             line, fields, table->column_count);
        size_t *lines = realloc(table->lines, (table->row_count + 1) * sizeof(*lines));
        if (lines == NULL)
            return error_memory(err, (table->row_count + 1) * sizeof(*lines),
                                "the lines of a table");
        table->lines = lines;
        table->lines[table->row_count++] = line;
    }
    return STATUS_OK;
}

static enum status check_bytes(const char *data, size_t bytes, const char *name, struct error *err)
{
    if (bytes > CSV_FILE_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "%s: %zu bytes; a table has at most %d", name, bytes,
                         CSV_FILE_BYTES_MAX);
    const char *nul = bytes > 0 ? memchr(data, '\0', bytes) : NULL;
    if (nul == NULL)
        return STATUS_OK;
    size_t line = 1;
    for (const char *at = data; at < nul; at++)
        line += *at == '\n' ? 1 : 0;
    return error_set(err, STATUS_INVALID, "%s: line %zu: a NUL byte; expected text", name, line);
}

enum status csv_parse(struct csv_table *out, const char *data, size_t bytes, const char *name,
                      struct error *err)
{
    static const char mark[] = "\xef\xbb\xbf"; /* UTF-8's byte order mark */
    struct csv_table table = {0};
    struct cell_list list = {0};
    TRY(check_bytes(data, bytes, name, err));
    table.text = calloc(bytes + 1, 1);
    if (table.text == NULL)
        return error_memory(err, bytes + 1, name);
    if (bytes > 0)
        memcpy(table.text, data, bytes);
    struct scanner scanner = {.name = name, .at = table.text, .end = table.text + bytes, .line = 1};
    if (strncmp(table.text, mark, strlen(mark)) == 0)
        scanner.at += strlen(mark);
    enum status status = read_header(&scanner, &table, err);
    if (status == STATUS_OK)
        status = read_rows(&scanner, &table, &list, err);
    table.cells = list.cells;
    if (status != STATUS_OK) {
        csv_free(&table);
        return status;
    }
    *out = table;
    return STATUS_OK;
}

enum status csv_load(struct csv_table *out, const char *path, struct error *err)
{
    char *data = NULL;
    size_t bytes = 0;
    TRY(file_read(path, &data, &bytes, err));
    enum status status = csv_parse(out, data, bytes, path, err);
    free(data);
    return status;
}

void csv_free(struct csv_table *table)
{
    free(table->text);
    free(table->columns);
    free(table->cells);
    free(table->lines);
    *table = (struct csv_table){0};
}

bool csv_column(const struct csv_table *table, const char *name, size_t *out)
{
    for (size_t i = 0; i < table->column_count; i++) {
        if (strcmp(table->columns[i], name) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

const char *csv_cell(const struct csv_table *table, size_t row, size_t column)
{
    assert(row < table->row_count && column < table->column_count);
    return table->cells[row * table->column_count + column];
}
