/* Searches again with a request changed a little: what the answers beyond the one plan (front, top,
 * explanation) are made of. */
#ifndef TEMPER_PLANNER_VARIATION_H
#define TEMPER_PLANNER_VARIATION_H

#include "planner/planner.h"
#include <stdbool.h>

/* Weights that give every plan the value that `objective` gives it, whatever the best of each
 * quantity alone is in the varied space. */
void variation_fix_units(struct planner_request *request, const struct plan_objective *objective);

/* planner_search whose progress reads "WHAT: plans". `what` is borrowed for the call. */
enum status variation_search(const struct planner_request *request, const char *what,
                             struct planner_result *result, struct error *err);

/* The same for a request that some plan is known to fit before it was varied: that none fits now,
 * or that what it asks for was not measured, is *found = false and no error. result->infeasibility
 * then says how much memory is missing; all zero when it is not memory. */
enum status variation_try(const struct planner_request *request, const char *what,
                          struct planner_result *result, bool *found, struct error *err);

bool variation_is_stopped(const struct planner_request *request);

#endif
