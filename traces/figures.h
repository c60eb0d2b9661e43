/* Words for the figures of a comparison, shared by the terminal's report, the page and the JSON. */
#ifndef TEMPER_TRACES_FIGURES_H
#define TEMPER_TRACES_FIGURES_H

#include "base/text.h"
#include "traces/compare.h"

enum figure_kind { FIGURE_SECONDS, FIGURE_BYTES, FIGURE_JOULES, FIGURE_TOKENS_PER_S };

enum { FIGURE_TEXT_BYTES = 64 };

/* "12.3 ms"; "absent" for what is not known. All functions with a buffer return it. */
const char *figure_value(enum figure_kind kind, struct quantity quantity,
                         char buffer[FIGURE_TEXT_BYTES]);
/* "+2.1 %"; "-" without an error. */
const char *figure_error(const struct comparison *comparison, char buffer[FIGURE_TEXT_BYTES]);
/* "1.03": the largest over the smallest; "-" where no rank or only one was recorded. */
const char *figure_ratio(const struct rank_spread *spread, size_t rank_count,
                         char buffer[FIGURE_TEXT_BYTES]);
/* "attention 3", "head". */
const char *figure_layer(struct layer layer, char buffer[FIGURE_TEXT_BYTES]);
/* "2026-11-01 12:30 UTC". */
const char *figure_date(int64_t unix_ms, char buffer[FIGURE_TEXT_BYTES]);
/* Append `string` from a store as valid UTF-8 without control characters: what is not becomes
 * U+FFFD, so that it can neither break a page nor drive a terminal. */
void figure_clean(const char *string, struct text *out);
/* The same with &, <, >, " and ' as entities. */
void figure_clean_html(const char *string, struct text *out);

/* The figures of a whole run. */
struct headline {
    const char *label; /* "step time" */
    const char *key;   /* in JSON */
    const char *note;  /* what it is of */
    enum figure_kind kind;
    size_t offset; /* of its struct comparison in a struct run_comparison */
};
enum { HEADLINE_COUNT = 4 };
extern const struct headline headlines[HEADLINE_COUNT];
const struct comparison *headline_of(const struct run_comparison *comparison, size_t index);

#endif
