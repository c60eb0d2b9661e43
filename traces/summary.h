/* The comparison as JSON, for scripts: the object of `temper report --json`. */
#ifndef TEMPER_TRACES_SUMMARY_H
#define TEMPER_TRACES_SUMMARY_H

#include "base/json.h"
#include "traces/compare.h"

/* Adds the members to the open object of `out`. Every figure is an object
 *   {"predicted", "measured", "error", "predicted_provenance", "measured_provenance",
 *    "predicted_deviation", "measured_deviation"}
 * in the unit of its key; what is absent is null. error = predicted / measured - 1. */
void summary_write(const struct run_record *record, const struct run_comparison *comparison,
                   struct jout *out);

#endif
