#include "cli/row_sink.h"

#include <stdlib.h>

enum { ROWS_AT_FIRST = 1024 };

static enum status add_row(void *user, const struct measurement *row, struct error *err)
{
    struct row_sink *sink = user;
    if (sink->count == sink->capacity) {
        size_t capacity = sink->capacity > 0 ? 2 * sink->capacity : ROWS_AT_FIRST;
        struct measurement *grown = realloc(sink->rows, capacity * sizeof *grown);
        if (grown == NULL)
            return error_memory(err, capacity * sizeof *grown, "measurements");
        sink->rows = grown;
        sink->capacity = capacity;
    }
    sink->rows[sink->count++] = *row;
    return STATUS_OK;
}

struct measurement_sink row_sink_into(struct row_sink *rows)
{
    return (struct measurement_sink){.user = rows, .add = add_row};
}

void row_sink_free(struct row_sink *rows)
{
    free(rows->rows);
    *rows = (struct row_sink){0};
}
