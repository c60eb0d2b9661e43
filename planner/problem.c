#include "planner/problem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct stage_terms problem_stage_terms(const struct problem *problem, size_t stage,
                                       const struct strategy *strategy)
{
    const struct stage_rule *rule = &problem->rules[stage];
    return (struct stage_terms){
        .cost = strategy->cost + (stage == 0 ? strategy->first_cost : 0),
        .tau = strategy->tau - rule->warm_up * strategy->head,
        .gamma = strategy->gamma,
        .spend = strategy->spend + (stage == 0 ? strategy->first_spend : 0),
        .bytes = strategy->static_bytes + rule->in_flight * strategy->inflight_bytes,
    };
}

bool strategy_is_admitted(const struct strategy *strategy)
{
    return strategy->cost < INFINITY;
}

bool problem_has_budget(const struct problem *problem)
{
    return problem->spend_cap < INFINITY;
}

double problem_spend_most(const struct problem *problem)
{
    return problem->spend_cap + PROBLEM_SPEND_SHARE * fabs(problem->spend_cap);
}

bool problem_affords(const struct problem *problem, double spend)
{
    return spend <= problem_spend_most(problem);
}

uint64_t problem_most_cap(const struct problem *problem)
{
    uint64_t most = 0;
    for (size_t p = 0; p < problem->stages; p++) {
        if (problem->rules[p].cap_bytes > most)
            most = problem->rules[p].cap_bytes;
    }
    return most;
}

bool problem_may_end(const struct problem *problem, size_t stage, size_t end)
{
    return problem->rules[stage].end == 0 || problem->rules[stage].end == end;
}

const struct transition *problem_transition(const struct problem *problem, size_t stage,
                                            const struct strategy *from,
                                            const struct layer_class *to_class,
                                            const struct strategy *to)
{
    if (!problem->transitions || to_class->follows_nothing)
        return NULL;
    size_t groups = problem->group_count;
    return &problem->transitions[(problem->rules[stage].place * groups + from->group) * groups +
                                 to->group];
}

double problem_transition_tau(const struct problem *problem, size_t stage,
                              const struct transition *change)
{
    return change->tau - problem->rules[stage].warm_up * change->head;
}

enum status assignment_alloc(struct assignment *out, size_t layer_count, struct error *err)
{
    *out = (struct assignment){
        .strategies = calloc(layer_count, sizeof(size_t)),
        .stages = calloc(layer_count, sizeof(size_t)),
    };
    if (out->strategies && out->stages)
        return STATUS_OK;
    assignment_free(out);
    return error_memory(err, 2ull * layer_count * sizeof(size_t), "a plan's assignment");
}

void assignment_copy(struct assignment *to, const struct assignment *from, size_t layer_count)
{
    memcpy(to->strategies, from->strategies, layer_count * sizeof(size_t));
    memcpy(to->stages, from->stages, layer_count * sizeof(size_t));
}

void assignment_free(struct assignment *assignment)
{
    free(assignment->strategies);
    free(assignment->stages);
    *assignment = (struct assignment){0};
}

/* ---- evaluation ---- */

struct stage_sums {
    double cost, tau, gamma, spend;
    uint64_t bytes, scratch_bytes;
    unsigned traits;
};

static const struct strategy *chosen(const struct problem *problem,
                                     const struct assignment *assignment, size_t layer)
{
    const struct layer_class *of =
        problem_class(problem, assignment->stages[layer], problem->layer_class[layer]);
    return &of->strategies[assignment->strategies[layer]];
}

/* Add the layers of the stage that begins at `first`; returns the layer after its last. */
static size_t sum_stage(const struct problem *problem, const struct assignment *assignment,
                        size_t first, struct stage_sums *sums)
{
    size_t stage = assignment->stages[first];
    size_t layer = first;
    for (; layer < problem->layer_count && assignment->stages[layer] == stage; layer++) {
        const struct strategy *strategy = chosen(problem, assignment, layer);
        const struct stage_terms terms = problem_stage_terms(problem, stage, strategy);
        sums->cost += terms.cost;
        sums->tau += terms.tau;
        sums->gamma += terms.gamma;
        sums->spend += terms.spend;
        sums->traits |= strategy->traits;
        sums->bytes += terms.bytes;
        if (strategy->scratch_bytes > sums->scratch_bytes)
            sums->scratch_bytes = strategy->scratch_bytes;
        if (layer == first)
            continue;
        const struct transition *change = problem_transition(
            problem, stage, chosen(problem, assignment, layer - 1),
            problem_class(problem, stage, problem->layer_class[layer]), strategy);
        if (change) {
            sums->cost += change->cost;
            sums->spend += change->spend;
            sums->tau += problem_transition_tau(problem, stage, change);
        }
    }
    if (layer < problem->layer_count) {
        sums->cost += chosen(problem, assignment, layer - 1)->send_cost;
        sums->spend += chosen(problem, assignment, layer - 1)->send_spend;
    }
    return layer;
}

double problem_evaluate(const struct problem *problem, const struct assignment *assignment,
                        uint64_t *peak_bytes)
{
    double cost = problem->fixed_cost, tau = 0, gamma = 0, spend = 0;
    uint64_t peak = 0;
    unsigned traits = 0;
    bool fits = true;
    for (size_t layer = 0; layer < problem->layer_count;) {
        const struct stage_rule *rule = &problem->rules[assignment->stages[layer]];
        struct stage_sums sums = {.bytes = rule->fixed_bytes};
        layer = sum_stage(problem, assignment, layer, &sums);
        cost += sums.cost;
        tau = fmax(tau, sums.tau);
        gamma = fmax(gamma, sums.gamma);
        spend += sums.spend;
        traits |= sums.traits;
        if (sums.bytes + sums.scratch_bytes > peak)
            peak = sums.bytes + sums.scratch_bytes;
        fits &= sums.bytes + sums.scratch_bytes <= rule->cap_bytes;
    }
    if (peak_bytes)
        *peak_bytes = peak;
    spend += problem->spend_tau * tau + problem->spend_gamma * gamma;
    if (!fits || (problem->needs & ~traits) != 0 || !problem_affords(problem, spend))
        return INFINITY;
    return cost + problem->weight_tau * tau + problem->weight_gamma * gamma +
           problem->weight_memory * (double)peak;
}

/* ---- the leanest assignment ---- */

#define NO_LAYER SIZE_MAX

/* One cell of the search over stage boundaries: layers [0, end) on the first stages, with a set of
 * traits among them. */
struct lean_cell {
    uint64_t bytes;                 /* of the fullest stage; UINT64_MAX: impossible */
    size_t first;                   /* where the last of these stages begins */
    uint64_t scratch_bytes;         /* its strategies' limit */
    unsigned before;                /* traits of the stages before it */
    size_t bearers[PROBLEM_TRAITS]; /* its layers that are chosen for a trait; NO_LAYER */
};

struct lean_search {
    const struct problem *problem;
    struct lean_cell *cells; /* [stages][layer_count + 1][PROBLEM_TRAIT_SETS] */
    uint64_t *class_bytes;   /* [PROBLEM_TRAIT_SETS][class_count]: leanest at a limit */
};

/* The least that it takes beyond the leanest strategies to have a set of traits in an interval. */
struct lean_more {
    uint64_t bytes; /* UINT64_MAX: impossible */
    size_t bearers[PROBLEM_TRAITS];
};

static struct lean_cell *lean_cell(const struct lean_search *search, size_t stage, size_t end,
                                   unsigned traits)
{
    size_t width = search->problem->layer_count + 1;
    return &search->cells[(stage * width + end) * PROBLEM_TRAIT_SETS + traits];
}

/* Strategy of least bytes that has the traits and whose scratch is within the limit; strategy_count
 * when there is none. */
static size_t leanest_strategy(const struct problem *problem, size_t stage, size_t class,
                               uint64_t scratch_limit, unsigned traits, uint64_t *bytes)
{
    const struct layer_class *of = problem_class(problem, stage, class);
    size_t best = of->strategy_count;
    *bytes = UINT64_MAX;
    for (size_t s = 0; s < of->strategy_count; s++) {
        const struct strategy *strategy = &of->strategies[s];
        uint64_t own = problem_stage_terms(problem, stage, strategy).bytes;
        if (strategy_is_admitted(strategy) && strategy->scratch_bytes <= scratch_limit &&
            own < *bytes && (traits & ~strategy->traits) == 0) {
            *bytes = own;
            best = s;
        }
    }
    return best;
}

static void improve_cell(struct lean_cell *cell, const struct lean_cell *offer, uint64_t so_far)
{
    uint64_t bytes = offer->bytes > so_far ? offer->bytes : so_far;
    if (bytes >= cell->bytes)
        return;
    *cell = *offer;
    cell->bytes = bytes;
}

/* Let the interval's new last layer bear traits. */
static void add_bearer(const struct lean_search *search, size_t layer,
                       struct lean_more more[PROBLEM_TRAIT_SETS])
{
    const struct problem *problem = search->problem;
    const uint64_t *bytes = &search->class_bytes[problem->layer_class[layer]];
    for (unsigned traits = PROBLEM_TRAIT_SETS - 1; traits > 0; traits--) {
        for (unsigned own = traits; own > 0; own = (own - 1) & traits) {
            const struct lean_more *others = &more[traits & ~own];
            uint64_t with = bytes[own * problem->class_count];
            if (with == UINT64_MAX || others->bytes == UINT64_MAX ||
                others->bytes + (with - bytes[0]) >= more[traits].bytes)
                continue;
            struct lean_more better = *others;
            better.bytes += with - bytes[0];
            for (unsigned t = 0; t < PROBLEM_TRAITS; t++) {
                if ((own >> t & 1) != 0)
                    better.bearers[t] = layer;
            }
            more[traits] = better;
        }
    }
}

static void improve_cells(const struct lean_search *search, size_t stage, size_t end,
                          const struct lean_cell *offer, const struct lean_more *more)
{
    for (unsigned before = 0; before < PROBLEM_TRAIT_SETS; before++) {
        uint64_t so_far = before == 0 ? 0 : UINT64_MAX;
        if (stage > 0)
            so_far = lean_cell(search, stage - 1, offer->first, before)->bytes;
        for (unsigned own = 0; so_far < UINT64_MAX && own < PROBLEM_TRAIT_SETS; own++) {
            struct lean_cell with = *offer;
            if (more[own].bytes == UINT64_MAX)
                continue;
            with.bytes += more[own].bytes;
            with.before = before;
            memcpy(with.bearers, more[own].bearers, sizeof(with.bearers));
            improve_cell(lean_cell(search, stage, end, before | own), &with, so_far);
        }
    }
}

/* Stages that begin at `first` under a scratch limit, of every length. */
static void relax_leanest(const struct lean_search *search, size_t stage, size_t first,
                          uint64_t limit)
{
    const struct problem *problem = search->problem;
    const struct stage_rule *rule = &problem->rules[stage];
    struct lean_cell offer = {.bytes = rule->fixed_bytes + limit +
                                       (problem_most_cap(problem) - rule->cap_bytes),
                              .first = first,
                              .scratch_bytes = limit};
    struct lean_more more[PROBLEM_TRAIT_SETS];
    for (unsigned traits = 0; traits < PROBLEM_TRAIT_SETS; traits++) {
        more[traits].bytes = traits == 0 ? 0 : UINT64_MAX;
        for (int t = 0; t < PROBLEM_TRAITS; t++)
            more[traits].bearers[t] = NO_LAYER;
    }
    for (size_t end = first + 1; end <= problem->layer_count; end++) {
        uint64_t own = search->class_bytes[problem->layer_class[end - 1]];
        if (own == UINT64_MAX)
            break;
        offer.bytes += own;
        if (problem->needs != 0)
            add_bearer(search, end - 1, more);
        if (problem_may_end(problem, stage, end))
            improve_cells(search, stage, end, &offer, more);
    }
}

static unsigned borne_traits(const struct lean_cell *cell, size_t layer)
{
    unsigned traits = 0;
    for (unsigned t = 0; t < PROBLEM_TRAITS; t++) {
        if (cell->bearers[t] == layer)
            traits |= 1u << t;
    }
    return traits;
}

static void read_leanest(const struct lean_search *search, unsigned traits, struct assignment *out)
{
    const struct problem *problem = search->problem;
    size_t end = problem->layer_count;
    for (size_t stage = problem->stages; stage-- > 0;) {
        const struct lean_cell *cell = lean_cell(search, stage, end, traits);
        for (size_t layer = cell->first; layer < end; layer++) {
            uint64_t bytes;
            out->stages[layer] = stage;
            out->strategies[layer] =
                leanest_strategy(problem, stage, problem->layer_class[layer], cell->scratch_bytes,
                                 borne_traits(cell, layer), &bytes);
        }
        end = cell->first;
        traits = cell->before;
    }
}

static bool limit_was_tried(const struct problem *problem, size_t stage, size_t class,
                            size_t strategy)
{
    uint64_t limit = problem_class(problem, stage, class)->strategies[strategy].scratch_bytes;
    for (size_t c = 0; c <= class; c++) {
        const struct layer_class *of = problem_class(problem, stage, c);
        size_t count = c < class ? of->strategy_count : strategy;
        for (size_t s = 0; s < count; s++) {
            if (of->strategies[s].scratch_bytes == limit)
                return true;
        }
    }
    return false;
}

/* A stage's peak is its sum plus its largest scratch: try every scratch size as the limit. */
static void fill_leanest(const struct lean_search *search, size_t stage, uint64_t limit)
{
    const struct problem *problem = search->problem;
    for (unsigned traits = 0; traits < PROBLEM_TRAIT_SETS; traits++) {
        for (size_t c = 0; c < problem->class_count; c++)
            leanest_strategy(problem, stage, c, limit, traits,
                             &search->class_bytes[traits * problem->class_count + c]);
    }
    for (size_t first = stage; first < problem->layer_count; first++) {
        bool is_possible = first == 0;
        for (unsigned traits = 0; stage > 0 && traits < PROBLEM_TRAIT_SETS; traits++)
            is_possible |= lean_cell(search, stage - 1, first, traits)->bytes < UINT64_MAX;
        if (is_possible)
            relax_leanest(search, stage, first, limit);
    }
}

/* The leanest of the whole chain with at least these traits. */
static unsigned leanest_end(const struct lean_search *search)
{
    const struct problem *problem = search->problem;
    unsigned best = problem->needs;
    for (unsigned traits = 0; traits < PROBLEM_TRAIT_SETS; traits++) {
        if ((problem->needs & ~traits) == 0 &&
            lean_cell(search, problem->stages - 1, problem->layer_count, traits)->bytes <
                lean_cell(search, problem->stages - 1, problem->layer_count, best)->bytes)
            best = traits;
    }
    return best;
}

enum status problem_leanest(const struct problem *problem, uint64_t *bytes,
                            struct assignment *assignment, struct error *err)
{
    size_t cell_count = problem->stages * (problem->layer_count + 1) * PROBLEM_TRAIT_SETS;
    struct lean_search search = {
        .problem = problem,
        .cells = malloc(cell_count * sizeof(*search.cells)),
        .class_bytes =
            malloc(PROBLEM_TRAIT_SETS * problem->class_count * sizeof(*search.class_bytes)),
    };
    enum status status = STATUS_OK;
    if (!search.cells || !search.class_bytes) {
        status = error_memory(err, cell_count * sizeof(*search.cells), "the leanest plan");
        goto free_cells;
    }
    for (size_t i = 0; i < cell_count; i++)
        search.cells[i] = (struct lean_cell){.bytes = UINT64_MAX};
    for (size_t stage = 0; stage < problem->stages; stage++) {
        for (size_t c = 0; c < problem->class_count; c++) {
            const struct layer_class *of = problem_class(problem, stage, c);
            for (size_t s = 0; s < of->strategy_count; s++) {
                if (!limit_was_tried(problem, stage, c, s))
                    fill_leanest(&search, stage, of->strategies[s].scratch_bytes);
            }
        }
    }
    unsigned traits = leanest_end(&search);
    *bytes = lean_cell(&search, problem->stages - 1, problem->layer_count, traits)->bytes;
    if (assignment && *bytes < UINT64_MAX)
        read_leanest(&search, traits, assignment);
free_cells:
    free(search.class_bytes);
    free(search.cells);
    return status;
}
