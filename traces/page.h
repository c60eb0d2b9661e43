/* A run as a picture: one self-contained HTML page (inline SVG, no script from elsewhere, no
 * network) and a Chrome/Perfetto trace. The record must have passed compare_run. */
#ifndef TEMPER_TRACES_PAGE_H
#define TEMPER_TRACES_PAGE_H

#include "base/text.h"
#include "store/store.h"
#include "traces/compare.h"

/* Headline figures, predicted against measured tables (total, phase, layer), a timeline of one step
 * by rank, the memory curve (predicted, measured), the loss curves. */
enum status page_write(const struct run_record *record, const struct run_comparison *comparison,
                       struct text *html, struct error *err);
/* Trace Event Format: one process a rank, one thread a stream; times in microseconds. */
enum status chrome_write(const struct run_record *record, struct text *json, struct error *err);

#endif
