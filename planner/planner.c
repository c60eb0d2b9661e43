#include "planner/planner.h"
#include "base/clock.h"
#include "base/hash.h"
#include "costmodel/predict.h"
#include "planner/bounds.h"
#include "planner/infeasible.h"
#include "planner/search.h"
#include "planner/space.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Objectives closer than this are the same: the search and the prediction add in different orders.
 */
static const double same_share = 1e-11;

static const double gib_bytes = 1024.0 * 1024.0 * 1024.0;

/* ---- one objective over the whole space ---- */

struct ranked_candidate {
    size_t index;
    int64_t micro_batch;
    double bound;
};

/* The best plan of the space so far. */
struct incumbent {
    bool found;
    size_t candidate;
    struct assignment assignment; /* owned */
    double value;
    double bound; /* no plan of the space is below */
};

struct outer {
    const struct space *space;
    struct objective_rates rates;
    struct search_limits limits;
    double gap_target;
    struct ranked_candidate *order; /* [space->count] */
    bool *solved;                   /* [space->count], the planning's: ever given to the ILP */
    struct incumbent best;
    uint64_t columns, labels;
};

/* By bound; bounds that differ by rounding alone are ties, which the smaller micro-batch wins. */
static int compare_ranked(const void *a, const void *b)
{
    const struct ranked_candidate *x = a, *y = b;
    float bound_x = (float)x->bound, bound_y = (float)y->bound;
    if (bound_x < bound_y || bound_x > bound_y)
        return bound_x < bound_y ? -1 : 1;
    if (x->micro_batch != y->micro_batch)
        return x->micro_batch < y->micro_batch ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static enum status rank_candidates(struct outer *outer, struct error *err)
{
    for (size_t i = 0; i < outer->space->count; i++) {
        struct candidate_problem work;
        struct bounds bounds;
        outer->order[i] =
            (struct ranked_candidate){i, outer->space->candidates[i].micro_batch, INFINITY};
        if (!space_problem(outer->space, &outer->space->candidates[i], &outer->rates, &work))
            continue;
        TRY(bounds_init(&bounds, &work.problem, NULL, err));
        outer->order[i].bound = bounds_total(&bounds);
        bounds_free(&bounds);
    }
    qsort(outer->order, outer->space->count, sizeof(*outer->order), compare_ranked);
    return STATUS_OK;
}

/* Another objective's best is a first guess at this one's. */
static enum status offer_guess(struct outer *outer, const struct incumbent *guess,
                               struct error *err)
{
    struct candidate_problem work;
    if (!guess->found || !space_problem(outer->space, &outer->space->candidates[guess->candidate],
                                        &outer->rates, &work))
        return STATUS_OK;
    double value = problem_evaluate(&work.problem, &guess->assignment, NULL);
    if (outer->best.found && value >= outer->best.value)
        return STATUS_OK;
    if (!outer->best.found)
        TRY(assignment_alloc(&outer->best.assignment, outer->space->layer_count, err));
    outer->best.found = true;
    outer->best.candidate = guess->candidate;
    outer->best.value = value;
    assignment_copy(&outer->best.assignment, &guess->assignment, outer->space->layer_count);
    return STATUS_OK;
}

/* What candidates below this could still matter. */
static double outer_threshold(const struct outer *outer)
{
    if (!outer->best.found)
        return INFINITY;
    double share = fmax(outer->gap_target, same_share);
    return outer->best.value - share * fabs(outer->best.value);
}

static enum status solve_candidate(struct outer *outer, const struct ranked_candidate *ranked,
                                   struct error *err)
{
    const struct search_options options = {
        .upper_bound = outer->best.found ? outer->best.value : INFINITY,
        .gap_target = outer->gap_target,
        .limits = outer->limits,
    };
    struct candidate_problem work;
    struct solution solution;
    if (!space_problem(outer->space, &outer->space->candidates[ranked->index], &outer->rates,
                       &work))
        return STATUS_OK;
    TRY(problem_solve(&work.problem, &options, &solution, err));
    outer->solved[ranked->index] = true;
    outer->columns += solution.columns;
    outer->labels += solution.labels;
    outer->best.bound = fmin(outer->best.bound, fmax(solution.bound, ranked->bound));
    if (solution.found) {
        assignment_free(&outer->best.assignment);
        outer->best.assignment = solution.assignment;
        outer->best.candidate = ranked->index;
        outer->best.value = solution.value;
        outer->best.found = true;
        solution.assignment = (struct assignment){0};
    }
    solution_free(&solution);
    return STATUS_OK;
}

/* Candidates by rising bound, but for those whose bound is not below the best plan; when the limits
 * are reached, only until some plan is in hand. */
static enum status search_space(struct outer *outer, struct error *err)
{
    const struct reporter *reporter = &outer->space->request->reporter;
    size_t count = outer->space->count;
    outer->best.bound = INFINITY;
    TRY(rank_candidates(outer, err));
    for (size_t i = 0; i < count; i++) {
        const struct ranked_candidate *next = &outer->order[i];
        bool is_over = outer->best.found && limits_reached(&outer->limits);
        report_progress(reporter, "plans", i, count);
        if (is_over || next->bound >= outer_threshold(outer))
            outer->best.bound = fmin(outer->best.bound, next->bound);
        else
            TRY(solve_candidate(outer, next, err));
    }
    report_progress(reporter, "plans", count, count);
    outer->best.bound = fmin(outer->best.bound, outer->best.value);
    return STATUS_OK;
}

/* ---- the objective ---- */

enum { SINGLE_TIME, SINGLE_MEMORY, SINGLE_ENERGY, SINGLE_COUNT };

struct planning {
    const struct planner_request *request;
    struct space space;
    struct search_limits limits;
    struct outer singles[SINGLE_COUNT]; /* each quantity's best alone */
    struct outer final;
    struct plan_objective objective;
    bool *solved; /* [space.count] */
};

static enum status outer_open(struct outer *out, const struct planning *planning,
                              const struct objective_rates *rates, double gap_target,
                              struct error *err)
{
    *out = (struct outer){.space = &planning->space,
                          .rates = *rates,
                          .limits = planning->limits,
                          .gap_target = gap_target,
                          .solved = planning->solved};
    out->order = malloc(planning->space.count * sizeof(*out->order));
    if (!out->order)
        return error_memory(err, planning->space.count * sizeof(*out->order), "the search");
    return STATUS_OK;
}

static void outer_close(struct outer *outer)
{
    assignment_free(&outer->best.assignment);
    free(outer->order);
}

static double weight_of(const struct planner_request *request, int single)
{
    const double weights[SINGLE_COUNT] = {request->weight_time, request->weight_memory,
                                          request->weight_energy};
    return weights[single];
}

static bool energy_is_known(const struct space *space)
{
    const struct objective_rates rates = {.per_joule = 1};
    for (size_t i = 0; i < space->count; i++) {
        struct candidate_problem work;
        if (space_problem(space, &space->candidates[i], &rates, &work))
            return true;
    }
    return false;
}

/* The best value of one quantity alone under cap and pins. */
static enum status solve_single(struct planning *planning, int single, double *unit,
                                struct error *err)
{
    static const struct objective_rates rates[SINGLE_COUNT] = {
        [SINGLE_TIME] = {.per_second = 1},
        [SINGLE_MEMORY] = {.per_byte = 1},
        [SINGLE_ENERGY] = {.per_joule = 1},
    };
    struct outer *outer = &planning->singles[single];
    TRY(outer_open(outer, planning, &rates[single], 0, err));
    TRY(search_space(outer, err));
    if (outer->best.found && outer->best.value > 0)
        *unit = outer->best.value;
    return STATUS_OK;
}

static enum status choose_units(struct planning *planning, struct error *err)
{
    const struct planner_request *request = planning->request;
    struct plan_objective *objective = &planning->objective;
    bool has_energy = energy_is_known(&planning->space);
    double *const units[SINGLE_COUNT] = {&objective->time_unit_s, &objective->memory_unit_bytes,
                                         &objective->energy_unit_j};
    *objective = (struct plan_objective){.weight_time = request->weight_time,
                                         .weight_memory = request->weight_memory,
                                         .weight_energy = request->weight_energy,
                                         .raw = request->raw_weights,
                                         .time_unit_s = 1,
                                         .memory_unit_bytes = gib_bytes,
                                         .energy_unit_j = has_energy ? 1 : 0};
    if (request->weight_energy > 0 && !has_energy)
        return error_set(err, STATUS_INVALID,
                         "the energy weight is %g, but the profile of host '%s' knows no energy; "
                         "measure again where powercap is readable, or give the host's power: "
                         "temper profile --idle-watts W --active-watts W",
                         request->weight_energy, profile_host(request->profile));
    for (int single = 0; !request->raw_weights && single < SINGLE_COUNT; single++) {
        if (weight_of(request, single) > 0)
            TRY(solve_single(planning, single, units[single], err));
    }
    return STATUS_OK;
}

static struct objective_rates rates_of(const struct plan_objective *objective)
{
    return (struct objective_rates){
        .per_second = objective->weight_time / objective->time_unit_s,
        .per_byte = objective->weight_memory / objective->memory_unit_bytes,
        .per_joule =
            objective->weight_energy > 0 ? objective->weight_energy / objective->energy_unit_j : 0,
    };
}

double planner_objective(const struct plan_objective *objective,
                         const struct prediction *prediction)
{
    const struct objective_rates rates = rates_of(objective);
    double energy = rates.per_joule > 0 ? rates.per_joule * prediction->energy_j.value : 0;
    return rates.per_second * prediction->time_s.value +
           rates.per_byte * prediction->memory_bytes.value + energy;
}

/* ---- the plan ---- */

static enum status fill_layers(const struct planning *planning, struct plan *plan,
                               struct error *err)
{
    const struct outer *final = &planning->final;
    const struct space *space = &planning->space;
    const struct candidate *candidate = &space->candidates[final->best.candidate];
    struct candidate_problem work;
    plan->layers = calloc(space->layer_count, sizeof(*plan->layers));
    if (!plan->layers)
        return error_memory(err, space->layer_count * sizeof(*plan->layers), "the plan");
    plan->layer_count = space->layer_count;
    (void)space_problem(space, candidate, &final->rates, &work);
    for (size_t l = 0; l < space->layer_count; l++) {
        size_t class = work.problem.layer_class[l];
        struct layer_precision_mode mode = work.modes[class][final->best.assignment.strategies[l]];
        plan->layers[l] = (struct layer_strategy){
            .tensor_parallel = 1, .recompute = mode.recompute, .precision = mode.precision};
    }
    return STATUS_OK;
}

static bool everything_is_pinned(const struct planner_request *request)
{
    const struct pins *pins = &request->pins;
    bool all = pins->threads > 0 && (pins->data_parallel > 0 || request->ranks == 1) &&
               (pins->micro_batch > 0 || pins->micro_batches > 0);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        all = all && pins->recompute_fixed[kind] && pins->precision_fixed[kind];
    return all;
}

static void judge(const struct planning *planning, struct plan *plan)
{
    const struct incumbent *best = &planning->final.best;
    struct plan_objective *objective = &plan->objective;
    objective->value = planner_objective(objective, &plan->prediction);
    objective->bound = best->bound;
    if (best->bound >= best->value - same_share * fabs(best->value))
        objective->bound = objective->value;
    objective->gap =
        objective->value > 0 ? (objective->value - objective->bound) / objective->value : 0;
    plan->status = objective->gap > 0 ? PLAN_GAP : PLAN_OPTIMAL;
    if (everything_is_pinned(planning->request))
        plan->status = PLAN_PREDICTED;
}

static enum status fill_plan(const struct planning *planning, struct plan *plan, struct error *err)
{
    const struct planner_request *request = planning->request;
    const struct candidate *candidate = &planning->space.candidates[planning->final.best.candidate];
    plan->model = *request->model;
    plan->ranks = plan->data_parallel = candidate->placement.ranks;
    plan->pipeline = 1;
    plan->threads = candidate->placement.threads;
    plan->global_batch = request->global_batch;
    plan->micro_batch = candidate->micro_batch;
    plan->micro_batches = candidate->micro_batches;
    plan->memory_cap_bytes = request->memory_cap_bytes;
    plan->objective = planning->objective;
    plan->created_unix_ms = clock_unix_ms();
    hash_format(model_hash(request->model), plan->model_hash);
    hash_format(profile_hash(request->profile), plan->profile_hash);
    (void)snprintf(plan->host, sizeof(plan->host), "%s", profile_host(request->profile));
    (void)snprintf(plan->pins, sizeof(plan->pins), "%s",
                   request->pins_text ? request->pins_text : "");
    TRY(fill_layers(planning, plan, err));
    TRY(predict_plan(request->profile, plan, &plan->prediction, err));
    judge(planning, plan);
    return plan_validate(plan, "the plan found", err);
}

/* ---- all ---- */

static enum status check_request(const struct planner_request *request, struct error *err)
{
    double sum = 0;
    for (int single = 0; single < SINGLE_COUNT; single++) {
        double weight = weight_of(request, single);
        if (!isfinite(weight) || weight < 0)
            return error_set(err, STATUS_USAGE, "weights must be finite and 0 or more, not %g",
                             weight);
        sum += weight;
    }
    if (sum <= 0)
        return error_set(err, STATUS_USAGE, "at least one weight must be above 0");
    if (request->ranks < 1 || request->global_batch < 1)
        return error_set(err, STATUS_USAGE, "ranks (%d) and global batch (%lld) must be at least 1",
                         request->ranks, (long long)request->global_batch);
    if (!(request->gap_target >= 0 && request->gap_target < 1))
        return error_set(err, STATUS_USAGE, "the gap must be from 0 to below 1, not %g",
                         request->gap_target);
    return STATUS_OK;
}

static void count_work(const struct planning *planning, struct search_statistics *out)
{
    const struct outer *final = &planning->final;
    *out = (struct search_statistics){
        .candidates = planning->space.count, .columns = final->columns, .labels = final->labels};
    for (int single = 0; single < SINGLE_COUNT; single++) {
        out->columns += planning->singles[single].columns;
        out->labels += planning->singles[single].labels;
    }
    for (size_t i = 0; i < planning->space.count; i++) {
        const struct ranked_candidate *ranked = &final->order[i];
        bool solved = planning->solved[ranked->index];
        out->solved += solved;
        out->bounded_away += !solved && ranked->bound >= outer_threshold(final);
    }
}

static enum status find_plan(struct planning *planning, struct planner_result *out,
                             struct error *err)
{
    struct outer *final = &planning->final;
    const struct objective_rates rates = rates_of(&planning->objective);
    TRY(outer_open(final, planning, &rates, planning->request->gap_target, err));
    for (int single = 0; single < SINGLE_COUNT; single++)
        TRY(offer_guess(final, &planning->singles[single].best, err));
    TRY(search_space(final, err));
    if (!final->best.found)
        return error_set(
            err, STATUS_FAILED,
            "no plan was found though one fits; this is a defect of the planner, please report it "
            "with the command line");
    count_work(planning, &out->statistics);
    return fill_plan(planning, &out->plan, err);
}

static enum status plan_in_space(struct planning *planning, struct planner_result *out,
                                 struct error *err)
{
    struct leanest leanest;
    TRY(leanest_of_all(&planning->space, &leanest, err));
    if (!leanest.fits)
        return explain_infeasible(&planning->space, &out->infeasibility, err);
    planning->solved = calloc(planning->space.count, sizeof(*planning->solved));
    if (!planning->solved)
        return error_memory(err, planning->space.count * sizeof(bool), "the search");
    enum status status = choose_units(planning, err);
    if (status == STATUS_OK)
        status = find_plan(planning, out, err);
    for (int single = 0; single < SINGLE_COUNT; single++)
        outer_close(&planning->singles[single]);
    outer_close(&planning->final);
    free(planning->solved);
    return status;
}

enum status planner_search(const struct planner_request *request, struct planner_result *result,
                           struct error *err)
{
    double started_s = clock_s();
    struct planner_result out = {0};
    struct planning planning = {
        .request = request,
        .limits = {.deadline_s =
                       request->time_limit_s > 0 ? started_s + request->time_limit_s : INFINITY,
                   .stop = request->stop},
    };
    TRY(check_request(request, err));
    TRY(space_open(&planning.space, request, err));
    enum status status = plan_in_space(&planning, &out, err);
    space_close(&planning.space);
    out.statistics.seconds = clock_s() - started_s;
    if (status != STATUS_OK)
        plan_clear(&out.plan);
    if (status == STATUS_OK || status == STATUS_INFEASIBLE)
        *result = out;
    return status;
}
