/* `temper plan --explain`: what each choice of a plan gains, and what memory is worth. */
#ifndef TEMPER_CLI_PLAN_EXPLAIN_H
#define TEMPER_CLI_PLAN_EXPLAIN_H

#include "base/json.h"
#include "planner/explain.h"

/* As tables below the plan's. */
void plan_explain_text(const struct explanation *explanation, struct text *out);
/* As the member "explanation" of the open object. */
void plan_explain_json(const struct explanation *explanation, struct jout *out);

#endif
