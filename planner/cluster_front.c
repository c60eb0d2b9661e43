#include "planner/cluster_front.h"

#include "base/clock.h"
#include "ir/model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Values closer than this are the same: sums in another order differ by as much. */
static const double same_share = 1e-9;

/* What a search minimises. */
struct slope {
    double per_second, per_joule;
};

/* What a search has shown: no layout of at most so many bytes is below `bound` in `slope`. */
struct proof {
    struct slope slope;
    double cap_bytes; /* INFINITY: none */
    double bound;
    size_t row; /* that is best in it, but for its gap; SIZE_MAX: none fits */
};

struct sweep {
    const struct cluster_front_request *request;
    struct cluster_front *front;
    struct tailor_pool *pool; /* owned */
    struct proof *proofs;     /* [proof_count], owned */
    size_t proof_count, proof_capacity;
    size_t uniform_rows; /* the first of the front's: the true front of uniform layouts */
    double most_bytes;   /* of what was found at the cap at hand */
    double least_bytes;  /* about the least that any layout needs */
    bool minds_time, minds_energy, minds_memory;
};

/* ---- rows ---- */

static void free_row(struct cluster_front_row *row)
{
    struct block_plan *own = (struct block_plan *)row->priced.layout.own;
    if (!own)
        return;
    free((void *)own->modes);
    free((void *)own->stage_blocks);
    free((void *)own->stage_groups);
    free(own);
}

void cluster_front_free(struct cluster_front *front)
{
    for (size_t i = 0; i < front->count; i++)
        free_row(&front->rows[i]);
    free(front->rows);
    layouts_free(&front->uniform);
    *front = (struct cluster_front){.rows = NULL};
}

static enum status push_row(struct cluster_front *front, const struct priced_layout *priced,
                            struct error *err)
{
    if (front->count == front->capacity) {
        size_t capacity = front->capacity > 0 ? 2 * front->capacity : 64;
        struct cluster_front_row *grown = realloc(front->rows, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the front");
        front->rows = grown;
        front->capacity = capacity;
    }
    front->rows[front->count++] = (struct cluster_front_row){.priced = *priced, .gap = 1};
    return STATUS_OK;
}

/* Takes the block plan of what was found. */
static enum status push_tailored(struct cluster_front *front, struct tailored *tailored,
                                 struct error *err)
{
    struct block_plan *own = malloc(sizeof(*own));
    if (!own)
        return error_memory(err, sizeof(*own), "the front");
    struct priced_layout priced = tailored->priced;
    *own = tailored->plan;
    priced.layout.own = own;
    enum status status = push_row(front, &priced, err);
    if (status != STATUS_OK) {
        free(own);
        return status;
    }
    tailored->plan = (struct block_plan){.modes = NULL};
    return STATUS_OK;
}

static enum status push_proof(struct sweep *sweep, const struct proof *proof, struct error *err)
{
    if (sweep->proof_count == sweep->proof_capacity) {
        size_t capacity = sweep->proof_capacity > 0 ? 2 * sweep->proof_capacity : 64;
        struct proof *grown = realloc(sweep->proofs, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the front");
        sweep->proofs = grown;
        sweep->proof_capacity = capacity;
    }
    sweep->proofs[sweep->proof_count++] = *proof;
    return STATUS_OK;
}

/* ---- uniform layouts ---- */

static double value_in(const struct slope *slope, const struct priced_layout *row)
{
    return slope->per_second * row->time_s + slope->per_joule * row->energy_j;
}

/* NULL: none fits. Of equals the one of least memory. */
static const struct priced_layout *best_uniform(const struct sweep *sweep,
                                                const struct slope *slope, double cap_bytes)
{
    const struct layout_list *list = &sweep->front->uniform;
    const struct priced_layout *best = NULL;
    for (size_t i = 0; i < list->count; i++) {
        const struct priced_layout *row = &list->rows[i];
        double than = best ? value_in(slope, best) : INFINITY, value = value_in(slope, row);
        bool is_leaner = best && value == than && row->memory_bytes < best->memory_bytes;
        if (row->memory_bytes <= cap_bytes && (value < than || is_leaner))
            best = row;
    }
    return best;
}

/* The true front of them is part of the rows, whatever the searches find. */
static enum status add_uniform(struct sweep *sweep, struct error *err)
{
    const struct layouts_request *layouts = sweep->request->search->layouts;
    struct cluster_front *front = sweep->front;
    struct layout_list *list = &front->uniform, kept;
    *list = (struct layout_list){.is_whole = true, .leanest_bytes = INFINITY};
    if (!cluster_search_has_uniform(layouts))
        return STATUS_OK;
    TRY(layouts_price(layouts, list, err));
    front->is_whole = list->is_whole;
    if (list->count == 0)
        return STATUS_OK;
    kept = *list;
    kept.rows = malloc(list->count * sizeof(*kept.rows));
    if (!kept.rows)
        return error_memory(err, list->count * sizeof(*kept.rows), "the front");
    memcpy(kept.rows, list->rows, list->count * sizeof(*kept.rows));
    layouts_keep_front(&kept, sweep->request->axes);
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < kept.count; i++)
        status = push_row(front, &kept.rows[i], err);
    sweep->uniform_rows = kept.count;
    layouts_free(&kept);
    return status;
}

/* ---- searches ---- */

/* What is best under looser caps and fits under this one is the best under this one. */
static const struct proof *find_proof(const struct sweep *sweep, const struct slope *slope,
                                      double cap_bytes)
{
    for (size_t i = 0; i < sweep->proof_count; i++) {
        const struct proof *proof = &sweep->proofs[i];
        if (proof->slope.per_second == slope->per_second &&
            proof->slope.per_joule == slope->per_joule && proof->row != SIZE_MAX &&
            sweep->front->rows[proof->row].priced.memory_bytes <= cap_bytes)
            return proof;
    }
    return NULL;
}

/* How far the sweep has come, in steps of a ratio. */
static void tell_progress(const struct sweep *sweep, double cap_bytes)
{
    enum { WHOLE = 1000 };
    const struct layout_list *list = &sweep->front->uniform;
    double most_bytes = 0, share = 0;
    for (size_t i = 0; i < list->count; i++)
        most_bytes = fmax(most_bytes, list->rows[i].memory_bytes);
    if (isfinite(cap_bytes) && sweep->least_bytes > 0 && sweep->least_bytes < most_bytes)
        share = log(most_bytes / cap_bytes) / log(most_bytes / sweep->least_bytes);
    report_progress(&sweep->request->search->layouts->reporter, "front",
                    (size_t)(WHOLE * fmax(0, fmin(share, 1))), WHOLE);
}

/* Of layouts whose blocks differ, one that is better than `best` (NULL: than none). */
static enum status search(struct sweep *sweep, const struct slope *slope, double cap_bytes,
                          const struct priced_layout *best, struct tailored *out, struct error *err)
{
    const struct cluster_search_request *asked = sweep->request->search;
    const struct layout_weights weights = {
        .time = slope->per_second, .energy = slope->per_joule, .raw = true};
    struct layouts_request layouts = *asked->layouts;
    const struct tailor_request request = {
        .layouts = &layouts,
        .weights = &weights,
        .units = {.time_s = 1, .memory_bytes = 1, .energy_j = 1},
        .best_objective = best ? value_in(slope, best) : INFINITY,
        .arithmetics = asked->arithmetics,
        .gap_target = asked->gap_target,
        .mean_cap_bytes = isinf(cap_bytes) ? 0 : cap_bytes,
        .pool = sweep->pool,
    };
    layouts.reporter = (struct reporter){0};
    tell_progress(sweep, cap_bytes);
    sweep->front->searches++;
    return tailor_search(&request, out, err);
}

/* The row that is best in `slope` among layouts of at most so many bytes; *found: there is one. */
static enum status ask(struct sweep *sweep, const struct slope *slope, double cap_bytes,
                       size_t *row, bool *found, struct error *err)
{
    struct cluster_front *front = sweep->front;
    const struct proof *known = find_proof(sweep, slope, cap_bytes);
    const struct priced_layout *best = best_uniform(sweep, slope, cap_bytes);
    struct tailored tailored;
    if (known) {
        *row = known->row;
        *found = true;
    } else {
        TRY(search(sweep, slope, cap_bytes, best, &tailored, err));
        front->is_whole = front->is_whole && tailored.is_whole;
        *row = front->count;
        *found = tailored.found || best;
        const struct proof proof = {*slope, cap_bytes, tailored.bound, *found ? *row : SIZE_MAX};
        enum status status = tailored.found ? push_tailored(front, &tailored, err)
                             : best         ? push_row(front, best, err)
                                            : STATUS_OK;
        tailored_free(&tailored);
        TRY(status);
        if (front->uniform.is_whole)
            TRY(push_proof(sweep, &proof, err));
    }
    if (*found)
        sweep->most_bytes = fmax(sweep->most_bytes, front->rows[*row].priced.memory_bytes);
    return STATUS_OK;
}

/* ---- time against energy ---- */

/* Two layouts of the hull, and the ranges of the whole hull. */
struct edge {
    size_t fast, thrifty;
    double range_s, range_j;
};

static bool is_fine_enough(const struct sweep *sweep, const struct edge *edge)
{
    const struct cluster_front_row *rows = sweep->front->rows;
    double more_s = rows[edge->thrifty].priced.time_s - rows[edge->fast].priced.time_s;
    double less_j = rows[edge->fast].priced.energy_j - rows[edge->thrifty].priced.energy_j;
    double most = sweep->request->points_most;
    if (!(more_s > same_share * rows[edge->fast].priced.time_s) ||
        !(less_j > same_share * rows[edge->fast].priced.energy_j))
        return true;
    return most > 0 && more_s <= edge->range_s / most && less_j <= edge->range_j / most;
}

static enum status find_between(struct sweep *sweep, const struct edge *edge, double cap_bytes,
                                struct error *err)
{
    const struct priced_layout fast = sweep->front->rows[edge->fast].priced;
    const struct priced_layout thrifty = sweep->front->rows[edge->thrifty].priced;
    double more_s = thrifty.time_s - fast.time_s, less_j = fast.energy_j - thrifty.energy_j;
    double scale = less_j * fast.time_s + more_s * fast.energy_j, gap;
    size_t between;
    bool found;
    if (!sweep->front->is_whole || is_fine_enough(sweep, edge))
        return STATUS_OK;
    const struct slope slope = {less_j / scale, more_s / scale};
    TRY(ask(sweep, &slope, cap_bytes, &between, &found, err));
    gap = fmax(same_share, sweep->request->search->gap_target);
    /* on the line between the two, whose value is 1 */
    if (!found || !(value_in(&slope, &sweep->front->rows[between].priced) < 1 - gap))
        return STATUS_OK;
    const struct edge left = {edge->fast, between, edge->range_s, edge->range_j};
    const struct edge right = {between, edge->thrifty, edge->range_s, edge->range_j};
    TRY(find_between(sweep, &left, cap_bytes, err));
    return find_between(sweep, &right, cap_bytes, err);
}

/* ---- memory ---- */

static enum status find_level(struct sweep *sweep, double cap_bytes, bool *found, struct error *err)
{
    const struct slope time = {1, 0}, energy = {0, 1};
    struct edge edge = {.fast = 0};
    sweep->most_bytes = 0;
    if (!sweep->minds_energy)
        return ask(sweep, &time, cap_bytes, &edge.fast, found, err);
    if (!sweep->minds_time)
        return ask(sweep, &energy, cap_bytes, &edge.thrifty, found, err);
    TRY(ask(sweep, &time, cap_bytes, &edge.fast, found, err));
    if (!*found || !sweep->front->is_whole)
        return STATUS_OK;
    TRY(ask(sweep, &energy, cap_bytes, &edge.thrifty, found, err));
    const struct cluster_front_row *rows = sweep->front->rows;
    edge.range_s = rows[edge.thrifty].priced.time_s - rows[edge.fast].priced.time_s;
    edge.range_j = rows[edge.fast].priced.energy_j - rows[edge.thrifty].priced.energy_j;
    return find_between(sweep, &edge, cap_bytes, err);
}

/* As many steps of one ratio as are wanted lead from the most to the least. */
static void choose_step(struct sweep *sweep)
{
    const double usual_ratio = 16; /* where nothing is known of the least */
    double points = sweep->request->points_most, ratio = usual_ratio;
    if (sweep->least_bytes > 0 && sweep->least_bytes < sweep->most_bytes)
        ratio = sweep->most_bytes / sweep->least_bytes;
    sweep->front->step = points > 0 ? 1 - pow(ratio, -1 / points) : same_share;
    sweep->front->step = fmax(sweep->front->step, same_share);
}

/* At least as good in every axis, but for rounding. */
static bool covers(const struct priced_layout *a, const struct priced_layout *b, unsigned axes)
{
    for (unsigned axis = FRONT_TIME; axis <= FRONT_CARBON; axis *= 2)
        if ((axes & axis) && !(priced_layout_value(a, (enum front_axis)axis) <=
                               priced_layout_value(b, (enum front_axis)axis) * (1 + same_share)))
            return false;
    return true;
}

static bool is_covered(const struct cluster_front *front, size_t row, unsigned axes)
{
    for (size_t i = 0; i < front->count; i++)
        if (i != row && covers(&front->rows[i].priced, &front->rows[row].priced, axes))
            return true;
    return false;
}

/* A step below what was found; or where a uniform layout of the front is before that, at it, so
 * that it is known whether others are better there. */
static double next_cap_bytes(const struct sweep *sweep)
{
    const struct cluster_front *front = sweep->front;
    double next_bytes = sweep->most_bytes * (1 - front->step);
    for (size_t i = 0; i < sweep->uniform_rows; i++) {
        double bytes = front->rows[i].priced.memory_bytes;
        if (bytes > next_bytes && bytes < sweep->most_bytes &&
            !is_covered(front, i, sweep->request->axes))
            next_bytes = bytes;
    }
    return next_bytes;
}

static enum status sweep_memory(struct sweep *sweep, struct error *err)
{
    const struct layout_list *list = &sweep->front->uniform;
    struct cluster_front *front = sweep->front;
    double cap_bytes = INFINITY;
    bool found = true;
    for (size_t i = 0; i < list->count; i++)
        sweep->least_bytes = i == 0 ? list->rows[i].memory_bytes
                                    : fmin(sweep->least_bytes, list->rows[i].memory_bytes);
    while (front->is_whole) {
        TRY(find_level(sweep, cap_bytes, &found, err));
        if (isinf(cap_bytes))
            choose_step(sweep);
        if (!found && front->is_whole)
            front->empty_below_bytes = isinf(cap_bytes) ? 0 : cap_bytes;
        if (!found || !sweep->minds_memory)
            return STATUS_OK;
        cap_bytes = next_cap_bytes(sweep);
    }
    return STATUS_OK;
}

/* ---- the rows that are left ---- */

static int compare_numbers(double a, double b)
{
    return (a > b) - (a < b);
}

/* Of equals the uniform one first. */
static int compare_rows(const void *a, const void *b)
{
    const struct cluster_front_row *x = a, *y = b;
    int order = compare_numbers(x->priced.time_s, y->priced.time_s);
    if (order == 0)
        order = compare_numbers(x->priced.memory_bytes, y->priced.memory_bytes);
    if (order == 0)
        order = compare_numbers(x->priced.energy_j, y->priced.energy_j);
    return order != 0 ? order : (x->priced.layout.own != NULL) - (y->priced.layout.own != NULL);
}

static void keep_front(struct cluster_front *front, unsigned axes)
{
    size_t kept = 0;
    if (front->count > 0)
        qsort(front->rows, front->count, sizeof(*front->rows), compare_rows);
    for (size_t i = 0; i < front->count; i++) {
        struct cluster_front_row row = front->rows[i];
        bool is_covered = false;
        for (size_t k = 0; k < kept && !is_covered; k++)
            is_covered = covers(&front->rows[k].priced, &row.priced, axes);
        if (is_covered) {
            free_row(&row);
            continue;
        }
        size_t left = 0; /* without time as an axis it may cover an earlier one */
        for (size_t k = 0; k < kept; k++) {
            if (covers(&row.priced, &front->rows[k].priced, axes))
                free_row(&front->rows[k]);
            else
                front->rows[left++] = front->rows[k];
        }
        front->rows[left++] = row;
        kept = left;
    }
    front->count = kept;
}

static void prove_row(const struct sweep *sweep, struct cluster_front_row *row)
{
    for (size_t i = 0; i < sweep->proof_count; i++) {
        const struct proof *proof = &sweep->proofs[i];
        if (sweep->minds_memory && row->priced.memory_bytes > proof->cap_bytes)
            continue;
        double gap = 1 - proof->bound / value_in(&proof->slope, &row->priced);
        row->gap = fmin(row->gap, gap > same_share ? gap : 0);
    }
}

/* What the rows that a search stands for leave to what it has shown. */
static double proof_gap(const struct cluster_front *front, const struct proof *proof)
{
    double least = INFINITY;
    for (size_t i = 0; i < front->count; i++)
        if (front->rows[i].priced.memory_bytes <= proof->cap_bytes)
            least = fmin(least, value_in(&proof->slope, &front->rows[i].priced));
    double gap = isinf(least) ? 0 : 1 - proof->bound / least;
    return gap > same_share ? gap : 0;
}

static void prove(const struct sweep *sweep)
{
    struct cluster_front *front = sweep->front;
    for (size_t i = 0; i < front->count; i++)
        prove_row(sweep, &front->rows[i]);
    for (size_t i = 0; i < sweep->proof_count; i++)
        front->gap = fmax(front->gap, proof_gap(front, &sweep->proofs[i]));
}

enum status cluster_front_find(const struct cluster_front_request *request,
                               struct cluster_front *out, struct error *err)
{
    double begin_s = clock_s();
    struct sweep sweep = {
        .request = request,
        .front = out,
        .minds_time = (request->axes & (FRONT_TIME | FRONT_COST)) != 0,
        .minds_energy = (request->axes & (FRONT_ENERGY | FRONT_CARBON)) != 0,
        .minds_memory = (request->axes & FRONT_MEMORY) != 0,
    };
    const struct tailor_request shapes = {
        .layouts = request->search->layouts,
        .arithmetics = request->search->arithmetics,
    };
    *out = (struct cluster_front){.is_whole = true};
    out->is_hull = sweep.minds_time && sweep.minds_energy;
    enum status status = add_uniform(&sweep, err);
    if (status == STATUS_OK)
        status = tailor_pool_new(&shapes, sweep.minds_energy, &sweep.pool, err);
    if (status == STATUS_OK)
        status = sweep_memory(&sweep, err);
    tailor_pool_free(sweep.pool);
    if (status == STATUS_OK) {
        keep_front(out, request->axes);
        prove(&sweep);
        out->seconds = clock_s() - begin_s;
    } else {
        cluster_front_free(out);
    }
    free(sweep.proofs);
    return status;
}
