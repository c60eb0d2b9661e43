/* Words for the figures of a comparison, shared by the terminal's report, the page and the JSON. */
#ifndef TEMPER_TRACES_FIGURES_H
#define TEMPER_TRACES_FIGURES_H

#include "base/text.h"
#include "traces/compare.h"

enum figure_kind { FIGURE_SECONDS, FIGURE_BYTES, FIGURE_JOULES, FIGURE_TOKENS_PER_S };

enum { FIGURE_TEXT_BYTES = 64, FIGURE_LINE_BYTES = 160 };

/* "12.3 ms"; "absent" for what is not known. All functions with a buffer return it. */
const char *figure_value(enum figure_kind kind, struct quantity quantity,
                         char buffer[FIGURE_TEXT_BYTES]);
/* "+2.1 %"; "-" without an error. */
const char *figure_error(const struct comparison *comparison, char buffer[FIGURE_TEXT_BYTES]);
/* "1.03": the largest over the smallest; "-" where no rank or only one was recorded. */
const char *figure_ratio(const struct rank_spread *spread, size_t rank_count,
                         char buffer[FIGURE_TEXT_BYTES]);
/* Whose times the phases are: "stage 1 (predicted: stage 0)"; without the bracket where both are
 * one or nothing was predicted; "absent" where nothing was recorded. */
const char *figure_stage(const struct run_comparison *comparison, char buffer[FIGURE_TEXT_BYTES]);
/* "12.3 %"; "-" for what is no number. */
const char *figure_share(double share, char buffer[FIGURE_TEXT_BYTES]);
/* Is there nothing to say of this phase: planned to take no time, and it took none? */
bool figure_is_idle(const struct comparison *comparison);
/* "8 ranks = data 2 x tensor 2 x pipeline 2"; what is 1 is left out, so that one rank is
 * "1 rank" alone. `times` is the sign between degrees. */
const char *figure_split(const struct plan *plan, const char *times,
                         char buffer[FIGURE_LINE_BYTES]);
/* "1F1B over 2 stages", "interleaved over 2 stages x 3 chunks"; "none" with one stage. */
const char *figure_schedule(const struct plan *plan, char buffer[FIGURE_TEXT_BYTES]);
/* Where and how a layer is split: "stage 1, t 2 + sp, ZeRO 3"; "-" when it is not at all. */
const char *figure_strategy(const struct plan *plan, const struct layer_strategy *strategy,
                            char buffer[FIGURE_TEXT_BYTES]);
/* Does any layer of the plan have a stage of several, or a t or a ZeRO stage? */
bool figure_has_strategies(const struct plan *plan);
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
