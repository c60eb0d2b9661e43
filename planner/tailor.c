#include "planner/tailor.h"

#include "base/stats.h"
#include "costmodel/predict.h"
#include "planner/stage_columns.h"
#include "planner/tiling.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ORDERS_MAX = 24, ORDERED_GROUPS_MAX = 4 };

/* ---- candidates: a shape and the order in which groups of nodes follow each other ---- */

struct candidate {
    struct layout layout;
    unsigned char order[CLUSTER_GROUPS_MAX];
    double bound;  /* of the objective, without regard to memory */
    size_t pooled; /* which of the pool it is */
};

/* What is known of a shape under whatever weights and the caps so far. */
struct pooled_shape {
    struct candidate candidate;
    double least_s, least_j; /* INFINITY: it does not fit */
};

struct tailor_pool {
    struct pooled_shape *shapes; /* [count], owned */
    size_t count;
    bool is_whole;
};

struct tailor {
    const struct tailor_request *request;
    struct tailored *out;
    struct shape_space *space;    /* owned */
    struct candidate *candidates; /* [count], owned */
    size_t count, capacity;
    double plain_bound; /* of the shape last considered, over all orders */
    unsigned char orders[ORDERS_MAX][CLUSTER_GROUPS_MAX];
    size_t order_count;
};

static const struct cluster *cluster_of(const struct tailor *tailor)
{
    return tailor->request->layouts->cluster;
}

/* Every order of up to four groups; of more the one that the file has. */
static void add_orders(struct tailor *tailor, unsigned char *order, size_t placed)
{
    size_t groups = cluster_of(tailor)->group_count;
    if (placed == groups || groups > ORDERED_GROUPS_MAX) {
        memcpy(tailor->orders[tailor->order_count++], order, CLUSTER_GROUPS_MAX);
        return;
    }
    for (size_t i = placed; i < groups; i++) {
        unsigned char swapped[CLUSTER_GROUPS_MAX];
        memcpy(swapped, order, sizeof(swapped));
        swapped[placed] = order[i];
        swapped[i] = order[placed];
        add_orders(tailor, swapped, placed + 1);
    }
}

/* Stages fill the groups in this order; false: a group does not divide into whole stages. */
static bool place_stages(const struct cluster *cluster, const struct layout *layout,
                         const unsigned char *order, size_t *stage_groups)
{
    int64_t devices = layout->devices / layout->pipeline, stage = 0;
    for (size_t i = 0; i < cluster->group_count; i++) {
        const struct node_group *group = &cluster->groups[order[i]];
        int64_t has = group->nodes * group->node_devices;
        if (has % devices != 0)
            return false;
        for (int64_t end = stage + has / devices; stage < end && stage < layout->pipeline; stage++)
            stage_groups[stage] = order[i];
    }
    return stage == layout->pipeline;
}

static double best_objective(const struct tailor *tailor)
{
    return tailor->out->found ? tailor->out->objective : tailor->request->best_objective;
}

/* What must be below this to matter. */
static double threshold(const struct tailor *tailor)
{
    /* INFINITY until something fits */
    return best_objective(tailor) * (1 - tailor->request->gap_target);
}

static enum status push(struct tailor *tailor, const struct candidate *candidate, struct error *err)
{
    if (tailor->count == tailor->capacity) {
        size_t capacity = tailor->capacity > 0 ? 2 * tailor->capacity : 1024;
        struct candidate *grown = realloc(tailor->candidates, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the shapes of layouts");
        tailor->candidates = grown;
        tailor->capacity = capacity;
    }
    tailor->candidates[tailor->count++] = *candidate;
    return STATUS_OK;
}

static enum status consider(struct tailor *tailor, const struct layout *layout,
                            const unsigned char *order, struct error *err)
{
    struct candidate candidate = {.layout = *layout};
    size_t stage_groups[LAYOUT_STAGES_MAX];
    struct shape shape;
    bool is_empty;

    memcpy(candidate.order, order, sizeof(candidate.order));
    if (!place_stages(cluster_of(tailor), layout, order, stage_groups))
        return STATUS_OK;
    TRY(shape_open(&shape, tailor->request, layout, stage_groups, tailor->space, &is_empty, err));
    if (is_empty)
        return STATUS_OK;
    candidate.bound = shape.least;
    tailor->plain_bound = fmin(tailor->plain_bound, shape.least);
    shape_close(&shape);
    tailor->out->shapes++;
    if (candidate.bound >= threshold(tailor)) {
        tailor->out->bounded_away++;
        tailor->out->bound = fmin(tailor->out->bound, candidate.bound);
        return STATUS_OK;
    }
    return push(tailor, &candidate, err);
}

static enum status visit(void *user, const struct layout *layout, struct error *err)
{
    struct tailor *tailor = user;
    tailor->plain_bound = INFINITY;
    for (size_t i = 0; i < tailor->order_count; i++)
        TRY(consider(tailor, layout, tailor->orders[i], err));
    return STATUS_OK;
}

/* What goes to the host takes no less time, so it can only better a shape whose bound, which knows
 * of no cap, is below the threshold; but it takes less memory. */
static unsigned wishes(void *user)
{
    const struct tailor *tailor = user;
    bool is_hopeless = tailor->plain_bound >= threshold(tailor);
    if (is_hopeless && tailor->request->weights->memory == 0)
        return WISH_QUICKER;
    return WISH_EVERYTHING;
}

static int compare_candidates(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return (x->bound > y->bound) - (x->bound < y->bound);
}

/* Modes are chosen block by block: of the uniform ones one stands for all. */
static enum status find_candidates(struct tailor *tailor, struct error *err)
{
    struct layouts_request shapes = *tailor->request->layouts;
    const struct layout_visitor visitor = {.user = tailor, .visit = visit, .wishes = wishes};
    unsigned char order[CLUSTER_GROUPS_MAX];

    for (size_t i = 0; i < CLUSTER_GROUPS_MAX; i++)
        order[i] = (unsigned char)i;
    add_orders(tailor, order, 0);
    /* DeepSpeed sends nothing but checkpoints to the host */
    shapes.pins.recompute =
        shapes.framework == FRAMEWORK_DEEPSPEED ? RECOMPUTE_FULL : RECOMPUTE_NONE;
    shapes.reporter = (struct reporter){0};
    return layouts_each(&shapes, &visitor, &tailor->out->is_whole, err);
}

/* Those of the pool that may be better, with what earlier searches have proven of them. */
static enum status take_candidates(struct tailor *tailor, struct error *err)
{
    const struct tailor_request *request = tailor->request;
    struct tailored *out = tailor->out;
    out->is_whole = request->pool->is_whole;
    out->shapes = request->pool->count;
    for (size_t i = 0; i < request->pool->count; i++) {
        const struct pooled_shape *shape = &request->pool->shapes[i];
        const struct priced_layout least = {.time_s = shape->least_s, .energy_j = shape->least_j};
        struct candidate candidate = shape->candidate;
        if (isinf(shape->least_s))
            continue;
        candidate.bound = layout_objective(request->weights, &request->units, &least);
        candidate.pooled = i;
        if (candidate.bound < threshold(tailor)) {
            TRY(push(tailor, &candidate, err));
            continue;
        }
        out->bounded_away++;
        out->bound = fmin(out->bound, candidate.bound);
    }
    return STATUS_OK;
}

static enum status gather_candidates(struct tailor *tailor, struct error *err)
{
    TRY(tailor->request->pool ? take_candidates(tailor, err) : find_candidates(tailor, err));
    if (!tailor->out->is_whole)
        tailor->out->bound = 0; /* nothing is known of those that were not visited */
    if (tailor->count > 0)
        qsort(tailor->candidates, tailor->count, sizeof(*tailor->candidates), compare_candidates);
    return STATUS_OK;
}

/* ---- solving one shape ---- */

static enum status keep(struct tailor *tailor, const struct shape *shape,
                        const struct columns *columns, const size_t *chosen, struct error *err)
{
    struct tailored *out = tailor->out;
    int64_t blocks = tailor->request->layouts->model->blocks, stages = shape->layout.pipeline;
    struct block_mode *modes = calloc((size_t)blocks, sizeof(*modes));
    int64_t *stage_blocks = calloc((size_t)stages, sizeof(*stage_blocks));
    size_t *groups = calloc((size_t)stages, sizeof(*groups));
    if (!modes || !stage_blocks || !groups) {
        free(modes);
        free(stage_blocks);
        free(groups);
        return error_memory(err, (size_t)blocks * sizeof(*modes), "a layout");
    }
    shape_assign(shape, columns, chosen, modes, stage_blocks);
    memcpy(groups, shape->stage_groups, (size_t)stages * sizeof(*groups));
    free((void *)out->plan.modes);
    free((void *)out->plan.stage_blocks);
    free((void *)out->plan.stage_groups);
    out->plan.modes = modes;
    out->plan.stage_blocks = stage_blocks;
    out->plan.stage_groups = groups;
    return STATUS_OK;
}

static bool prediction_fits(const struct tailor_request *tailor,
                            const struct layout_prediction *prediction)
{
    const struct layouts_request *request = tailor->layouts;
    double deviations = normal_deviations(request->risk > 0 ? request->risk : MEMORY_RISK);
    const struct quantity *bytes = &prediction->memory_bytes;
    return layout_fits_at(prediction, deviations) &&
           (request->memory_cap_bytes == 0 ||
            bytes->value + deviations * bytes->deviation <= (double)request->memory_cap_bytes) &&
           (tailor->mean_cap_bytes == 0 || bytes->value <= tailor->mean_cap_bytes);
}

static enum status price(const struct tailor *tailor, const struct layout *layout,
                         struct priced_layout *out, bool *fits, struct error *err)
{
    const struct layouts_request *request = tailor->request->layouts;
    struct layout_prediction prediction;
    TRY(layout_predict(request->cluster, request->model, layout, &prediction, err));
    *fits = prediction_fits(tailor->request, &prediction);
    *out = priced_layout_of(layout, &prediction);
    return STATUS_OK;
}

/* The chosen columns as a layout, as the cost model prices it. */
static enum status offer(struct tailor *tailor, const struct shape *shape,
                         const struct columns *columns, const size_t *chosen, struct error *err)
{
    const struct tailor_request *request = tailor->request;
    struct tailored *out = tailor->out, trial = {.found = true};
    struct tailor trial_of = {.request = request, .out = &trial};
    bool fits = false;
    TRY(keep(&trial_of, shape, columns, chosen, err));
    struct layout layout = shape->layout;
    layout.own = &trial.plan;
    enum status status = layout_check(&layout, request->layouts->model, "the layout found", err);
    if (status == STATUS_OK)
        status = price(tailor, &layout, &trial.priced, &fits, err);
    trial.objective = layout_objective(request->weights, &request->units, &trial.priced);
    if (status != STATUS_OK || !fits || !(trial.objective < best_objective(tailor))) {
        tailored_free(&trial);
        return status;
    }
    struct block_plan before = out->plan;
    out->found = true;
    out->plan = trial.plan;
    out->priced = trial.priced;
    out->priced.layout.own = &out->plan;
    out->objective = trial.objective;
    trial.plan = before;
    tailored_free(&trial);
    return STATUS_OK;
}

static enum status tile(struct tailor *tailor, const struct shape *shape,
                        const struct columns *columns, struct tiling *tiling, struct error *err)
{
    const struct problem problem = {
        .layer_count = shape->items,
        .stages = (size_t)shape->layout.pipeline,
        .weight_tau = 1,
        .weight_gamma = 1,
        .weight_memory = shape->prices.byte,
        .fixed_cost = shape->fixed,
        .spend_cap = INFINITY,
    };
    const struct tiling_options options = {
        .threshold = threshold(tailor),
        .gap = tailor->request->gap_target,
        .limits = &tailor->request->layouts->limits,
    };
    TRY(tiling_solve(&problem, columns, &options, tiling, err));
    tailor->out->is_whole =
        tailor->out->is_whole && (tiling->proven || !limits_reached(options.limits));
    tiling->bound = fmin(tiling->bound, options.threshold);
    if (tiling->found)
        tiling->bound = fmin(tiling->bound, tiling->value * (1 - options.gap));
    return STATUS_OK;
}

static bool all_fit(const struct columns *columns, const size_t *chosen, size_t stages)
{
    for (size_t stage = 0; stage < stages; stage++)
        if (!(columns->items[chosen[stage]].cost < INFINITY))
            return false;
    return true;
}

/* Of layouts made of these columns. Where what the columns are is above their floors, these bound,
 * and what is made of them with the least floors is offered first. */
static enum status solve_columns(struct tailor *tailor, const struct shape *shape,
                                 struct columns *columns, double *bound, struct error *err)
{
    size_t chosen[LAYOUT_STAGES_MAX];
    struct tiling tiling = {.chosen = chosen};
    tailor->out->solved++;
    if (shape->has_floors) {
        shape_take_floors(shape, columns);
        TRY(tile(tailor, shape, columns, &tiling, err));
        *bound = tiling.bound;
        if (!tiling.found)
            return STATUS_OK;
        shape_take_options(shape, columns);
        if (all_fit(columns, chosen, (size_t)shape->layout.pipeline))
            TRY(offer(tailor, shape, columns, chosen, err));
    }
    TRY(tile(tailor, shape, columns, &tiling, err));
    if (!shape->has_floors)
        *bound = tiling.bound;
    return tiling.found ? offer(tailor, shape, columns, chosen, err) : STATUS_OK;
}

static enum status solve_shape(struct tailor *tailor, struct shape *shape, double *bound,
                               struct error *err)
{
    struct columns columns = {0};
    double limit = threshold(tailor);
    enum status status = shape_columns(shape, limit, &columns, err);
    tailor->out->columns += columns.count;
    tailor->out->is_whole = tailor->out->is_whole && !shape->is_cut;
    /* what is not among the columns is not below the limit */
    double found = limit;
    if (status == STATUS_OK && columns.count > 0)
        status = solve_columns(tailor, shape, &columns, &found, err);
    if (!shape->is_cut && !shape->lacks_floors)
        *bound = fmax(*bound, found);
    columns_free(&columns);
    return status;
}

/* What was proven under these caps holds under lower ones. */
static void learn(const struct tailor_request *request, size_t pooled, const struct shape *shape,
                  double bound)
{
    const struct layout_weights *weights = request->weights;
    struct pooled_shape *of = &request->pool->shapes[pooled];
    if (shape->is_too_large)
        of->least_s = of->least_j = INFINITY;
    else if (weights->energy == 0)
        of->least_s = fmax(of->least_s, bound * request->units.time_s / weights->time);
    else if (weights->time == 0)
        of->least_j = fmax(of->least_j, bound * request->units.energy_j / weights->energy);
}

static enum status solve_candidate(struct tailor *tailor, const struct candidate *candidate,
                                   double *bound, struct error *err)
{
    size_t stage_groups[LAYOUT_STAGES_MAX];
    struct shape shape;
    bool is_empty;
    place_stages(cluster_of(tailor), &candidate->layout, candidate->order, stage_groups);
    TRY(shape_open(&shape, tailor->request, &candidate->layout, stage_groups, tailor->space,
                   &is_empty, err));
    enum status status = solve_shape(tailor, &shape, bound, err);
    if (status == STATUS_OK && tailor->request->pool)
        learn(tailor->request, candidate->pooled, &shape, *bound);
    shape_close(&shape);
    return status;
}

static enum status solve_all(struct tailor *tailor, struct error *err)
{
    const struct layouts_request *request = tailor->request->layouts;
    struct tailored *out = tailor->out;
    for (size_t i = 0; i < tailor->count; i++) {
        double bound = tailor->candidates[i].bound;
        report_progress(&request->reporter, "shapes", i, tailor->count);
        if (bound >= threshold(tailor) || limits_reached(&request->limits)) {
            /* the first of those that are left has the least bound */
            out->bound = fmin(out->bound, bound);
            bool are_hopeless = bound >= threshold(tailor);
            out->is_whole = out->is_whole && are_hopeless;
            out->bounded_away += are_hopeless ? tailor->count - i : 0;
            break;
        }
        TRY(solve_candidate(tailor, &tailor->candidates[i], &bound, err));
        out->bound = fmin(out->bound, bound);
    }
    report_progress(&request->reporter, "shapes", tailor->count, tailor->count);
    out->bound = fmin(out->bound, best_objective(tailor));
    return STATUS_OK;
}

enum status tailor_search(const struct tailor_request *request, struct tailored *out,
                          struct error *err)
{
    *out = (struct tailored){.bound = INFINITY, .is_whole = true};
    struct tailor tailor = {.request = request, .out = out, .space = malloc(sizeof(*tailor.space))};
    if (!tailor.space)
        return error_memory(err, sizeof(*tailor.space), "the shapes of layouts");
    enum status status = gather_candidates(&tailor, err);
    if (status == STATUS_OK)
        status = solve_all(&tailor, err);
    free(tailor.candidates);
    free(tailor.space);
    if (status != STATUS_OK)
        tailored_free(out);
    return status;
}

void tailored_free(struct tailored *tailored)
{
    free((void *)tailored->plan.modes);
    free((void *)tailored->plan.stage_blocks);
    free((void *)tailored->plan.stage_groups);
    *tailored = (struct tailored){.found = false};
}

/* ---- the pool ---- */

void tailor_pool_free(struct tailor_pool *pool)
{
    if (pool)
        free(pool->shapes);
    free(pool);
}

/* Joules that no layout of each shape takes less than. */
static enum status bound_energies(struct tailor *tailor, struct tailor_pool *pool,
                                  struct error *err)
{
    for (size_t i = 0; i < pool->count && pool->is_whole; i++) {
        const struct candidate *candidate = &pool->shapes[i].candidate;
        size_t stage_groups[LAYOUT_STAGES_MAX];
        struct shape shape;
        bool is_empty;
        place_stages(cluster_of(tailor), &candidate->layout, candidate->order, stage_groups);
        TRY(shape_open(&shape, tailor->request, &candidate->layout, stage_groups, tailor->space,
                       &is_empty, err));
        pool->shapes[i].least_j = shape.least;
        shape_close(&shape);
        pool->is_whole = !limits_reached(&tailor->request->layouts->limits);
    }
    return STATUS_OK;
}

static enum status fill_pool(struct tailor *tailor, struct tailor_pool *pool, struct error *err)
{
    TRY(find_candidates(tailor, err));
    pool->is_whole = tailor->out->is_whole;
    pool->shapes = calloc(tailor->count + 1, sizeof(*pool->shapes));
    if (!pool->shapes)
        return error_memory(err, tailor->count * sizeof(*pool->shapes), "the shapes of layouts");
    pool->count = tailor->count;
    for (size_t i = 0; i < tailor->count; i++) {
        pool->shapes[i].candidate = tailor->candidates[i];
        pool->shapes[i].least_s = tailor->candidates[i].bound;
    }
    return STATUS_OK;
}

enum status tailor_pool_new(const struct tailor_request *request, bool energy_is_wanted,
                            struct tailor_pool **out, struct error *err)
{
    static const struct layout_weights time = {.time = 1, .raw = true};
    static const struct layout_weights energy = {.energy = 1, .raw = true};
    struct tailor_request all = *request;
    struct tailored counts = {.is_whole = true};
    struct tailor tailor = {.request = &all, .out = &counts};
    struct tailor_pool *pool = calloc(1, sizeof(*pool));
    enum status status = STATUS_OK;

    all.weights = &time;
    all.units = (struct priced_layout){.time_s = 1, .memory_bytes = 1, .energy_j = 1};
    all.best_objective = INFINITY;
    tailor.space = malloc(sizeof(*tailor.space));
    if (!pool || !tailor.space)
        status = error_memory(err, sizeof(*tailor.space), "the shapes of layouts");
    if (status == STATUS_OK)
        status = fill_pool(&tailor, pool, err);
    all.weights = &energy;
    if (status == STATUS_OK && energy_is_wanted)
        status = bound_energies(&tailor, pool, err);
    free(tailor.candidates);
    free(tailor.space);
    if (status != STATUS_OK) {
        tailor_pool_free(pool);
        return status;
    }
    *out = pool;
    return STATUS_OK;
}
