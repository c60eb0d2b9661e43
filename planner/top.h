/* The best plans that differ in what the ranks do: of each family of planner/shape_pattern.h
 * (ranks, threads, degrees, schedule, micro-batch) its best plan, and of these the best.
 *
 * Found one by one: each search leaves out the families found before, so that its bound is below
 * every plan of all other families. */
#ifndef TEMPER_PLANNER_TOP_H
#define TEMPER_PLANNER_TOP_H

#include "planner/planner.h"

/* Zero-initialise; release with top_clear. */
struct top {
    struct plan *plans; /* [count], best first, objectives in the units of the best's; owned */
    size_t count;
    bool is_all;                         /* no other family has a plan that fits */
    bool is_stopped;                     /* by the user */
    struct search_statistics statistics; /* of all searches together; candidates of the first */
    struct infeasibility infeasibility;  /* where STATUS_INFEASIBLE */
};

/* At most `most` plans. Errors as planner_search; STATUS_INFEASIBLE fills out->infeasibility. */
enum status top_find(const struct planner_request *request, size_t most, struct top *out,
                     struct error *err);
void top_clear(struct top *top);

#endif
