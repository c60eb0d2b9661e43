#include "planner/search.h"
#include "planner/bounds.h"
#include "planner/columns.h"
#include "planner/master.h"
#include <stdlib.h>

enum { INCUMBENT_BUCKETS = 24 };

/* Solutions closer than this are the same: sums in another order differ by as much. */
static const double same_share = 1e-12;

struct search {
    const struct problem *problem;
    const struct search_options *options;
    struct bounds bounds;
    size_t *chosen;              /* [stages] */
    struct stage_shares *shares; /* [stages] */
    struct assignment trial;
    struct solution *best;
    double gap; /* pruned away: what could better the best by no more than this share */
};

static double incumbent_value(const struct search *search)
{
    return search->best->found ? search->best->value : search->options->upper_bound;
}

static double threshold(const struct search *search)
{
    double value = incumbent_value(search);
    return value < INFINITY ? value - search->gap * fabs(value) : INFINITY;
}

static enum status offer(struct search *search, struct error *err)
{
    struct solution *best = search->best;
    size_t layers = search->problem->layer_count;
    double value = problem_evaluate(search->problem, &search->trial, NULL);
    if (!(value < incumbent_value(search)))
        return STATUS_OK;
    if (!best->found)
        TRY(assignment_alloc(&best->assignment, layers, err));
    best->found = true;
    best->value = value;
    assignment_copy(&best->assignment, &search->trial, layers);
    return STATUS_OK;
}

/* One round of columns and master. *bound: no solution is below it, but for those that thinning
 * dropped; -INFINITY when columns are missing. */
static enum status run_round(struct search *search, size_t buckets, double *bound,
                             struct error *err)
{
    const struct search_limits *limits = &search->options->limits;
    const struct column_options options = {.threshold = threshold(search),
                                           .buckets = buckets,
                                           .labels_most = search->options->labels_most,
                                           .limits = limits};
    struct columns columns = {0};
    struct master_result result = {.chosen = search->chosen, .shares = search->shares};
    enum status status = columns_generate(&search->bounds, &options, &columns, err);
    if (status == STATUS_OK)
        status = master_solve(search->problem, &columns, search->options->gap_target, limits,
                              &result, err);
    for (size_t p = 0; status == STATUS_OK && result.found && p < search->problem->stages; p++)
        column_assign(&columns, &columns.items[search->chosen[p]], &search->trial);
    if (status == STATUS_OK && result.found)
        status = offer(search, err);
    search->best->labels += columns.label_count;
    search->best->columns += columns.count;
    /* What is not among the columns is not below the threshold they were generated for, which the
     * threshold now is at most; what is among them is not below the relaxation. */
    *bound = result.proven ? threshold(search) : fmin(result.bound, threshold(search));
    if (columns.incomplete)
        *bound = -INFINITY;
    columns_free(&columns);
    return status;
}

/* Something feasible at once, so that an early stop has a plan to show. */
static enum status offer_leanest(struct search *search, bool *feasible, struct error *err)
{
    uint64_t bytes;
    TRY(problem_leanest(search->problem, &bytes, &search->trial, err));
    *feasible = bytes <= search->problem->cap_bytes;
    return *feasible ? offer(search, err) : STATUS_OK;
}

/* Bounds again with the duals of the thinned master, which know where the maxima lie. */
static enum status sharpen_bounds(struct search *search, double *bound, struct error *err)
{
    struct bounds sharper;
    if (search->problem->stages == 1)
        return STATUS_OK;
    TRY(bounds_init(&sharper, search->problem, search->shares, err));
    bounds_free(&search->bounds);
    search->bounds = sharper;
    *bound = fmax(*bound, bounds_total(&sharper));
    search->best->bound = *bound;
    return STATUS_OK;
}

static enum status search_rounds(struct search *search, struct error *err)
{
    bool feasible = true;
    double bound = bounds_total(&search->bounds), round_bound;
    search->best->bound = bound;
    if (bound >= threshold(search))
        return STATUS_OK;
    if (search->options->upper_bound == INFINITY)
        TRY(offer_leanest(search, &feasible, err));
    if (!feasible) {
        search->best->bound = INFINITY;
        return STATUS_OK;
    }
    TRY(run_round(search, INCUMBENT_BUCKETS, &round_bound, err));
    if (bound >= threshold(search) || limits_reached(&search->options->limits))
        return STATUS_OK;
    TRY(sharpen_bounds(search, &bound, err));
    if (bound >= threshold(search))
        return STATUS_OK;
    TRY(run_round(search, 0, &round_bound, err));
    search->best->bound = fmax(bound, round_bound);
    return STATUS_OK;
}

enum status problem_solve(const struct problem *problem, const struct search_options *options,
                          struct solution *out, struct error *err)
{
    *out = (struct solution){.found = false};
    struct search search = {
        .problem = problem,
        .options = options,
        .best = out,
        .gap = fmax(options->gap_target, same_share),
        .chosen = calloc(problem->stages, sizeof(*search.chosen)),
        .shares = calloc(problem->stages, sizeof(*search.shares)),
    };
    enum status status = STATUS_OK;
    if (!search.chosen || !search.shares) {
        status = error_memory(err, problem->stages * sizeof(*search.shares), "the search");
        goto free_chosen;
    }
    status = assignment_alloc(&search.trial, problem->layer_count, err);
    if (status != STATUS_OK)
        goto free_chosen;
    status = bounds_init(&search.bounds, problem, NULL, err);
    if (status != STATUS_OK)
        goto free_trial;
    for (size_t p = 0; p < problem->stages; p++)
        search.shares[p] = search.bounds.shares[p];
    status = search_rounds(&search, err);
    /* What is within rounding of the best is the best. */
    if (status == STATUS_OK && options->gap_target <= 0 && incumbent_value(&search) < INFINITY &&
        out->bound >= threshold(&search))
        out->bound = incumbent_value(&search);
    if (status != STATUS_OK)
        solution_free(out);
    bounds_free(&search.bounds);
free_trial:
    assignment_free(&search.trial);
free_chosen:
    free(search.shares);
    free(search.chosen);
    return status;
}

void solution_free(struct solution *solution)
{
    assignment_free(&solution->assignment);
    *solution = (struct solution){0};
}
