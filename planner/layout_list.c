#include "planner/layout_list.h"

#include <math.h>
#include <stdlib.h>

static const double gib_bytes = 1024.0 * 1024.0 * 1024.0;

static double known_or_nan(struct quantity quantity)
{
    return quantity.provenance == PROVENANCE_ABSENT ? NAN : quantity.value;
}

struct priced_layout priced_layout_of(const struct layout *layout,
                                      const struct layout_prediction *prediction)
{
    return (struct priced_layout){
        .layout = *layout,
        .time_s = prediction->time_s.value,
        .memory_bytes = prediction->memory_bytes.value,
        .energy_j = prediction->energy_j.value,
        .price = known_or_nan(prediction->price),
        .carbon_g = known_or_nan(prediction->carbon_g),
    };
}

enum status layout_list_add(struct layout_list *list, const struct priced_layout *row,
                            struct error *err)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity > 0 ? 2 * list->capacity : 1024;
        struct priced_layout *grown = realloc(list->rows, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the layouts");
        list->rows = grown;
        list->capacity = capacity;
    }
    list->rows[list->count++] = *row;
    return STATUS_OK;
}

void layouts_free(struct layout_list *list)
{
    free(list->rows);
    *list = (struct layout_list){.rows = NULL};
}

/* ---- ranking ---- */

struct ranked_layout {
    double objective;
    struct priced_layout row;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked_layout *x = a, *y = b;
    if (x->objective != y->objective)
        return x->objective < y->objective ? -1 : 1;
    return (x->row.memory_bytes > y->row.memory_bytes) -
           (x->row.memory_bytes < y->row.memory_bytes);
}

struct priced_layout layouts_units(const struct layout_list *list, bool raw)
{
    struct priced_layout best = {.time_s = 1, .memory_bytes = gib_bytes, .energy_j = 1};
    for (size_t i = 0; i < list->count && !raw; i++) {
        const struct priced_layout *row = &list->rows[i];
        best.time_s = i == 0 ? row->time_s : fmin(best.time_s, row->time_s);
        best.memory_bytes = i == 0 ? row->memory_bytes : fmin(best.memory_bytes, row->memory_bytes);
        best.energy_j = i == 0 ? row->energy_j : fmin(best.energy_j, row->energy_j);
    }
    return best;
}

double layout_objective(const struct layout_weights *weights, const struct priced_layout *units,
                        const struct priced_layout *row)
{
    double energy = weights->energy > 0 ? weights->energy * row->energy_j / units->energy_j : 0;
    return weights->time * row->time_s / units->time_s +
           weights->memory * row->memory_bytes / units->memory_bytes + energy;
}

enum status layouts_rank(struct layout_list *list, const struct layout_weights *weights,
                         const struct priced_layout *units, double *objectives, struct error *err)
{
    const struct priced_layout own = layouts_units(list, weights->raw);
    struct ranked_layout *ranked = malloc((list->count > 0 ? list->count : 1) * sizeof(*ranked));
    if (!ranked)
        return error_memory(err, list->count * sizeof(*ranked), "the layouts");
    for (size_t i = 0; i < list->count; i++) {
        const struct priced_layout *row = &list->rows[i];
        ranked[i] =
            (struct ranked_layout){layout_objective(weights, units ? units : &own, row), *row};
    }
    qsort(ranked, list->count, sizeof(*ranked), compare_ranked);
    for (size_t i = 0; i < list->count; i++) {
        list->rows[i] = ranked[i].row;
        if (objectives)
            objectives[i] = ranked[i].objective;
    }
    free(ranked);
    return STATUS_OK;
}

/* ---- the front ---- */

static int compare_numbers(double a, double b)
{
    return (a > b) - (a < b);
}

static int compare_rows(const void *a, const void *b)
{
    const struct priced_layout *x = a, *y = b;
    int order = compare_numbers(x->time_s, y->time_s);
    if (order == 0)
        order = compare_numbers(x->memory_bytes, y->memory_bytes);
    return order != 0 ? order : compare_numbers(x->energy_j, y->energy_j);
}

double priced_layout_value(const struct priced_layout *row, enum front_axis axis)
{
    switch (axis) {
    case FRONT_TIME:
        return row->time_s;
    case FRONT_MEMORY:
        return row->memory_bytes;
    case FRONT_ENERGY:
        return row->energy_j;
    case FRONT_COST:
        return row->price;
    default:
        return row->carbon_g;
    }
}

/* At least as good in every axis. */
static bool covers(const struct priced_layout *a, const struct priced_layout *b, unsigned axes)
{
    for (unsigned axis = FRONT_TIME; axis <= FRONT_CARBON; axis *= 2)
        if ((axes & axis) && !(priced_layout_value(a, (enum front_axis)axis) <=
                               priced_layout_value(b, (enum front_axis)axis)))
            return false;
    return true;
}

static bool is_covered(const struct layout_list *list, size_t kept, const struct priced_layout *row,
                       unsigned axes)
{
    for (size_t i = 0; i < kept; i++)
        if (covers(&list->rows[i], row, axes))
            return true;
    return false;
}

/* Without time as an axis a later row may cover one that was kept. */
static size_t drop_covered(struct layout_list *list, size_t kept, const struct priced_layout *row,
                           unsigned axes)
{
    size_t left = 0;
    for (size_t i = 0; i < kept; i++)
        if (!covers(row, &list->rows[i], axes))
            list->rows[left++] = list->rows[i];
    return left;
}

void layouts_keep_front(struct layout_list *list, unsigned axes)
{
    size_t kept = 0;
    if (list->count > 0)
        qsort(list->rows, list->count, sizeof(*list->rows), compare_rows);
    for (size_t i = 0; i < list->count; i++) {
        const struct priced_layout row = list->rows[i];
        if (is_covered(list, kept, &row, axes))
            continue;
        kept = drop_covered(list, kept, &row, axes);
        list->rows[kept++] = row;
    }
    list->count = kept;
}
