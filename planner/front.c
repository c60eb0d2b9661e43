#include "planner/front.h"
#include "base/clock.h"
#include "costmodel/predict.h"
#include "planner/problem.h"
#include "planner/variation.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Values closer than this are the same. */
static const double same_share = 1e-11;

/* Beside seconds: leaves out plans whose energy is not known, and decides ties. */
static const double trace_per_joule = 1e-9;

/* What the searches of a front minimise. */
struct slope {
    double per_second, per_joule;
};

/* What the plans of a search are held below. */
struct level {
    uint64_t cap_bytes; /* UINT64_MAX: none */
    double cap_j;       /* INFINITY: none */
};

/* A search that was made. */
struct asked {
    struct slope slope;
    struct level level;
    size_t point;
};

struct sweep {
    const struct front_request *request;
    struct front *front;
    struct asked *asked; /* [asked_count], owned */
    size_t asked_count, asked_capacity;
    double most_bytes;  /* of the points of the level at hand */
    double least_bytes; /* about the least that any plan needs; 0 unless thinned */
};

/* ---- points ---- */

void front_clear(struct front *front)
{
    for (size_t i = 0; i < front->count; i++)
        plan_clear(&front->points[i].plan);
    free(front->points);
    *front = (struct front){0};
}

/* Takes the plan, also on failure. */
static enum status push_point(struct sweep *sweep, struct plan *plan, struct error *err)
{
    struct front *front = sweep->front;
    if (front->count == front->capacity) {
        size_t capacity = front->capacity > 0 ? 2 * front->capacity : 16;
        struct front_point *grown = realloc(front->points, capacity * sizeof(*grown));
        if (!grown) {
            plan_clear(plan);
            return error_memory(err, capacity * sizeof(*grown), "the front");
        }
        front->points = grown;
        front->capacity = capacity;
    }
    const struct prediction *prediction = &plan->prediction;
    front->points[front->count++] = (struct front_point){
        .plan = *plan,
        .time_s = prediction->time_s.value,
        .memory_bytes = memory_held_bytes(prediction->memory_bytes, sweep->request->search.risk),
        .energy_j =
            prediction->energy_j.provenance == PROVENANCE_ABSENT ? NAN : prediction->energy_j.value,
    };
    return STATUS_OK;
}

static enum status push_asked(struct sweep *sweep, const struct asked *asked, struct error *err)
{
    if (sweep->asked_count == sweep->asked_capacity) {
        size_t capacity = sweep->asked_capacity > 0 ? 2 * sweep->asked_capacity : 16;
        struct asked *grown = realloc(sweep->asked, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the front");
        sweep->asked = grown;
        sweep->asked_capacity = capacity;
    }
    sweep->asked[sweep->asked_count++] = *asked;
    return STATUS_OK;
}

/* ---- searches ---- */

/* Energies closer than this share are the same: the search holds its budget no better. */
static const double same_energy = 4 * PROBLEM_SPEND_SHARE;

/* The best under looser caps that fits under these is the best under these. */
static const struct asked *find_asked(const struct sweep *sweep, const struct slope *slope,
                                      const struct level *level)
{
    for (size_t i = 0; i < sweep->asked_count; i++) {
        const struct asked *asked = &sweep->asked[i];
        const struct front_point *point = &sweep->front->points[asked->point];
        if (asked->slope.per_second == slope->per_second &&
            asked->slope.per_joule == slope->per_joule &&
            asked->level.cap_bytes >= level->cap_bytes && asked->level.cap_j >= level->cap_j &&
            point->memory_bytes <= (double)level->cap_bytes &&
            (isinf(level->cap_j) || point->energy_j <= level->cap_j))
            return asked;
    }
    return NULL;
}

static enum status search_once(struct sweep *sweep, const struct planner_request *search,
                               struct planner_result *result, struct error *err)
{
    struct front *front = sweep->front;
    char what[64];
    (void)snprintf(what, sizeof(what), "front, search %zu", front->searches + 1);
    *result = (struct planner_result){0};
    enum status status = variation_search(search, what, result, err);
    front->searches++;
    front->is_stopped |= variation_is_stopped(search);
    if (status == STATUS_INFEASIBLE)
        front->infeasibility = result->infeasibility;
    return status;
}

/* The index of the plan that is least in `slope` among those within the caps. */
static enum status ask(struct sweep *sweep, const struct slope *slope, const struct level *level,
                       size_t *point, struct error *err)
{
    const struct asked *known = find_asked(sweep, slope, level);
    struct planner_request search = sweep->request->search;
    struct planner_result result;
    if (known) {
        *point = known->point;
    } else {
        search.raw_weights = true;
        search.weight_time = slope->per_second;
        search.weight_memory = 0;
        search.weight_energy = slope->per_joule;
        search.memory_cap_bytes = level->cap_bytes == UINT64_MAX ? 0 : level->cap_bytes;
        search.energy_cap_j = isinf(level->cap_j) ? 0 : level->cap_j;
        TRY(search_once(sweep, &search, &result, err));
        TRY(push_point(sweep, &result.plan, err));
        *point = sweep->front->count - 1;
        const struct asked asked = {*slope, *level, *point};
        TRY(push_asked(sweep, &asked, err));
    }
    sweep->most_bytes = fmax(sweep->most_bytes, sweep->front->points[*point].memory_bytes);
    return STATUS_OK;
}

/* The same where that none is within the caps only ends a sweep. */
static enum status ask_on(struct sweep *sweep, const struct slope *slope, const struct level *level,
                          size_t *point, bool *found, struct error *err)
{
    struct error ended = {0};
    enum status status = ask(sweep, slope, level, point, &ended);
    *found = status == STATUS_OK;
    if (status == STATUS_OK || status == STATUS_INFEASIBLE)
        return STATUS_OK;
    *err = ended;
    return status;
}

/* ---- time against energy ---- */

/* Two plans of the hull, and the ranges of the whole hull. */
struct edge {
    size_t fast, thrifty;
    double range_s, range_j;
};

static bool is_fine_enough(struct sweep *sweep, const struct edge *edge)
{
    const struct front_point *fast = &sweep->front->points[edge->fast];
    const struct front_point *thrifty = &sweep->front->points[edge->thrifty];
    double most = sweep->request->points_most;
    if (most <= 0 || thrifty->time_s - fast->time_s > edge->range_s / most ||
        fast->energy_j - thrifty->energy_j > edge->range_j / most)
        return false;
    sweep->front->is_thinned = true;
    return true;
}

static enum status find_between(struct sweep *sweep, const struct edge *edge,
                                const struct level *level, struct error *err)
{
    const struct front_point fast = sweep->front->points[edge->fast];
    const struct front_point thrifty = sweep->front->points[edge->thrifty];
    double more_s = thrifty.time_s - fast.time_s, less_j = fast.energy_j - thrifty.energy_j;
    double scale = less_j * fast.time_s + more_s * fast.energy_j;
    size_t between;
    if (sweep->front->is_stopped || !(more_s > same_share * fast.time_s) ||
        !(less_j > same_share * fast.energy_j) || is_fine_enough(sweep, edge))
        return STATUS_OK;
    const struct slope slope = {less_j / scale, more_s / scale};
    TRY(ask(sweep, &slope, level, &between, err));
    const struct front_point *found = &sweep->front->points[between];
    double value = slope.per_second * found->time_s + slope.per_joule * found->energy_j;
    if (!(value < 1 - same_share))
        return STATUS_OK; /* on the line between the two, whose value is 1 */
    const struct edge left = {edge->fast, between, edge->range_s, edge->range_j};
    const struct edge right = {between, edge->thrifty, edge->range_s, edge->range_j};
    TRY(find_between(sweep, &left, level, err));
    return find_between(sweep, &right, level, err);
}

/* The fastest and the thriftiest at a level. */
static enum status find_ends(struct sweep *sweep, const struct level *level, struct edge *out,
                             struct error *err)
{
    const struct slope fastest = {1, trace_per_joule}, thriftiest = {0, 1};
    TRY(ask(sweep, &fastest, level, &out->fast, err));
    out->thrifty = out->fast;
    if (sweep->front->is_stopped)
        return STATUS_OK;
    TRY(ask(sweep, &thriftiest, level, &out->thrifty, err));
    const struct front_point *points = sweep->front->points;
    out->range_s = points[out->thrifty].time_s - points[out->fast].time_s;
    out->range_j = points[out->fast].energy_j - points[out->thrifty].energy_j;
    return STATUS_OK;
}

/* Below what the plan needs, by as little as can be held or by the step; never past the thriftiest.
 */
static double next_cap_j(struct sweep *sweep, const struct edge *edge, double energy_j)
{
    double most = sweep->request->points_most;
    double next_j = energy_j * (1 - same_energy);
    double least_j = sweep->front->points[edge->thrifty].energy_j;
    double thinned_j = fmax(energy_j - edge->range_j / (most > 1 ? most - 1 : 1), least_j);
    if (most <= 0 || !(thinned_j < next_j))
        return next_j;
    sweep->front->is_thinned = true;
    return thinned_j;
}

/* Every plan that none is better than in time and energy both. */
static enum status sweep_energy(struct sweep *sweep, const struct edge *edge,
                                const struct level *level, struct error *err)
{
    const struct slope fastest = {1, trace_per_joule};
    struct level below = *level;
    size_t point = edge->fast;
    bool found = true;
    while (found && !sweep->front->is_stopped) {
        double energy_j = sweep->front->points[point].energy_j;
        if (!(energy_j > sweep->front->points[edge->thrifty].energy_j * (1 + same_energy)))
            return STATUS_OK;
        below.cap_j = next_cap_j(sweep, edge, energy_j);
        TRY(ask_on(sweep, &fastest, &below, &point, &found, err));
    }
    return STATUS_OK;
}

static enum status find_times_and_energies(struct sweep *sweep, const struct level *level,
                                           struct error *err)
{
    struct edge edge = {0};
    TRY(find_ends(sweep, level, &edge, err));
    if (sweep->front->is_hull)
        TRY(find_between(sweep, &edge, level, err));
    return sweep_energy(sweep, &edge, level, err);
}

/* ---- memory ---- */

/* The best of the other quantities among plans of at most so many bytes. */
static enum status find_level(struct sweep *sweep, uint64_t cap_bytes, struct error *err)
{
    const struct slope time = {1, 0}, energy = {0, 1};
    const struct level level = {cap_bytes, INFINITY};
    unsigned axes = sweep->request->axes;
    size_t point;
    sweep->most_bytes = 0;
    if ((axes & FRONT_TIME) && (axes & FRONT_ENERGY))
        return find_times_and_energies(sweep, &level, err);
    return ask(sweep, axes & FRONT_TIME ? &time : &energy, &level, &point, err);
}

/* How far apart points may be, from what the first level and the leanest plan need. */
static enum status choose_step(struct sweep *sweep, struct error *err)
{
    struct planner_request search = sweep->request->search;
    struct planner_result result;
    int most = sweep->request->points_most;
    if (most <= 0 || sweep->front->is_stopped)
        return STATUS_OK;
    search.raw_weights = true;
    search.weight_time = search.weight_energy = 0;
    search.weight_memory = 1;
    TRY(search_once(sweep, &search, &result, err));
    sweep->least_bytes = memory_held_bytes(result.plan.prediction.memory_bytes, search.risk);
    plan_clear(&result.plan);
    sweep->front->step_bytes =
        fmax(0, sweep->most_bytes - sweep->least_bytes) / (most > 1 ? most - 1 : 1);
    return STATUS_OK;
}

/* Below what the level at hand needs, by a byte or by the step; never past the leanest plan. */
static uint64_t next_cap(struct sweep *sweep)
{
    uint64_t next = (uint64_t)ceil(sweep->most_bytes) - 1;
    double thinned = sweep->most_bytes - sweep->front->step_bytes;
    if (thinned < sweep->least_bytes)
        thinned = ceil(sweep->least_bytes);
    if (sweep->front->step_bytes <= 0 || !(thinned < (double)next))
        return next;
    sweep->front->is_thinned = true;
    return (uint64_t)thinned;
}

static enum status sweep_memory(struct sweep *sweep, struct error *err)
{
    const struct front *front = sweep->front;
    uint64_t cap_bytes = sweep->request->search.memory_cap_bytes;
    TRY(find_level(sweep, cap_bytes > 0 ? cap_bytes : UINT64_MAX, err));
    if (!(sweep->request->axes & FRONT_MEMORY))
        return STATUS_OK;
    TRY(choose_step(sweep, err));
    while (!front->is_stopped && sweep->most_bytes >= 2) {
        struct error ended = {0};
        enum status status = find_level(sweep, next_cap(sweep), &ended);
        if (status == STATUS_INFEASIBLE)
            return STATUS_OK;
        if (status != STATUS_OK) {
            *err = ended;
            return status;
        }
    }
    return STATUS_OK;
}

/* ---- dominance ---- */

static bool is_less(double a, double b)
{
    return a < b - same_share * fabs(b);
}

/* At least as good in all axes and better in one; of two that are the same, the earlier. */
static bool dominates(unsigned axes, const struct front_point *a, const struct front_point *b)
{
    const double of_a[] = {a->time_s, a->memory_bytes, a->energy_j};
    const double of_b[] = {b->time_s, b->memory_bytes, b->energy_j};
    bool is_better = false;
    for (unsigned i = 0; i < sizeof(of_a) / sizeof(*of_a); i++) {
        if (!(axes & (1u << i)))
            continue;
        if (is_less(of_b[i], of_a[i]))
            return false;
        is_better |= is_less(of_a[i], of_b[i]);
    }
    return is_better || a < b;
}

static int compare_points(const void *a, const void *b)
{
    const struct front_point *x = a, *y = b;
    if (x->time_s < y->time_s || x->time_s > y->time_s)
        return x->time_s < y->time_s ? -1 : 1;
    return (x->memory_bytes > y->memory_bytes) - (x->memory_bytes < y->memory_bytes);
}

static enum status drop_dominated(struct front *front, unsigned axes, struct error *err)
{
    size_t kept = 0;
    bool *is_dominated = calloc(front->count + 1, sizeof(*is_dominated));
    if (!is_dominated)
        return error_memory(err, front->count * sizeof(*is_dominated), "the front");
    for (size_t i = 0; i < front->count; i++) {
        for (size_t k = 0; k < front->count; k++)
            is_dominated[i] |= k != i && dominates(axes, &front->points[k], &front->points[i]);
    }
    for (size_t i = 0; i < front->count; i++) {
        if (is_dominated[i])
            plan_clear(&front->points[i].plan);
        else
            front->points[kept++] = front->points[i];
    }
    front->count = kept;
    free(is_dominated);
    qsort(front->points, front->count, sizeof(*front->points), compare_points);
    return STATUS_OK;
}

/* ---- all ---- */

enum status front_find(const struct front_request *request, struct front *out, struct error *err)
{
    const unsigned both = FRONT_TIME | FRONT_ENERGY, axes = request->axes;
    bool has_stages = request->search.ranks > 1 && request->search.pins.pipeline != 1;
    double started_s = clock_s();
    struct front front = {.is_hull = (axes & both) == both && has_stages};
    struct sweep sweep = {.request = request, .front = &front};
    if ((axes & (axes - 1)) == 0 || (axes & ~(unsigned)FRONT_MEASURED) != 0)
        return error_set(err, STATUS_USAGE,
                         "a front needs two or three of time, memory and energy");
    enum status status = sweep_memory(&sweep, err);
    if (status == STATUS_OK)
        status = drop_dominated(&front, axes, err);
    free(sweep.asked);
    front.seconds = clock_s() - started_s;
    if (status != STATUS_OK) {
        const struct infeasibility infeasibility = front.infeasibility;
        front_clear(&front);
        if (status == STATUS_INFEASIBLE)
            out->infeasibility = infeasibility;
        return status;
    }
    *out = front;
    return STATUS_OK;
}
