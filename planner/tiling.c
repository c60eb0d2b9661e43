#include "planner/tiling.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CEILINGS = 3, BOXES_MAX = 1 << 20, WAYS_MAX = 1 << 22, WAYS_BETWEEN_CHECKS = 1 << 16 };

#define NO_TILE SIZE_MAX
#define NO_WAY  UINT32_MAX

/* tau, gamma and memory of a column or of a choice's fullest stages. */
struct maxima {
    double of[CEILINGS];
};

struct box {
    struct maxima low, high, path; /* path: the maxima of its shortest path */
    double cost;                   /* of its shortest path, without the maxima */
    bool is_choice;                /* the path is within the budget with its own maxima, too */
    double bound;
};

/* One column as the path sees it. */
struct tile {
    double cost, spend;
    struct maxima maxima;
    uint32_t first, end;
    unsigned traits;
    size_t column;
};

/* A way to a layer with the stages before one and a set of traits. */
struct way {
    double cost, spend;
    size_t tile;     /* the last of it; NO_TILE: none */
    uint32_t before; /* the way that it continues */
    uint32_t next;   /* another to the same place; NO_WAY */
};

/* The least that it takes from a place to the end, of all tiles and whatever the traits. */
struct rest {
    double cost, spend;
    double priced; /* cost and spending at its price together */
};

struct work {
    const struct problem *problem;
    const struct columns *columns;
    const struct tiling_options *options;
    struct tiling *out;
    double weights[CEILINGS];
    double rates[CEILINGS]; /* of spending by the maxima */
    bool has_budget, idling_spends;
    struct tile *tiles;  /* [tile_count], owned, by stage */
    size_t *stage_tiles; /* [stages + 1], owned: the first of each stage */
    struct way *ways;    /* [way_count], owned */
    size_t way_count, way_capacity;
    bool is_cut_short;  /* too many ways */
    uint32_t *reached;  /* [stages + 1][layer_count + 1][PROBLEM_TRAIT_SETS]: ways, owned */
    struct rest *rest;  /* [stages + 1][layer_count + 1], owned */
    size_t *last_tiles; /* likewise: of the priced path */
    struct box *boxes;  /* a heap by bound, owned */
    size_t box_count, box_capacity;
};

static struct maxima maxima_of(const struct column *column)
{
    return (struct maxima){{column->tau, column->gamma, (double)column->peak_bytes}};
}

static double weigh(const double *weights, const struct maxima *maxima)
{
    double sum = 0;
    for (int d = 0; d < CEILINGS; d++)
        sum += weights[d] > 0 ? weights[d] * maxima->of[d] : 0;
    return sum;
}

static bool matters(const struct work *work, int d)
{
    return work->weights[d] > 0 || work->rates[d] > 0;
}

static bool is_within(const struct work *work, const struct maxima *maxima,
                      const struct maxima *high)
{
    for (int d = 0; d < CEILINGS; d++) {
        if (matters(work, d) && maxima->of[d] > high->of[d])
            return false;
    }
    return true;
}

static double best_value(const struct work *work)
{
    double value = work->out->value;
    return work->out->found
               ? fmin(work->options->threshold, value - work->options->gap * fabs(value))
               : work->options->threshold;
}

/* ---- shortest paths ---- */

static size_t rest_of(const struct work *work, size_t stage, size_t layer)
{
    return stage * (work->problem->layer_count + 1) + layer;
}

static size_t place_of(const struct work *work, size_t stage, size_t layer, unsigned traits)
{
    return rest_of(work, stage, layer) * PROBLEM_TRAIT_SETS + traits;
}

static size_t rest_count(const struct work *work)
{
    return rest_of(work, work->problem->stages + 1, 0);
}

static void find_rests(const struct work *work)
{
    size_t stages = work->problem->stages;
    for (size_t i = 0; i < rest_count(work); i++)
        work->rest[i] = (struct rest){INFINITY, INFINITY, INFINITY};
    work->rest[rest_of(work, stages, work->problem->layer_count)] = (struct rest){0, 0, 0};
    for (size_t stage = stages; stage-- > 0;) {
        for (size_t t = work->stage_tiles[stage]; t < work->stage_tiles[stage + 1]; t++) {
            const struct tile *tile = &work->tiles[t];
            const struct rest *after = &work->rest[rest_of(work, stage + 1, tile->end)];
            struct rest *from = &work->rest[rest_of(work, stage, tile->first)];
            double priced = tile->cost + work->options->spend_price * tile->spend;
            from->cost = fmin(from->cost, tile->cost + after->cost);
            from->spend = fmin(from->spend, tile->spend + after->spend);
            from->priced = fmin(from->priced, priced + after->priced);
        }
    }
}

/* No choice in a box of these low ends that goes on from here is below the best and within the
 * budget.
 */
static bool is_hopeless(const struct work *work, const struct maxima *low, const struct way *way,
                        const struct rest *rest)
{
    double best = best_value(work) - weigh(work->weights, low), price = work->options->spend_price;
    if (way->cost + rest->cost >= best)
        return true;
    if (!work->has_budget)
        return false;
    double left = problem_spend_most(work->problem) - weigh(work->rates, low);
    return way->spend + rest->spend > left ||
           way->cost + price * (way->spend - left) + rest->priced >= best;
}

static enum status push_way(struct work *work, const struct way *way, uint32_t *head,
                            struct error *err)
{
    if (work->way_count == work->way_capacity) {
        size_t capacity = work->way_capacity > 0 ? 2 * work->way_capacity : 1024;
        struct way *grown = realloc(work->ways, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the master problem");
        work->ways = grown;
        work->way_capacity = capacity;
    }
    work->ways[work->way_count] = *way;
    work->ways[work->way_count].next = *head;
    *head = (uint32_t)work->way_count++;
    if (work->way_count > WAYS_MAX ||
        (work->way_count % WAYS_BETWEEN_CHECKS == 0 && limits_reached(work->options->limits)))
        work->is_cut_short = true;
    return STATUS_OK;
}

/* Keep the way unless another to the same place is no worse; drop those that it makes superfluous.
 */
static enum status offer_way(struct work *work, const struct way *way, uint32_t *head,
                             struct error *err)
{
    for (uint32_t i = *head; i != NO_WAY; i = work->ways[i].next) {
        const struct way *other = &work->ways[i];
        if (other->cost <= way->cost && (!work->has_budget || other->spend <= way->spend))
            return STATUS_OK;
    }
    for (uint32_t *link = head; *link != NO_WAY;) {
        struct way *other = &work->ways[*link];
        if (way->cost <= other->cost && (!work->has_budget || way->spend <= other->spend))
            *link = other->next;
        else
            link = &other->next;
    }
    return push_way(work, way, head, err);
}

static enum status follow_tile(struct work *work, const struct box *box, size_t stage, size_t t,
                               struct error *err)
{
    const struct tile *tile = &work->tiles[t];
    const struct rest *rest = &work->rest[rest_of(work, stage + 1, tile->end)];
    unsigned needs = work->problem->needs;
    for (unsigned traits = 0; traits <= needs; traits++) {
        uint32_t from = work->reached[place_of(work, stage, tile->first, traits)];
        unsigned after = (traits | tile->traits) & needs;
        uint32_t *to = &work->reached[place_of(work, stage + 1, tile->end, after)];
        for (; from != NO_WAY; from = work->ways[from].next) {
            const struct way *before = &work->ways[from];
            const struct way way = {.cost = before->cost + tile->cost,
                                    .spend = before->spend + tile->spend,
                                    .tile = t,
                                    .before = from};
            if (!is_hopeless(work, &box->low, &way, rest))
                TRY(offer_way(work, &way, to, err));
        }
    }
    return STATUS_OK;
}

/* From layer 0 through the tiles within the ceilings; only the traits that are needed count. */
static enum status find_paths(struct work *work, const struct box *box, struct error *err)
{
    size_t stages = work->problem->stages;
    for (size_t i = 0; i < rest_count(work) * PROBLEM_TRAIT_SETS; i++)
        work->reached[i] = NO_WAY;
    work->way_count = 0;
    const struct way start = {.cost = work->problem->fixed_cost, .tile = NO_TILE, .before = NO_WAY};
    TRY(push_way(work, &start, &work->reached[0], err));
    for (size_t stage = 0; stage < stages; stage++) {
        for (size_t t = work->stage_tiles[stage]; t < work->stage_tiles[stage + 1]; t++) {
            if (is_within(work, &work->tiles[t].maxima, &box->high))
                TRY(follow_tile(work, box, stage, t, err));
            if (work->is_cut_short)
                return STATUS_OK;
        }
    }
    return STATUS_OK;
}

static void take_path(const struct work *work, uint32_t end, double value)
{
    work->out->found = true;
    work->out->value = value;
    for (uint32_t i = end; work->ways[i].tile != NO_TILE; i = work->ways[i].before) {
        size_t column = work->tiles[work->ways[i].tile].column;
        work->out->chosen[work->columns->items[column].stage] = column;
    }
}

/* The cheapest path of the last find_paths: false when there is none. Offered as the best choice,
 * too.
 */
static bool read_path(const struct work *work, struct box *box)
{
    const struct problem *problem = work->problem;
    uint32_t best = NO_WAY, i;
    i = work->reached[place_of(work, problem->stages, problem->layer_count, problem->needs)];
    for (; i != NO_WAY; i = work->ways[i].next) {
        if (best == NO_WAY || work->ways[i].cost < work->ways[best].cost)
            best = i;
    }
    if (best == NO_WAY)
        return false;
    box->cost = work->ways[best].cost;
    box->path = (struct maxima){{-INFINITY, -INFINITY, -INFINITY}};
    for (i = best; work->ways[i].tile != NO_TILE; i = work->ways[i].before) {
        const struct tile *tile = &work->tiles[work->ways[i].tile];
        for (int d = 0; d < CEILINGS; d++)
            box->path.of[d] = fmax(box->path.of[d], tile->maxima.of[d]);
    }
    double value = box->cost + weigh(work->weights, &box->path);
    double spend = work->ways[best].spend + weigh(work->rates, &box->path);
    box->is_choice = !work->has_budget || problem_affords(problem, spend);
    if (box->is_choice && value < (work->out->found ? work->out->value : work->options->threshold))
        take_path(work, best, value);
    return true;
}

/* ---- tiles ---- */

static enum status copy_tiles(struct work *work, struct error *err)
{
    const struct columns *columns = work->columns;
    size_t stages = work->problem->stages;
    work->tiles = malloc((columns->count + 1) * sizeof(*work->tiles));
    if (!work->tiles)
        return error_memory(err, columns->count * sizeof(*work->tiles), "the master problem");
    size_t stage = 0;
    for (size_t q = 0; q < columns->count; q++) {
        const struct column *column = &columns->items[q];
        assert(column->stage >= stage && column->stage < stages);
        while (stage < column->stage)
            work->stage_tiles[++stage] = q;
        work->tiles[q] = (struct tile){.cost = column->cost,
                                       .spend = work->has_budget ? column->spend : 0,
                                       .maxima = maxima_of(column),
                                       .first = (uint32_t)column->first,
                                       .end = (uint32_t)column->end,
                                       .traits = column->traits,
                                       .column = q};
    }
    while (stage < stages)
        work->stage_tiles[++stage] = columns->count;
    return STATUS_OK;
}

/* Leave out what cannot be part of a choice below the best, given the last find_paths and the
 * rests. */
static void drop_tiles(struct work *work)
{
    size_t kept = 0;
    for (size_t stage = 0; stage < work->problem->stages; stage++) {
        size_t begin = work->stage_tiles[stage], end = work->stage_tiles[stage + 1];
        work->stage_tiles[stage] = kept;
        for (size_t t = begin; t < end; t++) {
            const struct tile tile = work->tiles[t];
            struct way least = {.cost = INFINITY, .spend = INFINITY};
            for (unsigned traits = 0; traits <= work->problem->needs; traits++) {
                uint32_t i = work->reached[place_of(work, stage, tile.first, traits)];
                for (; i != NO_WAY; i = work->ways[i].next) {
                    least.cost = fmin(least.cost, work->ways[i].cost);
                    least.spend = fmin(least.spend, work->ways[i].spend);
                }
            }
            least.cost += tile.cost;
            least.spend += tile.spend;
            if (!is_hopeless(work, &tile.maxima, &least,
                             &work->rest[rest_of(work, stage + 1, tile.end)]))
                work->tiles[kept++] = tile;
        }
    }
    work->stage_tiles[work->problem->stages] = kept;
}

/* ---- boxes ---- */

static enum status push_box(struct work *work, const struct box *box, struct error *err)
{
    if (work->box_count == work->box_capacity) {
        size_t capacity = work->box_capacity > 0 ? 2 * work->box_capacity : 64;
        struct box *grown = realloc(work->boxes, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the master problem");
        work->boxes = grown;
        work->box_capacity = capacity;
    }
    size_t at = work->box_count++;
    while (at > 0 && work->boxes[(at - 1) / 2].bound > box->bound) {
        work->boxes[at] = work->boxes[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    work->boxes[at] = *box;
    return STATUS_OK;
}

static struct box pop_box(struct work *work)
{
    const struct box least = work->boxes[0], last = work->boxes[--work->box_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= work->box_count)
            break;
        if (child + 1 < work->box_count && work->boxes[child + 1].bound < work->boxes[child].bound)
            child++;
        if (work->boxes[child].bound >= last.bound)
            break;
        work->boxes[at] = work->boxes[child];
        at = child;
    }
    work->boxes[at] = last;
    return least;
}

/* Bound the box by its path and keep it if it is below the best. */
static enum status offer_box(struct work *work, struct box *box, struct error *err)
{
    box->bound = fmax(box->bound, box->cost + weigh(work->weights, &box->low));
    return box->bound < best_value(work) ? push_box(work, box, err) : STATUS_OK;
}

/* Where halving a box tells most: for its value, or for the budget that its path breaks. */
static int widest(const struct work *work, const struct box *box)
{
    const double *weights = box->is_choice ? work->weights : work->rates;
    int best = 0;
    double most = -INFINITY;
    for (int d = 0; d < CEILINGS; d++) {
        double gap = weights[d] * (box->path.of[d] - box->low.of[d]);
        if (weights[d] > 0 && gap > most) {
            most = gap;
            best = d;
        }
    }
    return best;
}

/* Find the box's path and keep it; kept unbounded by a path when there were too many ways. */
static enum status open_box(struct work *work, struct box *box, struct error *err)
{
    TRY(find_paths(work, box, err));
    if (work->is_cut_short)
        return push_box(work, box, err);
    return read_path(work, box) ? offer_box(work, box, err) : STATUS_OK;
}

static enum status split_box(struct work *work, const struct box *box, struct error *err)
{
    int d = widest(work, box);
    double low = box->low.of[d], middle = 0.5 * (low + box->path.of[d]);
    struct box upper = *box, lower = *box;
    if (!(low < middle && middle < box->path.of[d])) /* no number between: the path is the best */
        return STATUS_OK;
    upper.low.of[d] = middle;
    lower.high.of[d] = middle;
    /* The path is the upper half's, too, unless higher maxima leave less of the budget. */
    TRY(work->idling_spends ? open_box(work, &upper, err) : offer_box(work, &upper, err));
    if (work->is_cut_short)
        return push_box(work, &lower, err);
    return open_box(work, &lower, err);
}

/* No stage's maximum is below this: some stage must take each layer. */
static struct maxima least_maxima(const struct work *work)
{
    struct maxima least = {{0, 0, 0}};
    for (size_t stage = 0; stage < work->problem->stages; stage++) {
        struct maxima own = {{INFINITY, INFINITY, INFINITY}};
        for (size_t t = work->stage_tiles[stage]; t < work->stage_tiles[stage + 1]; t++) {
            for (int d = 0; d < CEILINGS; d++)
                own.of[d] = fmin(own.of[d], work->tiles[t].maxima.of[d]);
        }
        for (int d = 0; d < CEILINGS; d++)
            least.of[d] = fmax(least.of[d], own.of[d]);
    }
    return least;
}

static enum status search_boxes(struct work *work, struct error *err)
{
    struct box root = {.high = {{INFINITY, INFINITY, INFINITY}}, .bound = -INFINITY};
    root.low = least_maxima(work);
    find_rests(work);
    TRY(find_paths(work, &root, err));
    if (!work->is_cut_short) {
        if (!read_path(work, &root))
            return STATUS_OK;
        drop_tiles(work);
    }
    TRY(offer_box(work, &root, err));
    while (work->box_count > 0 && !work->is_cut_short) {
        if (limits_reached(work->options->limits) || work->box_count > BOXES_MAX)
            break;
        const struct box box = pop_box(work);
        if (box.bound >= best_value(work)) {
            work->box_count = 0; /* the others are not below it */
            break;
        }
        TRY(split_box(work, &box, err));
    }
    work->out->proven = work->box_count == 0;
    if (!work->out->proven)
        work->out->bound = work->boxes[0].bound;
    return STATUS_OK;
}

/* ---- shares ---- */

static double *share_of(struct stage_shares *shares, int d)
{
    return d == 0 ? &shares->tau : d == 1 ? &shares->gamma : &shares->memory;
}

/* What the cheapest path at some prices holds and spends. */
struct priced_path {
    double value;
    double spend;            /* with what idling spends by the shares */
    struct maxima *by_stage; /* [stages], the caller's */
};

/* Every maximum is the mean by the shares. Overwrites rests and ways. */
static void find_priced(const struct work *work, const struct relaxation *at,
                        struct priced_path *path)
{
    size_t stages = work->problem->stages, last = work->problem->layer_count;
    double price = work->has_budget ? at->spend_price : 0;
    for (size_t i = 0; i < rest_count(work); i++)
        work->rest[i].cost = INFINITY;
    work->rest[0].cost = work->problem->fixed_cost;
    if (price > 0)
        work->rest[0].cost -= price * problem_spend_most(work->problem);
    for (size_t stage = 0; stage < stages; stage++) {
        double prices[CEILINGS];
        for (int d = 0; d < CEILINGS; d++)
            prices[d] =
                (work->weights[d] + price * work->rates[d]) * *share_of(&at->shares[stage], d);
        for (size_t t = work->stage_tiles[stage]; t < work->stage_tiles[stage + 1]; t++) {
            const struct tile *tile = &work->tiles[t];
            size_t to = rest_of(work, stage + 1, tile->end);
            double sum = work->rest[rest_of(work, stage, tile->first)].cost + tile->cost +
                         price * tile->spend;
            for (int d = 0; d < CEILINGS; d++)
                sum += prices[d] * tile->maxima.of[d];
            if (sum < work->rest[to].cost) {
                work->rest[to].cost = sum;
                work->last_tiles[to] = t;
            }
        }
    }
    path->value = work->rest[rest_of(work, stages, last)].cost;
    path->spend = 0;
    for (size_t stage = stages; stage-- > 0 && path->value < INFINITY;) {
        const struct tile *tile = &work->tiles[work->last_tiles[rest_of(work, stage + 1, last)]];
        path->by_stage[stage] = tile->maxima;
        path->spend += tile->spend;
        for (int d = 0; d < CEILINGS; d++)
            path->spend += work->rates[d] * *share_of(&at->shares[stage], d) * tile->maxima.of[d];
        last = tile->first;
    }
}

/* Shift shares to the stages that the path fills most. */
static void shift_shares(const struct work *work, struct stage_shares *shares,
                         const struct maxima *by_stage, double step)
{
    const double least = 1e-6; /* of an even share: what is 0 would stay so */
    size_t stages = work->problem->stages;
    for (int d = 0; d < CEILINGS; d++) {
        double most = 0, sum = 0;
        for (size_t p = 0; p < stages; p++)
            most = fmax(most, by_stage[p].of[d]);
        for (size_t p = 0; p < stages && most > 0; p++) {
            double *share = share_of(&shares[p], d);
            *share = fmax(*share, least / (double)stages);
            *share *= exp(step * (by_stage[p].of[d] / most - 1));
            sum += *share;
        }
        for (size_t p = 0; p < stages && sum > 0; p++)
            *share_of(&shares[p], d) /= sum;
    }
}

/* Dearer where the path is above the budget. */
static double shift_price(const struct work *work, double price, const struct priced_path *path,
                          double step)
{
    double cap = work->problem->spend_cap;
    if (!work->has_budget || cap <= 0)
        return price;
    double unit = 0.1 * fmax(fabs(path->value), price * cap) / cap;
    return fmax(0, price + step * unit * fmin(path->spend / cap - 1, 1));
}

static enum status improve_prices(struct work *work, struct error *err)
{
    enum { ITERATIONS = 150 };
    size_t stages = work->problem->stages;
    struct relaxation *best = work->out->relaxation;
    struct relaxation trial = {.shares = malloc(stages * sizeof(*trial.shares)),
                               .spend_price = best->spend_price};
    struct priced_path path = {.by_stage = calloc(stages, sizeof(*path.by_stage))};
    enum status status = STATUS_OK;
    double most = -INFINITY;
    if (!trial.shares || !path.by_stage) {
        status = error_memory(err, stages * sizeof(*trial.shares), "the master problem");
        goto free_trial;
    }
    memcpy(trial.shares, best->shares, stages * sizeof(*trial.shares));
    for (int i = 0; i < ITERATIONS && !limits_reached(work->options->limits); i++) {
        double step = 2 / sqrt(i + 1.0);
        find_priced(work, &trial, &path);
        if (!(path.value < INFINITY))
            break;
        if (path.value > most) {
            most = path.value;
            memcpy(best->shares, trial.shares, stages * sizeof(*trial.shares));
            best->spend_price = trial.spend_price;
        }
        shift_shares(work, trial.shares, path.by_stage, step);
        trial.spend_price = shift_price(work, trial.spend_price, &path, step);
    }
free_trial:
    free(path.by_stage);
    free(trial.shares);
    return status;
}

enum status tiling_solve(const struct problem *problem, const struct columns *columns,
                         const struct tiling_options *options, struct tiling *out,
                         struct error *err)
{
    bool one_stage = problem->stages == 1; /* tau and gamma are in its columns' costs */
    bool has_budget = problem_has_budget(problem);
    struct work work = {.problem = problem,
                        .columns = columns,
                        .options = options,
                        .out = out,
                        .weights = {0, 0, problem->weight_memory},
                        .has_budget = has_budget};
    enum status status = STATUS_OK;
    out->found = false;
    out->proven = true;
    out->value = out->bound = INFINITY;
    if (!one_stage) {
        work.weights[0] = problem->weight_tau;
        work.weights[1] = problem->weight_gamma;
        work.rates[0] = has_budget ? problem->spend_tau : 0;
        work.rates[1] = has_budget ? problem->spend_gamma : 0;
        work.idling_spends = work.rates[0] > 0 || work.rates[1] > 0;
    }
    work.stage_tiles = calloc(problem->stages + 1, sizeof(*work.stage_tiles));
    work.reached = malloc(rest_count(&work) * PROBLEM_TRAIT_SETS * sizeof(*work.reached));
    work.rest = malloc(rest_count(&work) * sizeof(*work.rest));
    work.last_tiles = malloc(rest_count(&work) * sizeof(*work.last_tiles));
    if (!work.stage_tiles || !work.reached || !work.rest || !work.last_tiles)
        status = error_memory(err, rest_count(&work) * sizeof(*work.rest), "the master problem");
    if (status == STATUS_OK)
        status = copy_tiles(&work, err);
    if (status == STATUS_OK)
        status = search_boxes(&work, err);
    if (status == STATUS_OK && out->relaxation && (!one_stage || has_budget))
        status = improve_prices(&work, err);
    free(work.boxes);
    free(work.ways);
    free(work.tiles);
    free(work.last_tiles);
    free(work.rest);
    free(work.reached);
    free(work.stage_tiles);
    return status;
}
