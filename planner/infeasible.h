/* Why no plan fits, and what would have to give way. */
#ifndef TEMPER_PLANNER_INFEASIBLE_H
#define TEMPER_PLANNER_INFEASIBLE_H

#include "planner/part.h"

/* Does any plan of the space fit into the cap? */
enum status space_has_plan(const struct space *space, bool *out, struct error *err);

/* Fill `out` for a space without plans that fit and return STATUS_INFEASIBLE; STATUS_INVALID
 * when measurements are what is missing. */
enum status explain_infeasible(const struct space *space, struct infeasibility *out,
                               struct error *err);
/* The same where plans fit the memory cap but the search found none within the energy cap. */
enum status explain_energy(const struct planner_request *request, struct infeasibility *out,
                           struct error *err);

#endif
