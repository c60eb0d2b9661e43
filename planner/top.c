#include "planner/top.h"
#include "planner/variation.h"
#include <stdio.h>
#include <stdlib.h>

struct listing {
    struct planner_request search;
    struct shape_pattern *found; /* [most], owned */
    struct top *top;
    size_t most;
};

void top_clear(struct top *top)
{
    for (size_t i = 0; i < top->count; i++)
        plan_clear(&top->plans[i]);
    free(top->plans);
    *top = (struct top){0};
}

static void add_statistics(struct search_statistics *to, const struct search_statistics *more)
{
    to->bounded_away += more->bounded_away;
    to->solved += more->solved;
    to->columns += more->columns;
    to->labels += more->labels;
    to->seconds += more->seconds;
}

/* The objective in the words of the first plan's, which has the units that the user asked for. */
static void reword_objective(struct plan *plan, const struct plan_objective *words)
{
    struct plan_objective objective = *words;
    objective.value = plan->objective.value;
    objective.bound = plan->objective.bound;
    objective.gap = plan->objective.gap;
    plan->objective = objective;
}

static enum status find_next(struct listing *listing, bool *found, struct error *err)
{
    struct top *top = listing->top;
    struct planner_result result;
    char what[48];
    listing->found[top->count - 1] = shape_pattern_of(&top->plans[top->count - 1]);
    listing->search.excluded = listing->found;
    listing->search.excluded_count = top->count;
    (void)snprintf(what, sizeof(what), "plan %zu of %zu", top->count + 1, listing->most);
    TRY(variation_try(&listing->search, what, &result, found, err));
    if (*found) {
        reword_objective(&result.plan, &top->plans[0].objective);
        top->plans[top->count++] = result.plan;
        add_statistics(&top->statistics, &result.statistics);
    }
    return STATUS_OK;
}

static enum status find_first(struct listing *listing, struct error *err)
{
    struct top *top = listing->top;
    struct planner_result result = {0};
    enum status status = planner_search(&listing->search, &result, err);
    if (status == STATUS_OK) {
        top->plans[top->count++] = result.plan;
        top->statistics = result.statistics;
        variation_fix_units(&listing->search, &result.plan.objective);
    } else if (status == STATUS_INFEASIBLE) {
        top->infeasibility = result.infeasibility;
    }
    return status;
}

/* By value: with a gap left, a later search can find a better plan. */
static int compare_plans(const void *a, const void *b)
{
    const struct plan *x = a, *y = b;
    return (x->objective.value > y->objective.value) - (x->objective.value < y->objective.value);
}

static enum status list(struct listing *listing, struct error *err)
{
    struct top *top = listing->top;
    TRY(find_first(listing, err));
    while (top->count < listing->most && !top->is_all) {
        bool found;
        top->is_stopped = variation_is_stopped(&listing->search);
        if (top->is_stopped)
            break;
        TRY(find_next(listing, &found, err));
        top->is_all = !found;
    }
    qsort(top->plans, top->count, sizeof(*top->plans), compare_plans);
    return STATUS_OK;
}

enum status top_find(const struct planner_request *request, size_t most, struct top *out,
                     struct error *err)
{
    struct top top = {.plans = calloc(most + 1, sizeof(*top.plans))};
    struct listing listing = {.search = *request,
                              .found = calloc(most + 1, sizeof(*listing.found)),
                              .top = &top,
                              .most = most};
    enum status status = STATUS_MEMORY;
    if (!top.plans || !listing.found)
        (void)error_memory(err, (most + 1) * sizeof(*top.plans), "the best plans");
    else
        status = list(&listing, err);
    free(listing.found);
    if (status != STATUS_OK) {
        const struct infeasibility infeasibility = top.infeasibility;
        top_clear(&top);
        if (status == STATUS_INFEASIBLE)
            out->infeasibility = infeasibility;
        return status;
    }
    *out = top;
    return STATUS_OK;
}
