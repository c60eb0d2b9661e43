/* Predictions of measured runs. */
#ifndef TEMPER_COSTMODEL_CASE_COST_H
#define TEMPER_COSTMODEL_CASE_COST_H

#include "ir/case_result.h"

/* `row` is not skipped. Memory without MEMORY_PROCESS where the run's figure is the allocator's.
 * STATUS_UNSUPPORTED or STATUS_INVALID: layout_predict refused the layout. */
enum status case_predict(const struct run_case *row, struct case_result *out, struct error *err);
/* All of a table: results [cases->count] are the caller's. A row that layout_predict refuses
 * becomes a skipped one with its message; other failures end the work. */
enum status cases_predict(struct run_cases *cases, struct case_result *results, struct error *err);

#endif
