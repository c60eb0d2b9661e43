#include "planner/bounds.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

double bounds_relaxed(const struct bounds *bounds, size_t stage, int view, double multiplier,
                      const struct partial *partial)
{
    const struct problem *problem = bounds->problem;
    const struct stage_shares *share = &bounds->relaxation.shares[stage];
    double price = bounds->relaxation.spend_price;
    double tau = problem->weight_tau, gamma = problem->weight_gamma;
    double tau_share = view == VIEW_MEAN ? share->tau : view == VIEW_PEAK ? 1 : 0;
    double relaxed = partial->cost;
    if (price > 0) {
        tau += price * problem->spend_tau;
        gamma += price * problem->spend_gamma;
        relaxed += price * partial->spend;
    }
    return relaxed + tau_share * tau * partial->tau + share->gamma * gamma * partial->gamma +
           (share->memory * problem->weight_memory + multiplier) * (double)partial->bytes;
}

static double relaxed_strategy(const struct bounds *bounds, size_t stage, int view,
                               double multiplier, const struct strategy *strategy)
{
    const struct stage_terms terms = problem_stage_terms(bounds->problem, stage, strategy);
    const struct partial partial = {.cost = terms.cost,
                                    .tau = terms.tau,
                                    .gamma = terms.gamma,
                                    .spend = terms.spend,
                                    .bytes = terms.bytes};
    return bounds_relaxed(bounds, stage, view, multiplier, &partial);
}

static uint64_t stage_bytes(const struct problem *problem, size_t stage,
                            const struct strategy *strategy)
{
    return problem_stage_terms(problem, stage, strategy).bytes;
}

/* ---- which strategies ---- */

/* What replacing b by a adds to the objective at most. With one stage the maxima are sums: tau and
 * gamma are costs like any other; else the other stages may hide what a saves. */
static double added_cost(const struct problem *problem, const struct stage_terms *a,
                         const struct stage_terms *b)
{
    double tau = a->tau - b->tau, gamma = a->gamma - b->gamma;
    if (problem->stages > 1) {
        tau = fmax(tau, 0);
        gamma = fmax(gamma, 0);
    }
    return a->cost - b->cost + problem->weight_tau * tau + problem->weight_gamma * gamma;
}

static double added_spend(const struct problem *problem, const struct stage_terms *a,
                          const struct stage_terms *b)
{
    double tau = a->tau - b->tau, gamma = a->gamma - b->gamma;
    if (problem->stages > 1) {
        tau = fmax(tau, 0);
        gamma = fmax(gamma, 0);
    }
    return a->spend - b->spend + problem->spend_tau * tau + problem->spend_gamma * gamma;
}

/* What replacing b by a adds to a stage's scratch at most, at this level. */
static uint64_t added_scratch(const struct scratch_level *level, const struct strategy *a,
                              const struct strategy *b)
{
    uint64_t with = a->scratch_bytes > level->low_bytes ? a->scratch_bytes : level->low_bytes;
    uint64_t before = b->scratch_bytes > level->low_bytes ? b->scratch_bytes : level->low_bytes;
    return with > before ? with - before : 0;
}

/* Replacing b by a never costs or spends more and never needs more bytes. */
static bool strategy_dominates(const struct problem *problem, size_t stage,
                               const struct scratch_level *level, const struct strategy *a,
                               const struct strategy *b)
{
    if ((problem->transitions && a->group != b->group) ||
        (problem->needs & b->traits & ~a->traits) != 0)
        return false;
    const struct stage_terms x = problem_stage_terms(problem, stage, a);
    const struct stage_terms y = problem_stage_terms(problem, stage, b);
    bool sends = problem->stages > 1;
    if (x.bytes + added_scratch(level, a, b) > y.bytes)
        return false;
    if (problem_has_budget(problem) &&
        added_spend(problem, &x, &y) + (sends ? fmax(a->send_spend - b->send_spend, 0) : 0) > 0)
        return false;
    return added_cost(problem, &x, &y) + (sends ? fmax(a->send_cost - b->send_cost, 0) : 0) <= 0;
}

static void admit_class(const struct problem *problem, size_t stage,
                        const struct scratch_level *level, size_t class, struct admitted *out)
{
    const struct layer_class *of = problem_class(problem, stage, class);
    out->count = 0;
    for (size_t s = 0; s < of->strategy_count; s++) {
        const struct strategy *candidate = &of->strategies[s];
        if (candidate->scratch_bytes > level->high_bytes || !strategy_is_admitted(candidate))
            continue;
        size_t kept = 0;
        bool beaten = false;
        for (size_t i = 0; i < out->count && !beaten; i++)
            beaten = strategy_dominates(problem, stage, level, &of->strategies[out->strategies[i]],
                                        candidate);
        if (beaten)
            continue;
        for (size_t i = 0; i < out->count; i++) {
            const struct strategy *other = &of->strategies[out->strategies[i]];
            if (!strategy_dominates(problem, stage, level, candidate, other))
                out->strategies[kept++] = out->strategies[i];
        }
        out->strategies[kept++] = s;
        out->count = kept;
    }
}

/* The i-th strategy admitted of a class. */
static const struct strategy *admitted_strategy(const struct problem *problem, size_t stage,
                                                const struct stage_bounds *at, size_t class,
                                                size_t i)
{
    return &problem_class(problem, stage, class)->strategies[at->admitted[class].strategies[i]];
}

/* A level that no admitted strategy reaches is covered by a smaller one. */
static bool level_is_reached(const struct problem *problem, size_t stage,
                             const struct stage_bounds *at)
{
    for (size_t c = 0; c < problem->class_count; c++) {
        for (size_t i = 0; i < at->admitted[c].count; i++) {
            if (admitted_strategy(problem, stage, at, c, i)->scratch_bytes >= at->level.low_bytes)
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
            const struct strategy *s = admitted_strategy(problem, stage, at, c, i);
            double cost = relaxed_strategy(bounds, stage, VIEW_MEAN, multiplier, s);
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
            const struct strategy *s = admitted_strategy(problem, stage, at, c, i);
            cost = fmax(cost, relaxed_strategy(bounds, stage, VIEW_MEAN, 0, s));
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
            uint64_t bytes =
                stage_bytes(problem, stage, admitted_strategy(problem, stage, at, c, i));
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
    enum { DOUBLINGS_MAX = 100, HALVINGS = 30 };
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

/* ---- one stage at one level ---- */

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
    at->class_costs = calloc(STAGE_VIEWS * MULTIPLIERS_MAX * classes, sizeof(*at->class_costs));
    at->rest = calloc(BOUND_VIEWS * MULTIPLIERS_MAX * width, sizeof(*at->rest));
    at->rest_bytes = calloc(width, sizeof(*at->rest_bytes));
    at->class_sends = calloc(classes, sizeof(*at->class_sends));
    at->class_bytes = calloc(classes, sizeof(*at->class_bytes));
    at->strategies = calloc(strategy_total(problem), sizeof(*at->strategies));
    if (!at->admitted || !at->class_costs || !at->class_sends || !at->class_bytes || !at->rest ||
        !at->rest_bytes || !at->strategies)
        return error_memory(err, MULTIPLIERS_MAX * width * sizeof(double), "the search's bounds");
    return STATUS_OK;
}

static void free_stage(struct stage_bounds *at)
{
    free(at->strategies);
    free(at->admitted);
    free(at->class_costs);
    free(at->class_sends);
    free(at->class_bytes);
    free(at->rest);
    free(at->rest_bytes);
}

static double *class_costs(const struct problem *problem, const struct stage_bounds *at, int view,
                           size_t multiplier)
{
    size_t row = (size_t)view * MULTIPLIERS_MAX + multiplier;
    return &at->class_costs[row * problem->class_count];
}

static void fill_class_costs(const struct bounds *bounds, size_t stage, int view, size_t multiplier,
                             struct stage_bounds *at)
{
    const struct problem *problem = bounds->problem;
    double *costs = class_costs(problem, at, view, multiplier);
    for (size_t c = 0; c < problem->class_count; c++) {
        double best = INFINITY;
        for (size_t i = 0; i < at->admitted[c].count; i++)
            best = fmin(best, relaxed_strategy(bounds, stage, view, at->multipliers[multiplier],
                                               admitted_strategy(problem, stage, at, c, i)));
        costs[c] = best;
    }
}

static void fill_costs(const struct bounds *bounds, size_t stage, struct stage_bounds *at)
{
    const struct stage_rule *rule = &bounds->problem->rules[stage];
    for (size_t m = 0; m < at->multiplier_count; m++) {
        double weight = bounds->relaxation.shares[stage].memory * bounds->problem->weight_memory;
        double v = weight + at->multipliers[m];
        at->constants[m] = v * (double)(rule->fixed_bytes + at->level.low_bytes);
        if (at->multipliers[m] > 0)
            at->constants[m] -= at->multipliers[m] * (double)rule->cap_bytes;
        fill_class_costs(bounds, stage, VIEW_MEAN, m, at);
        if (bounds->view_count > VIEW_PEAK) {
            fill_class_costs(bounds, stage, VIEW_PEAK, m, at);
            fill_class_costs(bounds, stage, VIEW_OTHERS, m, at);
        }
    }
}

static void fill_class_sends(const struct bounds *bounds, size_t stage, struct stage_bounds *at)
{
    const struct problem *problem = bounds->problem;
    bool sends = stage + 1 < problem->stages;
    for (size_t c = 0; c < problem->class_count; c++) {
        double best = sends && at->admitted[c].count > 0 ? INFINITY : 0;
        for (size_t i = 0; sends && i < at->admitted[c].count; i++) {
            const struct strategy *s = admitted_strategy(problem, stage, at, c, i);
            best = fmin(best, s->send_cost + bounds->relaxation.spend_price * s->send_spend);
        }
        at->class_sends[c] = best;
    }
}

/* Only the last stage, and one whose end is fixed, has to go on. */
static void fill_rest_bytes(const struct problem *problem, size_t stage, struct stage_bounds *at)
{
    size_t last = problem->layer_count, end = problem->rules[stage].end;
    if (stage + 1 == problem->stages)
        end = last;
    assert(at->rest_bytes != NULL);
    at->rest_bytes[last] = 0;
    for (size_t l = last; l-- > 0;) {
        uint64_t least = at->class_bytes[problem->layer_class[l]];
        at->rest_bytes[l] = l < end ? at->rest_bytes[l + 1] + least : 0;
    }
}

static void init_stage(const struct bounds *bounds, size_t stage, struct scratch_level level,
                       bool is_least, const size_t *class_layers, struct stage_bounds *at)
{
    const struct problem *problem = bounds->problem;
    const struct stage_rule *rule = &problem->rules[stage];
    at->level = level;
    at->multiplier_count = 0;
    uint64_t charged_bytes = rule->fixed_bytes + level.low_bytes;
    if (charged_bytes > rule->cap_bytes)
        return;
    at->slack_bytes =
        rule->cap_bytes == PROBLEM_NO_CAP ? PROBLEM_NO_CAP : rule->cap_bytes - charged_bytes;
    size_t *strategies = at->strategies;
    for (size_t c = 0; c < problem->class_count; c++) {
        at->admitted[c].strategies = strategies;
        admit_class(problem, stage, &level, c, &at->admitted[c]);
        strategies += problem_class(problem, stage, c)->strategy_count;
    }
    if (!is_least && !level_is_reached(problem, stage, at))
        return;
    fill_class_bytes(problem, stage, at);
    choose_multipliers(bounds, stage, class_layers, at);
    fill_costs(bounds, stage, at);
    fill_class_sends(bounds, stage, at);
    fill_rest_bytes(problem, stage, at);
}

/* ---- chains ---- */

static size_t row_width(const struct problem *problem)
{
    return problem->layer_count + 1;
}

/* How far an interval from `first` can reach before even its leanest layers overflow the stage. */
static size_t last_end(const struct problem *problem, const struct stage_bounds *at, size_t first)
{
    uint64_t bytes = 0;
    size_t end = first;
    while (end < problem->layer_count) {
        bytes += at->class_bytes[problem->layer_class[end]];
        if (bytes > at->slack_bytes)
            break;
        end++;
    }
    return end;
}

static size_t least_first(const struct problem *problem, const struct stage_bounds *at, size_t end)
{
    uint64_t bytes = 0;
    size_t first = end;
    while (first > 0) {
        bytes += at->class_bytes[problem->layer_class[first - 1]];
        if (bytes > at->slack_bytes)
            break;
        first--;
    }
    return first;
}

double bounds_outside(const struct bounds *bounds, int view, size_t stage, size_t first, size_t end)
{
    size_t width = row_width(bounds->problem);
    return bounds->prefix[view][stage * width + first] +
           bounds->suffix[view][(stage + 1) * width + end];
}

/* How a view sees the stages of a chain. */
static int chain_view(int view)
{
    return view == VIEW_PEAK ? VIEW_OTHERS : view;
}

/* interval[end] = bound of the stage alone with layers first .. end - 1, its sending included. */
static void bound_ends(const struct problem *problem, const struct stage_bounds *at, int view,
                       size_t first, size_t most, double *interval)
{
    for (size_t end = first + 1; end <= most; end++)
        interval[end] = -INFINITY;
    for (size_t m = 0; m < at->multiplier_count; m++) {
        const double *costs = class_costs(problem, at, view, m);
        double sum = at->constants[m];
        for (size_t end = first + 1; end <= most; end++) {
            sum += costs[problem->layer_class[end - 1]];
            interval[end] = sum > interval[end] ? sum : interval[end];
        }
    }
    for (size_t end = first + 1; end <= most; end++)
        interval[end] += at->class_sends[problem->layer_class[end - 1]];
}

/* interval[first] = the same with layers first .. end - 1. */
static void bound_firsts(const struct problem *problem, const struct stage_bounds *at, int view,
                         size_t least, size_t end, double *interval)
{
    double send = at->class_sends[problem->layer_class[end - 1]];
    for (size_t first = least; first < end; first++)
        interval[first] = -INFINITY;
    for (size_t m = 0; m < at->multiplier_count; m++) {
        const double *costs = class_costs(problem, at, view, m);
        double sum = at->constants[m] + send;
        for (size_t first = end; first-- > least;) {
            sum += costs[problem->layer_class[first]];
            interval[first] = sum > interval[first] ? sum : interval[first];
        }
    }
}

/* Does VIEW_PEAK show that stages beside this one are worth a look in VIEW_MEAN? */
static bool has_peaks(const struct bounds *bounds, int view)
{
    return view == VIEW_MEAN && bounds->view_count > VIEW_PEAK && bounds->threshold < INFINITY;
}

/* row[end] = min(row[end], before[first] + bound of first .. end - 1 on this stage), over levels.
 */
static void extend_prefix(const struct bounds *bounds, int view, size_t stage, size_t first,
                          double *interval)
{
    const struct problem *problem = bounds->problem;
    size_t width = row_width(problem);
    double before = bounds->prefix[view][stage * width + first];
    double *row = &bounds->prefix[view][(stage + 1) * width], *peaks = interval + width;
    for (size_t w = 0; w < bounds->level_count; w++) {
        const struct stage_bounds *at = &bounds->stages[stage * bounds->level_count + w];
        if (at->multiplier_count == 0)
            continue;
        size_t most = last_end(problem, at, first);
        bound_ends(problem, at, chain_view(view), first, most, interval);
        if (has_peaks(bounds, view))
            bound_ends(problem, at, VIEW_PEAK, first, most, peaks);
        for (size_t end = first + 1; end <= most; end++) {
            if (!problem_may_end(problem, stage, end) ||
                (has_peaks(bounds, view) &&
                 bounds_outside(bounds, VIEW_PEAK, stage, first, end) + peaks[end] >=
                     bounds->threshold))
                continue;
            row[end] = fmin(row[end], before + interval[end]);
        }
    }
}

static void extend_suffix(const struct bounds *bounds, int view, size_t stage, size_t end,
                          double *interval)
{
    const struct problem *problem = bounds->problem;
    size_t width = row_width(problem);
    double after = bounds->suffix[view][(stage + 1) * width + end];
    double *row = &bounds->suffix[view][stage * width], *peaks = interval + width;
    for (size_t w = 0; w < bounds->level_count; w++) {
        const struct stage_bounds *at = &bounds->stages[stage * bounds->level_count + w];
        if (at->multiplier_count == 0)
            continue;
        size_t least = least_first(problem, at, end);
        bound_firsts(problem, at, chain_view(view), least, end, interval);
        if (has_peaks(bounds, view))
            bound_firsts(problem, at, VIEW_PEAK, least, end, peaks);
        for (size_t first = least; first < end; first++) {
            if ((stage > 0 && !problem_may_end(problem, stage - 1, first)) ||
                (has_peaks(bounds, view) &&
                 bounds_outside(bounds, VIEW_PEAK, stage, first, end) + peaks[first] >=
                     bounds->threshold))
                continue;
            row[first] = fmin(row[first], after + interval[first]);
        }
    }
}

static void fill_rest(const struct bounds *bounds, int view, size_t stage, struct stage_bounds *at)
{
    const struct problem *problem = bounds->problem;
    size_t width = row_width(problem), last = problem->layer_count;
    const double *suffix = &bounds->suffix[view][(stage + 1) * width];
    for (size_t m = 0; m < at->multiplier_count; m++) {
        const double *costs = class_costs(problem, at, view, m);
        double *rest = bounds_rest(bounds, at, view, m);
        rest[last] = suffix[last];
        for (size_t l = last; l-- > 0;) {
            double own = costs[problem->layer_class[l]];
            double send = l > 0 ? at->class_sends[problem->layer_class[l - 1]] : 0;
            rest[l] = fmin(send + suffix[l], own + rest[l + 1]);
        }
    }
}

static void fill_chains(struct bounds *bounds, int view, double *interval)
{
    const struct problem *problem = bounds->problem;
    size_t width = row_width(problem);
    double *prefix = bounds->prefix[view], *suffix = bounds->suffix[view];
    for (size_t i = 0; i < (problem->stages + 1) * width; i++)
        prefix[i] = suffix[i] = INFINITY;
    prefix[0] = problem->fixed_cost;
    if (bounds->relaxation.spend_price > 0)
        prefix[0] -= bounds->relaxation.spend_price * problem_spend_most(problem);
    suffix[problem->stages * width + problem->layer_count] = 0;
    for (size_t stage = 0; stage < problem->stages; stage++) {
        for (size_t first = 0; first < problem->layer_count; first++) {
            if (prefix[stage * width + first] < INFINITY)
                extend_prefix(bounds, view, stage, first, interval);
        }
    }
    for (size_t stage = problem->stages; stage-- > 0;) {
        for (size_t end = 1; end <= problem->layer_count; end++) {
            if (suffix[(stage + 1) * width + end] < INFINITY)
                extend_suffix(bounds, view, stage, end, interval);
        }
        for (size_t w = 0; w < bounds->level_count; w++)
            fill_rest(bounds, view, stage, &bounds->stages[stage * bounds->level_count + w]);
    }
}

/* ---- levels of scratch ---- */

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
        const struct layer_class *of = problem_class(problem, 0, c);
        uint64_t least = UINT64_MAX;
        if (class_layers[c] == 0)
            continue;
        for (size_t s = 0; s < of->strategy_count; s++) {
            uint64_t bytes = of->strategies[s].scratch_bytes;
            if (strategy_is_admitted(&of->strategies[s]) && bytes < least)
                least = bytes;
        }
        most = least > most && least < UINT64_MAX ? least : most;
    }
    return most;
}

/* The distinct sizes of at least `least`, ascending; returns how many. */
static size_t scratch_sizes(const struct problem *problem, uint64_t least, uint64_t *sizes)
{
    size_t count = 0, kept = 0;
    for (size_t c = 0; c < problem->places * problem->class_count; c++) {
        const struct layer_class *of = &problem->classes[c];
        for (size_t s = 0; s < of->strategy_count; s++) {
            uint64_t bytes = of->strategies[s].scratch_bytes;
            if (strategy_is_admitted(&of->strategies[s]))
                sizes[count++] = bytes > least ? bytes : least;
        }
    }
    if (count > 0)
        qsort(sizes, count, sizeof(*sizes), compare_bytes);
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || sizes[i] != sizes[kept - 1])
            sizes[kept++] = sizes[i];
    }
    return kept;
}

static bool memory_matters(const struct problem *problem)
{
    return problem_most_cap(problem) != PROBLEM_NO_CAP || problem->weight_memory > 0;
}

/* One level a size, or neighbouring sizes in one where there are too many. */
static size_t scratch_levels(const struct problem *problem, const uint64_t *sizes, size_t count,
                             struct scratch_level *levels)
{
    size_t kept = 0;
    if (count == 0 || !memory_matters(problem)) {
        uint64_t most = count > 0 ? sizes[count - 1] : 0;
        levels[0] = (struct scratch_level){most, most};
        return 1;
    }
    uint64_t span = sizes[count - 1] - sizes[0];
    uint64_t width = count > SCRATCH_LEVELS_MAX ? span / SCRATCH_LEVELS_MAX + 1 : 0;
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && sizes[i] - levels[kept - 1].low_bytes < width)
            levels[kept - 1].high_bytes = sizes[i];
        else
            levels[kept++] = (struct scratch_level){sizes[i], sizes[i]};
    }
    return kept;
}

static enum status find_levels(const struct problem *problem, const size_t *class_layers,
                               struct scratch_level *levels, size_t *level_count, struct error *err)
{
    size_t total = strategy_total(problem) * problem->places;
    uint64_t *sizes = calloc(total, sizeof(*sizes));
    if (!sizes)
        return error_memory(err, total * sizeof(*sizes), "the search's bounds");
    size_t count = scratch_sizes(problem, least_limit(problem, class_layers), sizes);
    *level_count = scratch_levels(problem, sizes, count, levels);
    free(sizes);
    return STATUS_OK;
}

/* ---- spending ---- */

/* The layer's cheapest strategy with spending at a price, over all stages and without memory. */
static double priced_spend(const struct bounds *bounds, size_t class, double *cost)
{
    const struct problem *problem = bounds->problem;
    double best = INFINITY, spend = 0;
    for (size_t p = 0; p < problem->stages; p++) {
        const struct layer_class *of = problem_class(problem, p, class);
        const struct stage_shares *share = &bounds->relaxation.shares[p];
        for (size_t s = 0; s < of->strategy_count; s++) {
            const struct stage_terms terms = problem_stage_terms(problem, p, &of->strategies[s]);
            double relaxed = relaxed_strategy(bounds, p, VIEW_MEAN, 0, &of->strategies[s]);
            double own = terms.spend + share->tau * problem->spend_tau * terms.tau +
                         share->gamma * problem->spend_gamma * terms.gamma;
            if (relaxed < best || (relaxed <= best && own < spend)) {
                best = relaxed;
                spend = own;
            }
        }
    }
    *cost = best;
    return spend;
}

static bool price_keeps_budget(struct bounds *bounds, const size_t *class_layers, double price)
{
    double spend = 0, cost;
    bounds->relaxation.spend_price = price;
    for (size_t c = 0; c < bounds->problem->class_count; c++)
        spend += (double)class_layers[c] * priced_spend(bounds, c, &cost);
    return problem_affords(bounds->problem, spend);
}

/* The dual is concave in the price, and its slope what the relaxed optimum spends too much. */
static void choose_spend_price(struct bounds *bounds, const size_t *class_layers)
{
    enum { DOUBLINGS_MAX = 30, HALVINGS = 40 };
    double cost = 0, spend = 0;
    if (!problem_has_budget(bounds->problem) || price_keeps_budget(bounds, class_layers, 0)) {
        bounds->relaxation.spend_price = 0;
        return;
    }
    for (size_t c = 0; c < bounds->problem->class_count; c++) {
        double own;
        spend = fmax(spend, priced_spend(bounds, c, &own));
        cost = fmax(cost, own < INFINITY ? own : 0);
    }
    double low = 0, high = cost > 0 && spend > 0 ? 1e-3 * cost / spend : 1;
    int doublings = 0;
    while (doublings++ < DOUBLINGS_MAX && !price_keeps_budget(bounds, class_layers, high)) {
        low = high;
        high *= 2;
    }
    for (int i = 0; i < HALVINGS; i++) {
        double middle = 0.5 * (low + high);
        if (price_keeps_budget(bounds, class_layers, middle))
            high = middle;
        else
            low = middle;
    }
    bounds->relaxation.spend_price = high;
}

static void fill_spend(struct bounds *bounds)
{
    const struct problem *problem = bounds->problem;
    bounds->spend_before[0] = 0;
    for (size_t l = 0; l < problem->layer_count; l++) {
        double least = INFINITY;
        for (size_t place = 0; place < problem->places; place++) {
            const struct layer_class *of =
                &problem->classes[place * problem->class_count + problem->layer_class[l]];
            for (size_t s = 0; s < of->strategy_count; s++) {
                if (strategy_is_admitted(&of->strategies[s]))
                    least = fmin(least, of->strategies[s].spend);
            }
        }
        bounds->spend_before[l + 1] = bounds->spend_before[l] + (least < INFINITY ? least : 0);
    }
}

bool bounds_overspends(const struct bounds *bounds, size_t first, size_t end, double spend)
{
    const double *before = bounds->spend_before;
    double rest = before[first] + before[bounds->problem->layer_count] - before[end];
    return !problem_affords(bounds->problem, rest + spend);
}

/* ---- all ---- */

static enum status alloc_bounds(struct bounds *out, size_t level_count, struct error *err)
{
    size_t stages = out->problem->stages, width = row_width(out->problem);
    size_t cells = (stages + 1) * width, stage_count = stages * level_count;
    assert(cells > 1 && stage_count > 0);
    for (size_t view = 0; view < out->view_count; view++) {
        out->prefix[view] = calloc(cells, sizeof(double));
        out->suffix[view] = calloc(cells, sizeof(double));
        if (!out->prefix[view] || !out->suffix[view])
            return error_memory(err, 2 * cells * sizeof(double), "the search's bounds");
    }
    out->spend_before = calloc(width, sizeof(*out->spend_before));
    out->stages = calloc(stage_count, sizeof(*out->stages));
    out->relaxation.shares = calloc(stages, sizeof(*out->relaxation.shares));
    if (!out->spend_before || !out->stages || !out->relaxation.shares)
        return error_memory(err, 2 * cells * sizeof(double), "the search's bounds");
    out->level_count = level_count;
    out->stage_count = stage_count;
    for (size_t i = 0; i < stage_count; i++)
        TRY(alloc_stage(out->problem, &out->stages[i], err));
    return STATUS_OK;
}

static void fill_relaxation(struct bounds *bounds, const struct relaxation *relaxation,
                            const size_t *class_layers)
{
    double even = 1.0 / (double)bounds->problem->stages;
    for (size_t p = 0; p < bounds->problem->stages; p++)
        bounds->relaxation.shares[p] =
            relaxation ? relaxation->shares[p] : (struct stage_shares){even, even, even};
    if (relaxation)
        bounds->relaxation.spend_price = relaxation->spend_price;
    else
        choose_spend_price(bounds, class_layers);
}

enum status bounds_init(struct bounds *out, const struct problem *problem,
                        const struct relaxation *relaxation, double threshold, struct error *err)
{
    assert(problem->layer_count > 0 && problem->class_count > 0 && problem->stages > 0 &&
           problem->places > 0);
    bool has_tau = problem->weight_tau > 0 || problem->spend_tau > 0;
    *out = (struct bounds){.problem = problem,
                           .threshold = threshold,
                           .view_count = problem->stages > 1 && has_tau ? BOUND_VIEWS : 1};
    struct scratch_level levels[SCRATCH_LEVELS_MAX];
    size_t *class_layers = calloc(problem->class_count, sizeof(*class_layers));
    double *interval = malloc(2 * row_width(problem) * sizeof(*interval));
    enum status status = STATUS_OK;
    size_t level_count = 0;
    if (!class_layers || !interval) {
        status = error_memory(err, row_width(problem) * sizeof(*interval), "the search's bounds");
        goto free_work;
    }
    for (size_t l = 0; l < problem->layer_count; l++)
        class_layers[problem->layer_class[l]]++;
    status = find_levels(problem, class_layers, levels, &level_count, err);
    if (status == STATUS_OK)
        status = alloc_bounds(out, level_count, err);
    if (status != STATUS_OK)
        goto free_work;
    fill_relaxation(out, relaxation, class_layers);
    fill_spend(out);
    for (size_t i = 0; i < out->stage_count; i++)
        init_stage(out, i / level_count, levels[i % level_count], i % level_count == 0,
                   class_layers, &out->stages[i]);
    /* VIEW_MEAN last: it leaves out what VIEW_PEAK rules out. */
    for (int view = (int)out->view_count; view-- > 0;)
        fill_chains(out, view, interval);
free_work:
    free(interval);
    free(class_layers);
    if (status != STATUS_OK)
        bounds_free(out);
    return status;
}

void bounds_free(struct bounds *bounds)
{
    for (size_t i = 0; i < bounds->stage_count; i++)
        free_stage(&bounds->stages[i]);
    free(bounds->stages);
    free(bounds->relaxation.shares);
    for (int view = 0; view < BOUND_VIEWS; view++) {
        free(bounds->prefix[view]);
        free(bounds->suffix[view]);
    }
    free(bounds->spend_before);
    *bounds = (struct bounds){0};
}

double *bounds_rest(const struct bounds *bounds, const struct stage_bounds *at, int view,
                    size_t multiplier)
{
    size_t row = (size_t)view * MULTIPLIERS_MAX + multiplier;
    return &at->rest[row * row_width(bounds->problem)];
}

double bounds_total(const struct bounds *bounds)
{
    const struct problem *problem = bounds->problem;
    return bounds->prefix[VIEW_MEAN][problem->stages * row_width(problem) + problem->layer_count];
}
