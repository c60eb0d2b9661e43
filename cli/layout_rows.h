/* Layouts as rows of a table, of a CSV file and of a JSON array. */
#ifndef TEMPER_CLI_LAYOUT_ROWS_H
#define TEMPER_CLI_LAYOUT_ROWS_H

#include "base/json.h"
#include "base/text.h"
#include "planner/layout_choice.h"
#include "planner/layouts.h"

/* Which columns a table of some layouts has: what none of them makes use of is left out. */
struct layout_table {
    const struct model *model;
    unsigned columns; /* bits */
    bool has_price, has_carbon;
    const char *currency;
};

/* `axes`: of the front that it is; 0: of none. All is borrowed. */
struct layout_table layout_table_of(const struct cluster *cluster, const struct model *model,
                                    const struct priced_layout *rows, size_t count, unsigned axes);
void layout_table_head(const struct layout_table *table, struct text *out);
/* `more`: share of the objective above the best row's. What `temper run` cannot execute stands at
 * the end, as "plan-only: context_parallel". */
void layout_table_row(const struct layout_table *table, const struct priced_layout *row,
                      double more, struct text *out);

/* An object of the open array; `objective` NAN: null. */
void layout_row_json(const struct model *model, const struct priced_layout *row, double objective,
                     struct jout *out);
/* The same into an object that is open. */
void layout_row_json_members(const struct model *model, const struct priced_layout *row,
                             double objective, struct jout *out);

/* Without the end of the line. */
void layout_csv_head(struct text *out);
void layout_csv_row(const struct model *model, const struct priced_layout *row, struct text *out);

/* "data 4 x tensor 8 x pipeline 2, micro-batch 1, ZeRO 1, recompute full" */
void layout_words(const struct layout *layout, struct text *out);

#endif
