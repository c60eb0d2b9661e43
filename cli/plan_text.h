/* A plan as a readable table. */
#ifndef TEMPER_CLI_PLAN_TEXT_H
#define TEMPER_CLI_PLAN_TEXT_H

#include "base/text.h"
#include "ir/plan.h"

/* Global choices, strategies by ranges of layers, predicted time, memory and energy by term,
 * objective, bound and gap. */
void plan_text(const struct plan *plan, struct text *out);

#endif
