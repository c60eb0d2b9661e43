/* Predicted against measured runs as a picture: one self-contained HTML page (inline SVG, no
 * script, no network). */
#ifndef TEMPER_TRACES_PAGE_CASES_H
#define TEMPER_TRACES_PAGE_CASES_H

#include "base/text.h"
#include "ir/case_result.h"

/* Errors by file, step time and memory predicted against measured on logarithmic axes, the runs
 * that are farthest off, what was skipped and why. The tables have their results and summaries. */
enum status page_cases_write(const struct case_table *tables, size_t table_count, struct text *html,
                             struct error *err);

#endif
