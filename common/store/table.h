/* Tables as lists of columns that say where in a struct each value lives: the statements that make,
 * fill and read a table are all written from the one list. Inside of common/store only. */
#ifndef TEMPER_STORE_TABLE_H
#define TEMPER_STORE_TABLE_H

#include "ir/names.h"
#include "store/sql.h"

enum column_type {
    COLUMN_INT,      /* int32_t or int64_t */
    COLUMN_SIZE,     /* uint64_t, at most INT64_MAX */
    COLUMN_BOOL,     /* bool: 0 or 1 */
    COLUMN_REAL,     /* double; NaN is NULL */
    COLUMN_TEXT,     /* char array, NUL-terminated */
    COLUMN_NAME,     /* enum or uint8_t, stored by its name in `names` */
    COLUMN_QUANTITY, /* double; NULL when the provenance beside it is absent */
    COLUMN_DOCUMENT, /* const char *, of any length: written, not read back */
    COLUMN_SHOWN,    /* like COLUMN_NAME, for whoever reads the table: written, not read back */
};

struct column {
    const char *name;
    enum column_type type;
    size_t offset, bytes; /* of the member in the row's struct */
    const struct name_list *names;
    size_t provenance_offset;
    const char *references; /* table whose id it holds, or NULL */
};

#define COLUMN(struct_, member_, name_, type_)                                                     \
    {                                                                                              \
        .name = (name_), .type = (type_), .offset = offsetof(struct_, member_),                    \
        .bytes = sizeof(((struct_ *)NULL)->member_)                                                \
    }
#define COLUMN_NAMED(struct_, member_, name_, type_, names_)                                       \
    {                                                                                              \
        .name = (name_), .type = (type_), .offset = offsetof(struct_, member_),                    \
        .bytes = sizeof(((struct_ *)NULL)->member_), .names = (names_)                             \
    }
#define COLUMN_TRUSTED(struct_, member_, name_, provenance_)                                       \
    {                                                                                              \
        .name = (name_), .type = COLUMN_QUANTITY, .offset = offsetof(struct_, member_),            \
        .bytes = sizeof(((struct_ *)NULL)->member_),                                               \
        .provenance_offset = offsetof(struct_, provenance_)                                        \
    }
#define COLUMN_REFERENCE(struct_, member_, name_, table_)                                          \
    {                                                                                              \
        .name = (name_), .type = COLUMN_INT, .offset = offsetof(struct_, member_),                 \
        .bytes = sizeof(((struct_ *)NULL)->member_), .references = (table_)                        \
    }

/* Every table has a column `id INTEGER PRIMARY KEY` and, with a parent, PARENT_id behind it. */
struct table {
    const char *name;
    const char *parent; /* table of which a row owns these rows, or NULL */
    const struct column *columns;
    size_t column_count;
    size_t row_bytes;  /* of the struct */
    const char *rules; /* table constraints in SQL, or NULL */
    const char *index; /* columns of an index, or NULL */
};

enum status table_create(struct store *store, const struct table *table, struct error *err);

/* All rows or none: in the open transaction, or else in one of its own. */
enum status table_insert(struct store *store, const struct table *table, int64_t parent_id,
                         const void *rows, size_t count, struct error *err);
/* Every column of the row with this id; no such row is STATUS_INVALID. */
enum status table_update(struct store *store, const struct table *table, int64_t id,
                         const void *row, struct error *err);

/* Prepare the reading of all columns; `tail` is the SQL behind FROM TABLE, its values to be bound.
 */
enum status table_select(struct statement *out, struct store *store, const struct table *table,
                         const char *tail, struct error *err);
/* Read what a table_select yields and close it, also on failure. *rows is the caller's to free;
 * NULL when there are none. A value that its struct cannot hold is STATUS_CORRUPT naming row and
 * column. */
enum status table_read(struct statement *statement, const struct table *table, void **rows,
                       size_t *count, struct error *err);
/* The rows of one parent, by `order`. */
enum status table_read_children(struct store *store, const struct table *table, int64_t parent_id,
                                const char *order, void **rows, size_t *count, struct error *err);
/* The row with this id into `row`; no such row is STATUS_INVALID. */
enum status table_read_one(struct store *store, const struct table *table, int64_t id, void *row,
                           struct error *err);

extern const struct table stored_sessions, stored_measurements;
extern const struct table stored_plans;
extern const struct table stored_runs, stored_steps, stored_evaluations, stored_events,
    stored_layer_times;

#endif
