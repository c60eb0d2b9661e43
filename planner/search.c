#include "planner/search.h"
#include "planner/bounds.h"
#include "planner/columns.h"
#include "planner/master.h"
#include "planner/tiling.h"
#include <stdlib.h>
#include <string.h>

/* Labels that a round may keep before a smaller one is tried: first, and in all. */
enum { ROUND_LABELS = 200000, THINNED_LABELS = 3000000, ROUND_LABELS_MAX = 20000000 };

/* The labels that thinned rounds keep a sequence: the first finds something, the others improve it.
 */
static const size_t round_buckets[] = {6, 24, 96};

/* The first round looks for something within this share of the bound, then within twice it ... */
static const double first_share = 0.1;
/* Thinned rounds end when the gap is this small: what is left is the proof's to find. */
static const double small_gap = 1e-3;
/* More labels are tried before less than the first share of the gap is; the proof ends when not
 * even the second can be closed with the most labels. */
static const double small_share = 0.1, least_share = 0.02;
/* Solutions closer than this are the same: sums in another order differ by as much. */
static const double same_share = 1e-12;

struct search {
    const struct problem *problem;
    const struct search_options *options;
    struct bounds bounds;
    size_t *chosen; /* [stages] */
    struct relaxation relaxation;
    struct assignment trial;
    struct solution *best;
    double gap; /* pruned away: what could better the best by no more than this share */
};

/* One round of columns and the choice among them. */
struct round {
    double threshold;   /* only solutions below it are looked for */
    size_t buckets;     /* 0: not thinned */
    size_t labels_most; /* 0: no limit */
    bool is_complete;   /* not thinned or cut short: nothing below the threshold was missed, or what
                           was   found is the best */
    double bound;       /* of what was not missed */
};

static double incumbent_value(const struct search *search)
{
    return search->best->found ? search->best->value : search->options->upper_bound;
}

/* Solutions that are not below this are not wanted. */
static double wanted(const struct search *search)
{
    double value = incumbent_value(search);
    return value < INFINITY ? value - search->gap * fabs(value) : INFINITY;
}

static bool is_closed(const struct search *search)
{
    return search->best->bound >= wanted(search);
}

static bool is_over(const struct search *search)
{
    return is_closed(search) || limits_reached(&search->options->limits);
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

/* ---- rounds ---- */

/* What is known of the choices among a round's columns. */
struct choice {
    bool proven;  /* none below the threshold is better than the best that was offered */
    double bound; /* else none is below the least of this and the best */
};

static enum status offer_columns(struct search *search, const struct columns *columns,
                                 struct error *err)
{
    for (size_t p = 0; p < search->problem->stages; p++)
        column_assign(columns, &columns->items[search->chosen[p]], &search->trial);
    return offer(search, err);
}

/* GLPK takes over where the boxes are too many for the tiling, if the columns are not. */
static enum status choose(struct search *search, const struct columns *columns,
                          const struct round *round, struct choice *out, struct error *err)
{
    enum { GLPK_COLUMNS_MAX = 20000 };
    const struct search_limits *limits = &search->options->limits;
    const struct tiling_options options = {.threshold = round->threshold,
                                           .gap = search->gap,
                                           .spend_price = search->bounds.relaxation.spend_price,
                                           .limits = limits};
    bool is_thinned = round->buckets > 0;
    struct tiling tiling = {.chosen = search->chosen,
                            .relaxation = is_thinned ? &search->relaxation : NULL};
    TRY(tiling_solve(search->problem, columns, &options, &tiling, err));
    *out = (struct choice){.proven = tiling.proven, .bound = tiling.bound};
    if (tiling.found)
        TRY(offer_columns(search, columns, err));
    if (out->proven || is_thinned || columns->count > GLPK_COLUMNS_MAX || limits_reached(limits))
        return STATUS_OK;
    struct master_result result = {.chosen = search->chosen};
    double threshold = fmin(round->threshold, wanted(search));
    TRY(master_solve(search->problem, columns, threshold, search->gap, limits, &result, err));
    *out = (struct choice){.proven = result.proven, .bound = fmax(tiling.bound, result.bound)};
    return result.found ? offer_columns(search, columns, err) : STATUS_OK;
}

static enum status run_round(struct search *search, struct round *round, struct error *err)
{
    const struct column_options options = {.threshold = round->threshold,
                                           .buckets = round->buckets,
                                           .labels_most = round->labels_most,
                                           .limits = &search->options->limits};
    struct columns columns = {0};
    struct choice choice = {.bound = -INFINITY};
    enum status status = columns_generate(&search->bounds, &options, &columns, err);
    if (status == STATUS_OK && (!columns.incomplete || !search->best->found))
        status = choose(search, &columns, round, &choice, err);
    search->best->labels += columns.label_count;
    search->best->columns += columns.count;
    round->is_complete = !columns.incomplete && round->buckets == 0;
    /* What is not among the columns is not below the threshold; what is among them is not below the
     * best of them, or their bound. */
    round->bound = fmin(round->threshold, wanted(search));
    if (!choice.proven)
        round->bound = fmin(round->bound, choice.bound);
    columns_free(&columns);
    return status;
}

/* Something feasible at once, so that an early stop has a plan to show. */
static enum status offer_leanest(struct search *search, bool *feasible, struct error *err)
{
    uint64_t bytes;
    TRY(problem_leanest(search->problem, &bytes, &search->trial, err));
    *feasible = bytes < UINT64_MAX && bytes <= problem_most_cap(search->problem);
    return *feasible ? offer(search, err) : STATUS_OK;
}

static void copy_relaxation(struct relaxation *to, const struct relaxation *from, size_t stages)
{
    memcpy(to->shares, from->shares, stages * sizeof(*to->shares));
    to->spend_price = from->spend_price;
}

/* Bounds again, knowing the best so far: with the prices of the last choice or, where these are
 * worse, with those from before. */
static enum status sharpen_bounds(struct search *search, struct error *err)
{
    const struct problem *problem = search->problem;
    struct bounds sharper;
    if (problem->stages == 1 && !problem_has_budget(problem))
        return STATUS_OK;
    TRY(bounds_init(&sharper, problem, &search->relaxation, wanted(search), err));
    if (bounds_total(&sharper) < bounds_total(&search->bounds)) {
        copy_relaxation(&search->relaxation, &search->bounds.relaxation, problem->stages);
        bounds_free(&sharper);
        TRY(bounds_init(&sharper, problem, &search->relaxation, wanted(search), err));
    }
    bounds_free(&search->bounds);
    search->bounds = sharper;
    search->best->bound = fmax(search->best->bound, fmin(bounds_total(&sharper), wanted(search)));
    return STATUS_OK;
}

static size_t fewer(const struct search *search, size_t labels)
{
    size_t most = search->options->labels_most;
    return most > 0 && most < labels ? most : labels;
}

/* The first round's labels need something to be held against: look near the bound first. */
static enum status find_first(struct search *search, struct error *err)
{
    double least = search->best->bound, share = first_share;
    struct round round = {.buckets = round_buckets[0],
                          .labels_most = fewer(search, THINNED_LABELS)};
    for (;;) {
        double before = incumbent_value(search);
        double near = least + share * fabs(least);
        bool is_widest = !(near < wanted(search)) || near <= least || share > 2;
        round.threshold = is_widest ? wanted(search) : near;
        TRY(run_round(search, &round, err));
        if (is_widest || incumbent_value(search) < before ||
            limits_reached(&search->options->limits))
            return STATUS_OK;
        share *= 2;
    }
}

static double gap_share(const struct search *search)
{
    double value = incumbent_value(search);
    return value < INFINITY ? (value - search->best->bound) / fmax(fabs(value), 1e-300) : INFINITY;
}

static enum status improve(struct search *search, struct error *err)
{
    size_t count = sizeof(round_buckets) / sizeof(*round_buckets);
    for (size_t i = 1; i < count && !is_over(search); i++) {
        struct round round = {.threshold = wanted(search),
                              .buckets = round_buckets[i],
                              .labels_most = fewer(search, THINNED_LABELS)};
        if (i > 1 && gap_share(search) < small_gap)
            return STATUS_OK;
        TRY(run_round(search, &round, err));
        TRY(sharpen_bounds(search, err));
    }
    return STATUS_OK;
}

/* Bounds that look only below a value leave out more, and so may show that nothing is there. */
static enum status bounds_below(struct search *search, double value, struct bounds *out,
                                struct error *err)
{
    TRY(bounds_init(out, search->problem, &search->bounds.relaxation, value, err));
    search->best->bound = fmax(search->best->bound, fmin(value, bounds_total(out)));
    return STATUS_OK;
}

/* Halve the gap where nothing can be below its middle. */
static enum status raise_bound(struct search *search, struct error *err)
{
    enum { HALVINGS = 6 };
    double high = wanted(search);
    for (int i = 0; i < HALVINGS && high < INFINITY && !is_over(search); i++) {
        struct bounds narrow;
        double middle = 0.5 * (search->best->bound + high);
        TRY(bounds_below(search, middle, &narrow, err));
        if (search->best->bound < middle)
            high = middle;
        bounds_free(&narrow);
    }
    return STATUS_OK;
}

/* An unthinned round below a value, and with the bounds for that. */
static enum status run_proof(struct search *search, struct round *round, struct error *err)
{
    struct bounds wide = search->bounds, narrow;
    round->is_complete = true;
    round->bound = round->threshold;
    TRY(bounds_below(search, round->threshold, &narrow, err));
    enum status status = STATUS_OK;
    if (bounds_total(&narrow) < round->threshold) {
        search->bounds = narrow;
        status = run_round(search, round, err);
        search->bounds = wide;
    }
    bounds_free(&narrow);
    return status;
}

/* Unthinned rounds. What is below the best may need too many labels, then only what is below some
 * value between bound and best is looked for: when there is nothing, the bound has risen, else the
 * best has fallen. */
static enum status prove(struct search *search, struct error *err)
{
    const uint64_t begun = search->best->labels;
    size_t labels = ROUND_LABELS, most = fewer(search, ROUND_LABELS_MAX);
    bool is_limited = search->options->labels_most > 0;
    double share = 1;
    while (!is_over(search) && share > least_share) {
        double low = search->best->bound, high = wanted(search);
        struct round round = {.threshold = high, .labels_most = labels < most ? labels : most};
        if (is_limited && search->best->labels - begun > 2 * (uint64_t)most)
            return STATUS_OK;
        if (share < 1 && high < INFINITY)
            round.threshold = low + share * (high - low);
        TRY(run_proof(search, &round, err));
        if (round.is_complete) {
            search->best->bound = fmax(low, round.bound);
            share = labels < most ? fmin(1, 2 * share) : share;
        } else {
            if (high < INFINITY && (share > small_share || labels >= most))
                share *= 0.5;
            if (high == INFINITY && labels >= most)
                return STATUS_OK;
            labels = labels < most ? 2 * labels : labels;
        }
    }
    return STATUS_OK;
}

static enum status search_rounds(struct search *search, struct error *err)
{
    bool feasible = true;
    search->best->bound = bounds_total(&search->bounds);
    if (is_closed(search))
        return STATUS_OK;
    if (search->options->upper_bound == INFINITY)
        TRY(offer_leanest(search, &feasible, err));
    if (!feasible) {
        search->best->bound = INFINITY;
        return STATUS_OK;
    }
    TRY(find_first(search, err));
    if (is_over(search))
        return STATUS_OK;
    TRY(sharpen_bounds(search, err));
    TRY(improve(search, err));
    TRY(raise_bound(search, err));
    return prove(search, err);
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
        .relaxation.shares = calloc(problem->stages, sizeof(*search.relaxation.shares)),
    };
    enum status status = STATUS_OK;
    if (!search.chosen || !search.relaxation.shares) {
        status = error_memory(err, problem->stages * sizeof(struct stage_shares), "the search");
        goto free_chosen;
    }
    status = assignment_alloc(&search.trial, problem->layer_count, err);
    if (status != STATUS_OK)
        goto free_chosen;
    status = bounds_init(&search.bounds, problem, NULL, options->upper_bound, err);
    if (status != STATUS_OK)
        goto free_trial;
    copy_relaxation(&search.relaxation, &search.bounds.relaxation, problem->stages);
    status = search_rounds(&search, err);
    /* What is within rounding of the best is the best. */
    if (status == STATUS_OK && options->gap_target <= 0 && incumbent_value(&search) < INFINITY &&
        is_closed(&search))
        out->bound = incumbent_value(&search);
    if (status != STATUS_OK)
        solution_free(out);
    bounds_free(&search.bounds);
free_trial:
    assignment_free(&search.trial);
free_chosen:
    free(search.relaxation.shares);
    free(search.chosen);
    return status;
}

void solution_free(struct solution *solution)
{
    assignment_free(&solution->assignment);
    *solution = (struct solution){0};
}
