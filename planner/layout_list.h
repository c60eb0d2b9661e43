/* Layouts with what they are predicted to take: ranked by weights, or thinned to the front. */
#ifndef TEMPER_PLANNER_LAYOUT_LIST_H
#define TEMPER_PLANNER_LAYOUT_LIST_H

#include "costmodel/layout_cost.h"
#include "planner/front.h"

struct priced_layout {
    struct layout layout;
    double time_s, memory_bytes, energy_j;
    double price, carbon_g; /* of a step; NAN: the cluster gives none */
};

struct priced_layout priced_layout_of(const struct layout *layout,
                                      const struct layout_prediction *prediction);

struct layout_list {
    struct priced_layout *rows; /* [count], owned: those that fit */
    size_t count, capacity;
    uint64_t considered;   /* that pass layout_check and the pins */
    bool is_whole;         /* false: the limits were reached before all were priced */
    struct layout leanest; /* of all that were considered */
    double leanest_bytes;  /* its memory, with the deviations of the risk; INFINITY: none was
                              considered */
};

enum status layout_list_add(struct layout_list *list, const struct priced_layout *row,
                            struct error *err);
void layouts_free(struct layout_list *list);

/* T, M and E of weights, each as a multiple of the best of it alone (1, GiB and J when `raw`). */
struct layout_weights {
    double time, memory, energy;
    bool raw;
};

/* What T, M and E of weights are multiples of. */
struct priced_layout layouts_units(const struct layout_list *list, bool raw);
double layout_objective(const struct layout_weights *weights, const struct priced_layout *units,
                        const struct priced_layout *row);

/* `units` NULL: those of the list. Sorts the rows by their weighted objective, best first; of
 * equals the one of less memory stands first. objectives [list->count] receives the values in that
 * order (NULL allowed). */
enum status layouts_rank(struct layout_list *list, const struct layout_weights *weights,
                         const struct priced_layout *units, double *objectives, struct error *err);

double priced_layout_value(const struct priced_layout *row, enum front_axis axis);

/* Keep the rows that no other is better than in one of `axes` (of enum front_axis, at least two)
 * without being worse in another, by rising time; of equals the first. All layouts were priced, so
 * this is the true front. */
void layouts_keep_front(struct layout_list *list, unsigned axes);

#endif
