#include "planner/bounds.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

double bounds_relaxed(const struct bounds *bounds, size_t stage, double multiplier,
                      const struct partial *partial)
{
    const struct problem *problem = bounds->problem;
    const struct stage_shares *share = &bounds->shares[stage];
    return partial->cost + share->tau * problem->weight_tau * partial->tau +
           share->gamma * problem->weight_gamma * partial->gamma +
           (share->memory * problem->weight_memory + multiplier) * (double)partial->bytes;
}

static double relaxed_strategy(const struct bounds *bounds, size_t stage, double multiplier,
                               const struct strategy *strategy)
{
    const struct stage_terms terms = problem_stage_terms(bounds->problem, stage, strategy);
    const struct partial partial = {
        .cost = terms.cost, .tau = terms.tau, .gamma = terms.gamma, .bytes = terms.bytes};
    return bounds_relaxed(bounds, stage, multiplier, &partial);
}

static uint64_t stage_bytes(const struct problem *problem, size_t stage,
                            const struct strategy *strategy)
{
    return problem_stage_terms(problem, stage, strategy).bytes;
}

/* With one stage the maxima are sums: tau and gamma are costs like any other. */
static double single_stage_cost(const struct problem *problem, const struct strategy *strategy)
{
    const struct stage_terms terms = problem_stage_terms(problem, 0, strategy);
    return terms.cost + problem->weight_tau * terms.tau + problem->weight_gamma * terms.gamma;
}

/* ---- which strategies ---- */

/* Replacing b by a never costs more and never needs more bytes. */
static bool strategy_dominates(const struct problem *problem, size_t stage,
                               const struct strategy *a, const struct strategy *b)
{
    if ((problem->transitions && a->group != b->group) ||
        (problem->needs & b->traits & ~a->traits) != 0)
        return false;
    const struct stage_terms x = problem_stage_terms(problem, stage, a);
    const struct stage_terms y = problem_stage_terms(problem, stage, b);
    if (x.bytes > y.bytes)
        return false;
    if (problem->stages == 1)
        return single_stage_cost(problem, a) <= single_stage_cost(problem, b);
    double change = x.cost - y.cost + fmax(a->send_cost - b->send_cost, 0) +
                    problem->weight_tau * fmax(x.tau - y.tau, 0) +
                    problem->weight_gamma * fmax(x.gamma - y.gamma, 0);
    return change <= 0;
}

static void admit_class(const struct problem *problem, size_t stage, uint64_t limit_bytes,
                        size_t class, struct admitted *out)
{
    const struct layer_class *of = &problem->classes[class];
    out->count = 0;
    for (size_t s = 0; s < of->strategy_count; s++) {
        const struct strategy *candidate = &of->strategies[s];
        if (candidate->scratch_bytes > limit_bytes)
            continue;
        size_t kept = 0;
        bool beaten = false;
        for (size_t i = 0; i < out->count && !beaten; i++)
            beaten =
                strategy_dominates(problem, stage, &of->strategies[out->strategies[i]], candidate);
        if (beaten)
            continue;
        for (size_t i = 0; i < out->count; i++) {
            const struct strategy *other = &of->strategies[out->strategies[i]];
            if (!strategy_dominates(problem, stage, candidate, other))
                out->strategies[kept++] = out->strategies[i];
        }
        out->strategies[kept++] = s;
        out->count = kept;
    }
}

/* A limit that no admitted strategy reaches is covered by a smaller one. */
static bool limit_is_reached(const struct problem *problem, const struct stage_bounds *stage)
{
    for (size_t c = 0; c < problem->class_count; c++) {
        for (size_t i = 0; i < stage->admitted[c].count; i++) {
            size_t s = stage->admitted[c].strategies[i];
            if (problem->classes[c].strategies[s].scratch_bytes == stage->limit_bytes)
                return true;
        }
    }
    return false;
}

/* ---- multipliers ---- */

/* The relaxed optimum of every layer on this stage: its bytes, the leanest where costs tie. */
static double relaxed_bytes(const struct bounds *bounds, size_t stage,
                            const struct stage_bounds *at, const size_t *class_layers,
                            double multiplier)
{
    const struct problem *problem = bounds->problem;
    double total = 0;
    for (size_t c = 0; c < problem->class_count; c++) {
        double best = INFINITY, best_bytes = 0;
        for (size_t i = 0; i < at->admitted[c].count; i++) {
            const struct strategy *s =
                &problem->classes[c].strategies[at->admitted[c].strategies[i]];
            double cost = relaxed_strategy(bounds, stage, multiplier, s);
            double bytes = (double)stage_bytes(problem, stage, s);
            if (cost < best || (cost <= best && bytes < best_bytes)) {
                best = cost;
                best_bytes = bytes;
            }
        }
        total += (double)class_layers[c] * best_bytes;
    }
    return total;
}

/* Cost per byte of this problem's order of magnitude, to start from. */
static double multiplier_scale(const struct bounds *bounds, size_t stage,
                               const struct stage_bounds *at)
{
    const struct problem *problem = bounds->problem;
    double cost = 0, bytes = 0;
    for (size_t c = 0; c < problem->class_count; c++) {
        for (size_t i = 0; i < at->admitted[c].count; i++) {
            const struct strategy *s =
                &problem->classes[c].strategies[at->admitted[c].strategies[i]];
            cost = fmax(cost, relaxed_strategy(bounds, stage, 0, s));
            bytes = fmax(bytes, (double)stage_bytes(problem, stage, s));
        }
    }
    return cost > 0 && bytes > 0 ? cost / bytes : 0;
}

static void fill_class_bytes(const struct problem *problem, size_t stage, struct stage_bounds *at)
{
    for (size_t c = 0; c < problem->class_count; c++) {
        uint64_t least = at->admitted[c].count > 0 ? UINT64_MAX : 0;
        for (size_t i = 0; i < at->admitted[c].count; i++) {
            uint64_t bytes = stage_bytes(
                problem, stage, &problem->classes[c].strategies[at->admitted[c].strategies[i]]);
            least = bytes < least ? bytes : least;
        }
        at->class_bytes[c] = least;
    }
}

static bool leanest_fits(const struct problem *problem, const struct stage_bounds *at,
                         const size_t *class_layers)
{
    uint64_t total = 0;
    for (size_t c = 0; c < problem->class_count; c++)
        total += class_layers[c] * at->class_bytes[c];
    return (total + problem->stages - 1) / problem->stages <= at->slack_bytes;
}

/* The dual of the whole chain is concave in the multiplier and its slope is the relaxed optimum's
 * bytes minus the budget: the best multiplier is where the bytes fall to the budget. */
static double best_multiplier(const struct bounds *bounds, size_t stage,
                              const struct stage_bounds *at, const size_t *class_layers)
{
    const struct problem *problem = bounds->problem;
    enum { DOUBLINGS_MAX = 100, HALVINGS = 60 };
    double budget = (double)at->slack_bytes * (double)problem->stages;
    if (relaxed_bytes(bounds, stage, at, class_layers, 0) <= budget)
        return 0;
    double low = 0, high = 1e-6 * multiplier_scale(bounds, stage, at);
    for (int i = 0; i < DOUBLINGS_MAX; i++) {
        if (relaxed_bytes(bounds, stage, at, class_layers, high) <= budget)
            break;
        low = high;
        high *= 2;
    }
    for (int i = 0; i < HALVINGS; i++) {
        double middle = 0.5 * (low + high);
        if (relaxed_bytes(bounds, stage, at, class_layers, middle) <= budget)
            high = middle;
        else
            low = middle;
    }
    return high;
}

static void choose_multipliers(const struct bounds *bounds, size_t stage,
                               const size_t *class_layers, struct stage_bounds *at)
{
    const struct problem *problem = bounds->problem;
    static const double around[] = {0.25, 0.5, 2.0, 4.0, 8.0, 16.0, 64.0};
    at->multiplier_count = 1;
    at->multipliers[0] = 0;
    if (at->slack_bytes == PROBLEM_NO_CAP)
        return;
    bool fits = leanest_fits(problem, at, class_layers);
    if (!fits && problem->stages == 1) {
        at->multiplier_count = 0;
        return;
    }
    double best = fits ? best_multiplier(bounds, stage, at, class_layers) : 0;
    at->multipliers[0] = best;
    if (best > 0)
        at->multipliers[at->multiplier_count++] = 0;
    else if (problem->stages > 1)
        best = 0.1 * multiplier_scale(bounds, stage, at);
    /* The best of the whole chain is also the best of a single stage, but not of every interval. */
    for (size_t i = 0; problem->stages > 1 && i < sizeof(around) / sizeof(*around); i++)
        at->multipliers[at->multiplier_count++] = best * around[i];
}

/* ---- one stage at one limit ---- */

static size_t strategy_total(const struct problem *problem)
{
    size_t total = 0;
    for (size_t c = 0; c < problem->class_count; c++)
        total += problem->classes[c].strategy_count;
    return total;
}

static enum status alloc_stage(const struct problem *problem, struct stage_bounds *at,
                               struct error *err)
{
    size_t width = problem->layer_count + 1, classes = problem->class_count;
    at->admitted = calloc(classes, sizeof(*at->admitted));
    at->class_costs = calloc(MULTIPLIERS_MAX * classes, sizeof(*at->class_costs));
    at->rest = calloc(MULTIPLIERS_MAX * width, sizeof(*at->rest));
    at->rest_bytes = calloc(width, sizeof(*at->rest_bytes));
    at->class_bytes = calloc(classes, sizeof(*at->class_bytes));
    at->strategies = calloc(strategy_total(problem), sizeof(*at->strategies));
    if (!at->admitted || !at->class_costs || !at->class_bytes || !at->rest || !at->rest_bytes ||
        !at->strategies)
        return error_memory(err, MULTIPLIERS_MAX * width * sizeof(double), "the search's bounds");
    return STATUS_OK;
}

static void free_stage(struct stage_bounds *at)
{
    free(at->strategies);
    free(at->admitted);
    free(at->class_costs);
    free(at->class_bytes);
    free(at->rest);
    free(at->rest_bytes);
}

static void fill_class_costs(const struct bounds *bounds, size_t stage, struct stage_bounds *at)
{
    const struct problem *problem = bounds->problem;
    for (size_t m = 0; m < at->multiplier_count; m++) {
        double v = bounds->shares[stage].memory * problem->weight_memory + at->multipliers[m];
        at->constants[m] = v * (double)(problem->fixed_bytes + at->limit_bytes);
        if (at->multipliers[m] > 0)
            at->constants[m] -= at->multipliers[m] * (double)problem->cap_bytes;
        for (size_t c = 0; c < problem->class_count; c++) {
            double best = INFINITY;
            for (size_t i = 0; i < at->admitted[c].count; i++) {
                size_t s = at->admitted[c].strategies[i];
                best = fmin(best, relaxed_strategy(bounds, stage, at->multipliers[m],
                                                   &problem->classes[c].strategies[s]));
            }
            at->class_costs[m * problem->class_count + c] = best;
        }
    }
}

static void init_stage(const struct bounds *bounds, size_t stage, uint64_t limit_bytes,
                       bool is_least, const size_t *class_layers, struct stage_bounds *at)
{
    const struct problem *problem = bounds->problem;
    at->limit_bytes = limit_bytes;
    at->multiplier_count = 0;
    uint64_t charged_bytes = problem->fixed_bytes + limit_bytes;
    if (charged_bytes > problem->cap_bytes)
        return;
    at->slack_bytes =
        problem->cap_bytes == PROBLEM_NO_CAP ? PROBLEM_NO_CAP : problem->cap_bytes - charged_bytes;
    size_t *strategies = at->strategies;
    for (size_t c = 0; c < problem->class_count; c++) {
        at->admitted[c].strategies = strategies;
        admit_class(problem, stage, limit_bytes, c, &at->admitted[c]);
        strategies += problem->classes[c].strategy_count;
    }
    if (!is_least && !limit_is_reached(problem, at))
        return;
    fill_class_bytes(problem, stage, at);
    choose_multipliers(bounds, stage, class_layers, at);
    fill_class_costs(bounds, stage, at);
}

/* ---- chains ---- */

static size_t row_width(const struct problem *problem)
{
    return problem->layer_count + 1;
}

/* out[end] = min(out[end], before[first] + bound of first..end - 1 on this stage), over limits. */
static void extend_prefix(const struct bounds *bounds, size_t stage, size_t first, double *interval)
{
    const struct problem *problem = bounds->problem;
    size_t width = row_width(problem);
    double before = bounds->prefix[stage * width + first];
    double *row = &bounds->prefix[(stage + 1) * width];
    for (size_t w = 0; w < bounds->limit_count; w++) {
        const struct stage_bounds *at = &bounds->stages[stage * bounds->limit_count + w];
        if (at->multiplier_count == 0)
            continue;
        for (size_t end = first + 1; end < width; end++)
            interval[end] = -INFINITY;
        for (size_t m = 0; m < at->multiplier_count; m++) {
            double sum = at->constants[m];
            for (size_t end = first + 1; end < width; end++) {
                size_t class = problem->layer_class[end - 1];
                sum += at->class_costs[m * problem->class_count + class];
                interval[end] = fmax(interval[end], sum);
            }
        }
        uint64_t bytes = 0;
        for (size_t end = first + 1; end < width; end++) {
            bytes += at->class_bytes[problem->layer_class[end - 1]];
            if (bytes > at->slack_bytes)
                break;
            if (problem_may_end(problem, stage, end))
                row[end] = fmin(row[end], before + interval[end]);
        }
    }
}

static void extend_suffix(const struct bounds *bounds, size_t stage, size_t end, double *interval)
{
    const struct problem *problem = bounds->problem;
    size_t width = row_width(problem);
    double after = bounds->suffix[(stage + 1) * width + end];
    double *row = &bounds->suffix[stage * width];
    for (size_t w = 0; w < bounds->limit_count; w++) {
        const struct stage_bounds *at = &bounds->stages[stage * bounds->limit_count + w];
        if (at->multiplier_count == 0)
            continue;
        for (size_t first = 0; first < end; first++)
            interval[first] = -INFINITY;
        for (size_t m = 0; m < at->multiplier_count; m++) {
            double sum = at->constants[m];
            for (size_t first = end; first-- > 0;) {
                size_t class = problem->layer_class[first];
                sum += at->class_costs[m * problem->class_count + class];
                interval[first] = fmax(interval[first], sum);
            }
        }
        uint64_t bytes = 0;
        for (size_t first = end; first-- > 0;) {
            bytes += at->class_bytes[problem->layer_class[first]];
            if (bytes > at->slack_bytes)
                break;
            if (stage == 0 || problem_may_end(problem, stage - 1, first))
                row[first] = fmin(row[first], after + interval[first]);
        }
    }
}

static void fill_rest(const struct bounds *bounds, size_t stage, struct stage_bounds *at)
{
    const struct problem *problem = bounds->problem;
    size_t width = row_width(problem), last = problem->layer_count;
    const double *suffix = &bounds->suffix[(stage + 1) * width];
    for (size_t m = 0; m < at->multiplier_count; m++) {
        double *rest = &at->rest[m * width];
        rest[last] = suffix[last];
        for (size_t l = last; l-- > 0;) {
            double own = at->class_costs[m * problem->class_count + problem->layer_class[l]];
            rest[l] = fmin(suffix[l], own + rest[l + 1]);
        }
    }
    /* Only the last stage, and one whose end is fixed, has to go on. */
    size_t end = problem->rules[stage].end;
    if (stage + 1 == problem->stages)
        end = last;
    assert(at->rest_bytes != NULL);
    at->rest_bytes[last] = 0;
    for (size_t l = last; l-- > 0;) {
        uint64_t least = at->class_bytes[problem->layer_class[l]];
        at->rest_bytes[l] = l < end ? at->rest_bytes[l + 1] + least : 0;
    }
}

static void fill_chains(struct bounds *bounds, double *interval)
{
    const struct problem *problem = bounds->problem;
    size_t width = row_width(problem);
    for (size_t i = 0; i < (problem->stages + 1) * width; i++)
        bounds->prefix[i] = bounds->suffix[i] = INFINITY;
    bounds->prefix[0] = problem->fixed_cost;
    bounds->suffix[problem->stages * width + problem->layer_count] = 0;
    for (size_t stage = 0; stage < problem->stages; stage++) {
        for (size_t first = 0; first < problem->layer_count; first++) {
            if (bounds->prefix[stage * width + first] < INFINITY)
                extend_prefix(bounds, stage, first, interval);
        }
    }
    for (size_t stage = problem->stages; stage-- > 0;) {
        for (size_t end = 1; end <= problem->layer_count; end++) {
            if (bounds->suffix[(stage + 1) * width + end] < INFINITY)
                extend_suffix(bounds, stage, end, interval);
        }
        for (size_t w = 0; w < bounds->limit_count; w++)
            fill_rest(bounds, stage, &bounds->stages[stage * bounds->limit_count + w]);
    }
}

/* ---- all ---- */

static int compare_bytes(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* With one stage, which has layers of all classes, a limit below this admits nothing for some. */
static uint64_t least_limit(const struct problem *problem, const size_t *class_layers)
{
    uint64_t most = 0;
    for (size_t c = 0; problem->stages == 1 && c < problem->class_count; c++) {
        if (class_layers[c] == 0)
            continue;
        uint64_t least = UINT64_MAX;
        for (size_t s = 0; s < problem->classes[c].strategy_count; s++) {
            uint64_t bytes = problem->classes[c].strategies[s].scratch_bytes;
            least = bytes < least ? bytes : least;
        }
        most = least > most ? least : most;
    }
    return most;
}

/* The distinct scratch sizes, ascending; where memory does not matter the largest will do. */
static size_t scratch_limits(const struct problem *problem, const size_t *class_layers,
                             uint64_t *limits)
{
    size_t count = 0;
    for (size_t c = 0; c < problem->class_count; c++) {
        for (size_t s = 0; s < problem->classes[c].strategy_count; s++)
            limits[count++] = problem->classes[c].strategies[s].scratch_bytes;
    }
    qsort(limits, count, sizeof(*limits), compare_bytes);
    uint64_t least = least_limit(problem, class_layers);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (limits[i] >= least && (kept == 0 || limits[i] != limits[kept - 1]))
            limits[kept++] = limits[i];
    }
    if (problem->cap_bytes == PROBLEM_NO_CAP && problem->weight_memory <= 0) {
        limits[0] = limits[kept - 1];
        kept = 1;
    }
    return kept;
}

static enum status alloc_bounds(struct bounds *out, size_t limit_count, struct error *err)
{
    size_t cells = (out->problem->stages + 1) * row_width(out->problem);
    size_t stage_count = out->problem->stages * limit_count;
    assert(cells > 1 && stage_count > 0);
    out->prefix = calloc(cells, sizeof(*out->prefix));
    out->suffix = calloc(cells, sizeof(*out->suffix));
    out->stages = calloc(stage_count, sizeof(*out->stages));
    out->shares = calloc(out->problem->stages, sizeof(*out->shares));
    if (!out->prefix || !out->suffix || !out->stages || !out->shares)
        return error_memory(err, 2 * cells * sizeof(double), "the search's bounds");
    out->limit_count = limit_count;
    out->stage_count = stage_count;
    for (size_t i = 0; i < stage_count; i++)
        TRY(alloc_stage(out->problem, &out->stages[i], err));
    return STATUS_OK;
}

static void fill_shares(struct bounds *bounds, const struct stage_shares *shares)
{
    double even = 1.0 / (double)bounds->problem->stages;
    for (size_t p = 0; p < bounds->problem->stages; p++)
        bounds->shares[p] = shares ? shares[p] : (struct stage_shares){even, even, even};
}

enum status bounds_init(struct bounds *out, const struct problem *problem,
                        const struct stage_shares *shares, struct error *err)
{
    assert(problem->layer_count > 0 && problem->class_count > 0 && problem->stages > 0);
    *out = (struct bounds){.problem = problem};
    size_t strategy_count = strategy_total(problem);
    assert(strategy_count > 0);
    uint64_t *limits = calloc(strategy_count, sizeof(*limits));
    size_t *class_layers = calloc(problem->class_count, sizeof(*class_layers));
    double *interval = malloc(row_width(problem) * sizeof(*interval));
    enum status status = STATUS_OK;
    size_t limit_count = 0;
    if (!limits || !class_layers || !interval) {
        status = error_memory(err, strategy_count * sizeof(*limits), "the search's bounds");
        goto free_work;
    }
    for (size_t l = 0; l < problem->layer_count; l++)
        class_layers[problem->layer_class[l]]++;
    limit_count = scratch_limits(problem, class_layers, limits);
    assert(limit_count > 0);
    status = alloc_bounds(out, limit_count, err);
    if (status != STATUS_OK)
        goto free_work;
    fill_shares(out, shares);
    for (size_t i = 0; i < out->stage_count; i++)
        init_stage(out, i / limit_count, limits[i % limit_count], i % limit_count == 0,
                   class_layers, &out->stages[i]);
    fill_chains(out, interval);
free_work:
    free(interval);
    free(class_layers);
    free(limits);
    if (status != STATUS_OK)
        bounds_free(out);
    return status;
}

void bounds_free(struct bounds *bounds)
{
    for (size_t i = 0; i < bounds->stage_count; i++)
        free_stage(&bounds->stages[i]);
    free(bounds->stages);
    free(bounds->shares);
    free(bounds->prefix);
    free(bounds->suffix);
    *bounds = (struct bounds){0};
}

double bounds_total(const struct bounds *bounds)
{
    const struct problem *problem = bounds->problem;
    return bounds->prefix[problem->stages * row_width(problem) + problem->layer_count];
}
