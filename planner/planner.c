#include "planner/planner.h"
#include "base/clock.h"
#include "base/hash.h"
#include "costmodel/predict.h"
#include "planner/bounds.h"
#include "planner/incumbent.h"
#include "planner/infeasible.h"
#include "planner/part.h"
#include "planner/search.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A pipeline's time is known to the search only from below, so that to close its problem at any
 * cost would prove little: with a plan in hand its parts are closed as far as so many labels go,
 * all of them together as far as so many, and what is left open counts by its bound. */
enum { PIPELINE_LABELS = 30000, PIPELINE_LABELS_ALL = 3000000 };
static const double pipeline_part_s = 1; /* GLPK's trees have no labels to count */

static const double gib_bytes = 1024.0 * 1024.0 * 1024.0;

/* ---- one objective over the whole space ---- */

struct ranked_shape {
    size_t index;
    int64_t micro_batch;
    double bound;
};

struct outer {
    const struct space *space;
    struct objective_rates rates;
    struct search_limits limits;
    double gap_target;
    struct ranked_shape *order; /* [space->count] */
    bool *solved;               /* [space->count], the planning's: ever given to the ILP */
    struct incumbent best;
    uint64_t columns, labels, pipeline_labels;
};

/* By bound; bounds that differ by rounding alone are ties, which the smaller micro-batch wins. */
static int compare_ranked(const void *a, const void *b)
{
    const struct ranked_shape *x = a, *y = b;
    float bound_x = (float)x->bound, bound_y = (float)y->bound;
    if (bound_x < bound_y || bound_x > bound_y)
        return bound_x < bound_y ? -1 : 1;
    if (x->micro_batch != y->micro_batch)
        return x->micro_batch < y->micro_batch ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static enum status rank_shape(const struct outer *outer, struct ranked_shape *out,
                              struct error *err)
{
    const struct part whole = part_whole();
    struct part_problem work;
    struct bounds bounds;
    bool is_empty;
    TRY(part_open(&work, outer->space, &outer->space->shapes[out->index], &whole, &outer->rates,
                  &is_empty, err));
    if (is_empty)
        return STATUS_OK;
    enum status status = bounds_init(&bounds, &work.problem, NULL, INFINITY, err);
    if (status == STATUS_OK) {
        out->bound = bounds_total(&bounds);
        bounds_free(&bounds);
    }
    part_close(&work);
    return status;
}

static enum status rank_shapes(struct outer *outer, struct error *err)
{
    const struct space *space = outer->space;
    for (size_t i = 0; i < space->count; i++) {
        const struct prices *prices = &space->prices[space->shapes[i].prices];
        outer->order[i] = (struct ranked_shape){i, prices->mesh.micro_batch, INFINITY};
        TRY(rank_shape(outer, &outer->order[i], err));
    }
    qsort(outer->order, space->count, sizeof(*outer->order), compare_ranked);
    return STATUS_OK;
}

/* Another objective's best is a first guess at this one's. */
static enum status offer_guess(struct outer *outer, const struct incumbent *guess,
                               struct error *err)
{
    struct plan plan;
    if (!guess->found)
        return STATUS_OK;
    TRY(plan_copy(&plan, &guess->plan, err));
    incumbent_offer(&outer->best, outer->space->request, &outer->rates, &plan);
    return STATUS_OK;
}

/* What plans below this could still matter. */
static double outer_threshold(const struct outer *outer)
{
    if (!outer->best.found)
        return INFINITY;
    double share = fmax(outer->gap_target, SAME_SHARE);
    return outer->best.value - share * fabs(outer->best.value);
}

/* ---- one part ---- */

struct visit {
    struct outer *outer;
    size_t shape;
};

static enum status visit_part(const struct visit *visit, const struct part *part, double bound,
                              struct error *err);

static void close_part(struct outer *outer, double bound)
{
    outer->best.bound = fmin(outer->best.bound, bound);
}

static enum status visit_children(const struct visit *visit, const struct part *children,
                                  size_t count, double bound, struct error *err)
{
    for (size_t i = 0; i < count; i++)
        TRY(visit_part(visit, &children[i], bound, err));
    return STATUS_OK;
}

/* Was the solution's plan charged all its bytes, or do bytes not matter? */
static bool is_charged_fully(const struct visit *visit, const struct part_problem *work,
                             const struct solution *solution, const struct plan *plan)
{
    const struct outer *outer = visit->outer;
    uint64_t peak_bytes;
    if (!part_is_consistent(plan) || !prediction_fits(outer->space->request, &plan->prediction))
        return false;
    if (plan->pipeline == 1 && rates_value(&outer->rates, &plan->prediction) >
                                   solution->value + SAME_SHARE * fabs(solution->value))
        return false;
    if (outer->rates.per_byte <= 0)
        return true;
    (void)problem_evaluate(&work->problem, &solution->assignment, &peak_bytes);
    double charged = (double)peak_bytes + work->process_bytes.value;
    return plan->prediction.memory_bytes.value <= charged + 0.5;
}

/* Offer what solves the part, then close it or split it. */
static enum status use_solution(const struct visit *visit, const struct part *part, double bound,
                                const struct part_problem *work, const struct solution *solution,
                                struct error *err)
{
    struct outer *outer = visit->outer;
    const struct space *space = outer->space;
    const struct shape *shape = &space->shapes[visit->shape];
    struct plan plan;
    size_t count = 0;
    TRY(part_plan(work, &solution->assignment, &plan, err));
    enum status status = predict_plan(space->request->profile, &plan, &plan.prediction, err);
    struct part *children = malloc(PART_CHILDREN_MAX * sizeof(*children));
    if (status == STATUS_OK && !children)
        status = error_memory(err, PART_CHILDREN_MAX * sizeof(*children), "the search");
    if (status == STATUS_OK && !is_charged_fully(visit, work, solution, &plan))
        count = part_split(space, shape, part, &plan, children);
    if (status == STATUS_OK)
        incumbent_offer(&outer->best, space->request, &outer->rates, &plan);
    else
        plan_clear(&plan);
    if (status == STATUS_OK && count > 0)
        status = visit_children(visit, children, count, bound, err);
    else
        close_part(outer, bound);
    free(children);
    return status;
}

/* Memory alone needs no columns. */
static enum status solve_memory(const struct problem *problem, double upper_bound,
                                struct solution *out, struct error *err)
{
    uint64_t bytes;
    *out = (struct solution){.bound = INFINITY};
    TRY(assignment_alloc(&out->assignment, problem->layer_count, err));
    enum status status = problem_leanest(problem, &bytes, &out->assignment, err);
    if (status == STATUS_OK && bytes <= problem_most_cap(problem) && bytes < UINT64_MAX) {
        out->value = out->bound = problem_evaluate(problem, &out->assignment, NULL);
        out->found = out->value < upper_bound;
    }
    if (status != STATUS_OK || !out->found)
        assignment_free(&out->assignment);
    return status;
}

static enum status solve_part(const struct outer *outer, const struct problem *problem,
                              struct solution *out, struct error *err)
{
    bool has_stages = problem->stages > 1;
    struct search_options options = {
        .upper_bound = outer->best.found ? outer->best.value : INFINITY,
        .gap_target = outer->gap_target,
        .labels_most = has_stages ? PIPELINE_LABELS : 0,
        .limits = outer->limits,
    };
    if (has_stages)
        options.limits.deadline_s = fmin(options.limits.deadline_s, clock_s() + pipeline_part_s);
    if (outer->rates.per_second <= 0 && outer->rates.per_joule <= 0)
        return solve_memory(problem, options.upper_bound, out, err);
    return problem_solve(problem, &options, out, err);
}

static bool is_pipeline(const struct visit *visit)
{
    const struct space *space = visit->outer->space;
    return space->prices[space->shapes[visit->shape].prices].mesh.pipeline > 1;
}

static bool is_out_of_budget(const struct visit *visit)
{
    const struct outer *outer = visit->outer;
    if (!outer->best.found)
        return false;
    return limits_reached(&outer->limits) ||
           (is_pipeline(visit) && outer->pipeline_labels > PIPELINE_LABELS_ALL);
}

/* `bound`: no plan of the part is below it. */
static enum status visit_part(const struct visit *visit, const struct part *part, double bound,
                              struct error *err)
{
    struct outer *outer = visit->outer;
    struct part_problem work;
    struct solution solution;
    bool is_empty;
    if (is_out_of_budget(visit) || bound >= outer_threshold(outer)) {
        close_part(outer, bound);
        return STATUS_OK;
    }
    TRY(part_open(&work, outer->space, &outer->space->shapes[visit->shape], part, &outer->rates,
                  &is_empty, err));
    if (is_empty)
        return STATUS_OK;
    enum status status = solve_part(outer, &work.problem, &solution, err);
    if (status == STATUS_OK) {
        double sharper = fmax(bound, solution.bound);
        outer->solved[visit->shape] = true;
        outer->columns += solution.columns;
        outer->labels += solution.labels;
        outer->pipeline_labels += is_pipeline(visit) ? solution.labels : 0;
        if (solution.found)
            status = use_solution(visit, part, sharper, &work, &solution, err);
        else
            close_part(outer, sharper);
        solution_free(&solution);
    }
    part_close(&work);
    return status;
}

/* Shapes by rising bound, but for those whose bound is not below the best plan; when the limits are
 * reached, only until some plan is in hand. */
static enum status search_space(struct outer *outer, struct error *err)
{
    const struct reporter *reporter = &outer->space->request->reporter;
    const struct part whole = part_whole();
    size_t count = outer->space->count;
    outer->best.bound = INFINITY;
    TRY(rank_shapes(outer, err));
    for (size_t i = 0; i < count; i++) {
        const struct visit visit = {outer, outer->order[i].index};
        report_progress(reporter, "plans", i, count);
        TRY(visit_part(&visit, &whole, outer->order[i].bound, err));
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
    plan_clear(&outer->best.plan);
    free(outer->order);
}

static double weight_of(const struct planner_request *request, int single)
{
    const double weights[SINGLE_COUNT] = {request->weight_time, request->weight_memory,
                                          request->weight_energy};
    return weights[single];
}

static enum status energy_is_known(const struct space *space, bool *is_known, struct error *err)
{
    const struct objective_rates rates = {.per_joule = 1};
    const struct part whole = part_whole();
    *is_known = false;
    for (size_t i = 0; i < space->count && !*is_known; i++) {
        struct part_problem work;
        bool is_empty;
        TRY(part_open(&work, space, &space->shapes[i], &whole, &rates, &is_empty, err));
        *is_known = !is_empty;
        if (!is_empty)
            part_close(&work);
    }
    return STATUS_OK;
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
    TRY(outer_open(outer, planning, &rates[single], planning->request->gap_target, err));
    TRY(search_space(outer, err));
    if (outer->best.found && outer->best.value > 0)
        *unit = outer->best.value;
    return STATUS_OK;
}

static enum status choose_units(struct planning *planning, struct error *err)
{
    const struct planner_request *request = planning->request;
    struct plan_objective *objective = &planning->objective;
    bool has_energy;
    TRY(energy_is_known(&planning->space, &has_energy, err));
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
    return rates_value(&rates, prediction);
}

/* ---- the plan ---- */

static void judge(const struct planning *planning, struct plan *plan)
{
    const struct incumbent *best = &planning->final.best;
    struct plan_objective *objective = &plan->objective;
    objective->value = planner_objective(objective, &plan->prediction);
    objective->bound = best->bound;
    if (best->bound >= best->value - SAME_SHARE * fabs(best->value))
        objective->bound = objective->value;
    objective->gap =
        objective->value > 0 ? (objective->value - objective->bound) / objective->value : 0;
    plan->status = objective->gap > 0 ? PLAN_GAP : PLAN_OPTIMAL;
    if (space_is_single(&planning->space))
        plan->status = PLAN_PREDICTED;
}

static enum status fill_plan(struct planning *planning, struct plan *plan, struct error *err)
{
    const struct planner_request *request = planning->request;
    struct incumbent *best = &planning->final.best;
    *plan = best->plan;
    best->plan = (struct plan){.layers = NULL};
    plan->objective = planning->objective;
    plan->created_unix_ms = clock_unix_ms();
    hash_format(model_hash(request->model), plan->model_hash);
    hash_format(profile_hash(request->profile), plan->profile_hash);
    (void)snprintf(plan->host, sizeof(plan->host), "%s", profile_host(request->profile));
    (void)snprintf(plan->pins, sizeof(plan->pins), "%s",
                   request->pins_text ? request->pins_text : "");
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
        const struct ranked_shape *ranked = &final->order[i];
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
    if (!final->best.found && planning->request->energy_cap_j > 0)
        return explain_energy(planning->request, &out->infeasibility, err);
    if (!final->best.found)
        return error_set(
            err, STATUS_FAILED,
            "no plan was found though one fits; this is a defect of the planner, please report it "
            "with the command line");
    count_work(planning, &out->statistics);
    TRY(incumbent_recompute_least(&final->best, planning->request, &final->rates, err));
    return fill_plan(planning, &out->plan, err);
}

static enum status plan_in_space(struct planning *planning, struct planner_result *out,
                                 struct error *err)
{
    bool some_fits;
    TRY(space_has_plan(&planning->space, &some_fits, err));
    if (!some_fits)
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
