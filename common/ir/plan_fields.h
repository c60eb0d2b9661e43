/* The tables of a plan's members: shared by plan.c and plan_json.c, not part of the public
 * interface. */
#ifndef TEMPER_IR_PLAN_FIELDS_H
#define TEMPER_IR_PLAN_FIELDS_H

#include "ir/fields.h"

/* Of struct plan: all its scalars but the time of creation. */
extern const struct field_table plan_table;
extern const struct field_table strategy_table;  /* struct layer_strategy */
extern const struct field_table objective_table; /* struct plan_objective */

#endif
