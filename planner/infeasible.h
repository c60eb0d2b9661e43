/* Why no plan fits, and what would have to give way. */
#ifndef TEMPER_PLANNER_INFEASIBLE_H
#define TEMPER_PLANNER_INFEASIBLE_H

#include "planner/space.h"

/* The leanest plan of all candidates. */
enum status leanest_of_all(const struct space *space, struct leanest *out, struct error *err);

/* Fill `out` for a space without candidates that fit and return STATUS_INFEASIBLE; STATUS_INVALID
 * when measurements are what is missing. */
enum status explain_infeasible(const struct space *space, struct infeasibility *out,
                               struct error *err);

#endif
