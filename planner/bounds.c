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

/* ---- spending ---- */

/* What the layers take, each at its cheapest over all stages and strategies. */
struct priced_sums {
    double cost, spend, bytes;
};

/* With spending at the relaxation's price, and bytes at one price on all stages. */
static struct priced_sums priced_class(const struct bounds *bounds, size_t class, double byte_price)
{
    const struct problem *problem = bounds->problem;
    struct priced_sums best = {.cost = INFINITY};
    for (size_t p = 0; p < problem->stages; p++) {
        const struct layer_class *of = problem_class(problem, p, class);
        const struct stage_shares *share = &bounds->relaxation.shares[p];
        for (size_t s = 0; s < of->strategy_count; s++) {
            const struct stage_terms terms = problem_stage_terms(problem, p, &of->strategies[s]);
            struct priced_sums own = {
                .cost = relaxed_strategy(bounds, p, VIEW_MEAN, byte_price, &of->strategies[s]),
                .spend = terms.spend + share->tau * problem->spend_tau * terms.tau +
                         share->gamma * problem->spend_gamma * terms.gamma,
                .bytes = (double)terms.bytes};
            if (own.cost < best.cost || (own.cost <= best.cost && own.spend < best.spend))
                best = own;
        }
    }
    return best;
}

static struct priced_sums priced_chain(struct bounds *bounds, const size_t *class_layers,
                                       double spend_price, double byte_price)
{
    struct priced_sums sums = {0};
    bounds->relaxation.spend_price = spend_price;
    for (size_t c = 0; c < bounds->problem->class_count; c++) {
        if (class_layers[c] == 0)
            continue;
        const struct priced_sums own = priced_class(bounds, c, byte_price);
        double layers = (double)class_layers[c];
        sums.cost += layers * own.cost;
        sums.spend += layers * own.spend;
        sums.bytes += layers * own.bytes;
    }
    return sums;
}

/* The chain's prices of spending and of bytes, and what it may take of them. */
struct chain_prices {
    double spend, byte;
    double spend_cap, bytes_cap;
};

static bool keeps_cap(struct bounds *bounds, const size_t *class_layers,
                      const struct chain_prices *prices, bool of_bytes)
{
    const struct priced_sums sums = priced_chain(bounds, class_layers, prices->spend, prices->byte);
    return of_bytes ? sums.bytes <= prices->bytes_cap : sums.spend <= prices->spend_cap;
}

/* The dual is concave in a price, and its slope what the relaxed optimum takes too much: the least
 * price that keeps the cap, the other price as it is. */
static void choose_price(struct bounds *bounds, const size_t *class_layers,
                         struct chain_prices *prices, bool of_bytes)
{
    enum { DOUBLINGS_MAX = 30, HALVINGS = 30 };
    double *price = of_bytes ? &prices->byte : &prices->spend;
    double low = 0, high;
    *price = 0;
    if (keeps_cap(bounds, class_layers, prices, of_bytes))
        return;
    const struct priced_sums sums = priced_chain(bounds, class_layers, prices->spend, prices->byte);
    double taken = of_bytes ? sums.bytes : sums.spend;
    high = sums.cost > 0 && sums.cost < INFINITY && taken > 0 ? 1e-3 * sums.cost / taken : 1;
    *price = high;
    for (int i = 0; i < DOUBLINGS_MAX && !keeps_cap(bounds, class_layers, prices, of_bytes); i++) {
        low = *price;
        *price *= 2;
    }
    high = *price;
    for (int i = 0; i < HALVINGS; i++) {
        *price = 0.5 * (low + high);
        if (keeps_cap(bounds, class_layers, prices, of_bytes))
            high = *price;
        else
            low = *price;
    }
    *price = high;
}

/* Where memory is short, too, one price depends on the other: in turns. */
static void choose_spend_price(struct bounds *bounds, const size_t *class_layers)
{
    enum { TURNS = 6 };
    const struct problem *problem = bounds->problem;
    struct chain_prices prices = {.spend_cap = problem_spend_most(problem)};
    if (problem_has_budget(problem)) {
        for (size_t p = 0; p < problem->stages; p++)
            prices.bytes_cap += (double)problem->rules[p].cap_bytes;
        for (int turn = 0; turn < TURNS; turn++) {
            choose_price(bounds, class_layers, &prices, true);
            choose_price(bounds, class_layers, &prices, false);
        }
    }
    bounds->relaxation.spend_price = prices.spend;
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
    status = scratch_levels(problem, class_layers, levels, &level_count, err);
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
