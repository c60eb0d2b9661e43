/* Tables of comma-separated values (RFC 4180): a header, then records of as many fields. */
#ifndef TEMPER_BASE_CSV_H
#define TEMPER_BASE_CSV_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>

enum { CSV_FIELD_BYTES_MAX = 1 << 16, CSV_FILE_BYTES_MAX = 1 << 28 };

/* All owned; a zeroed struct is an empty table. */
struct csv_table {
    char *text;           /* what the cells point into */
    const char **columns; /* [column_count], the header */
    const char **cells;   /* [row_count * column_count], row by row */
    size_t *lines;        /* [row_count], where each record begins in the file, from 1 */
    size_t column_count, row_count;
};

/* Fields may stand in double quotes, with "" for a quote, and then hold commas and line breaks.
 * Lines end with LF or CRLF; empty ones and a byte order mark are passed over. STATUS_INVALID by
 * `name` and line: an empty file, a column named twice, a record of another length, a quote that
 * does not close or stands inside a bare field, a NUL byte, a field over CSV_FIELD_BYTES_MAX. */
enum status csv_parse(struct csv_table *out, const char *data, size_t bytes, const char *name,
                      struct error *err);
enum status csv_load(struct csv_table *out, const char *path, struct error *err);
void csv_free(struct csv_table *table);

/* False: no such column. */
bool csv_column(const struct csv_table *table, const char *name, size_t *out);
/* row < row_count, column < column_count; never NULL, "" for an empty field. */
const char *csv_cell(const struct csv_table *table, size_t row, size_t column);

#endif
