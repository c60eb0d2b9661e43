/* The comparison as text for a terminal: aligned tables, each with the legend of its formulas. */
#ifndef TEMPER_TRACES_TERMINAL_H
#define TEMPER_TRACES_TERMINAL_H

#include "base/text.h"
#include "traces/compare.h"

enum status terminal_report(const struct run_record *record,
                            const struct run_comparison *comparison, struct text *out,
                            struct error *err);

#endif
