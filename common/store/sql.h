/* SQLite as the store's files use it: one connection, statements with values in order, one wording
 * of its errors. Inside of common/store only. */
#ifndef TEMPER_STORE_SQL_H
#define TEMPER_STORE_SQL_H

#include "store/store.h"

struct sqlite3;
struct sqlite3_stmt;

struct store {
    struct sqlite3 *handle;
    char *path; /* owned; as the user gave it, for messages */
};

bool store_in_transaction(const struct store *store);
/* A transaction of reads only: a load of several tables sees one state of them. */
enum status store_begin_reading(struct store *store, struct error *err);

/* What SQLite last refused, as "STORE: DOING: MEANING (SQLite's text)". */
enum status sql_failed(struct store *store, const char *doing, struct error *err);
/* Statements without values or results. */
enum status sql_execute(struct store *store, const char *sql, const char *doing, struct error *err);
/* The single integer that `sql` yields; `absent` when it yields no row or NULL. */
enum status sql_integer(struct store *store, const char *sql, int64_t absent, int64_t *out,
                        struct error *err);
int64_t sql_last_id(struct store *store);
int64_t sql_changed_rows(struct store *store);

/* A prepared statement. Values are bound in the order of its parameters; a failure to bind is kept
 * and reported by the next step. */
struct statement {
    struct store *store;
    struct sqlite3_stmt *handle;
    const char *doing; /* for messages, borrowed */
    int bound;         /* parameters that have their value */
    int failure;       /* of a bind, in SQLite's code */
};

enum status statement_open(struct statement *out, struct store *store, const char *sql,
                           const char *doing, struct error *err);
void statement_close(struct statement *statement); /* a zeroed one is allowed */

void bind_int(struct statement *statement, int64_t value);
void bind_real(struct statement *statement, double value);                    /* NaN becomes NULL */
void bind_text(struct statement *statement, const char *value, size_t bytes); /* borrowed */
void bind_null(struct statement *statement);

/* Run to the next row (*row true: the columns may be read) or to the end. */
enum status statement_step(struct statement *statement, bool *row, struct error *err);
/* Run to the end and make ready for the next values. */
enum status statement_run(struct statement *statement, struct error *err);

/* Columns of the current row, from 0. Text is valid until the next step; NULL for NULL. */
bool column_is_null(const struct statement *statement, int index);
int64_t column_int(const struct statement *statement, int index);
double column_real(const struct statement *statement, int index);
const char *column_text(const struct statement *statement, int index);

#endif
