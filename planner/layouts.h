/* Every uniform layout of a model on a described cluster, priced: the space that launch scripts
 * choose from. All of them are evaluated, so the best of the list is the optimum of the space. */
#ifndef TEMPER_PLANNER_LAYOUTS_H
#define TEMPER_PLANNER_LAYOUTS_H

#include "base/reporter.h"
#include "costmodel/layout_cost.h"
#include "planner/front.h"
#include "planner/limits.h"

/* Fixed values; 0 (of `recompute` and `sequence_parallel`: below zero) is free. */
struct layout_pins {
    int64_t pipeline, virtual_stages, data, tensor, context, micro_batch;
    int sequence_parallel; /* 0 or 1 */
    int zero_stage;        /* 0 to 3 */
    int recompute;         /* enum recompute */
};

/* Everything free. */
struct layout_pins layout_pins_none(void);

struct layouts_request {
    const struct cluster *cluster;
    const struct model *model;
    enum framework framework;
    enum arithmetic arithmetic;
    int64_t global_batch;      /* sequences */
    uint64_t memory_cap_bytes; /* of one device; 0: what the device has */
    bool overlaps;             /* the software overlaps communication with compute */
    bool fused;                /* it has fused attention and cross-entropy */
    struct layout_pins pins;
    struct search_limits limits;
    struct reporter reporter;
};

struct priced_layout {
    struct layout layout;
    double time_s, memory_bytes, energy_j;
};

struct layout_list {
    struct priced_layout *rows; /* [count], owned: those that fit */
    size_t count, capacity;
    uint64_t considered;   /* that pass layout_check and the pins */
    bool is_whole;         /* false: the limits were reached before all were priced */
    struct layout leanest; /* of all that were considered */
    double leanest_bytes;  /* its memory; INFINITY: none was considered */
};

enum status layouts_price(const struct layouts_request *request, struct layout_list *out,
                          struct error *err);
void layouts_free(struct layout_list *list);

/* T, M and E of weights, each as a multiple of the best of it alone (1, GiB and J when `raw`). */
struct layout_weights {
    double time, memory, energy;
    bool raw;
};

/* Sorts the rows by their weighted objective, best first; of equals the one of less memory stands
 * first. objectives [list->count] receives the values in that order (NULL allowed). */
enum status layouts_rank(struct layout_list *list, const struct layout_weights *weights,
                         double *objectives, struct error *err);

/* Keep the rows that no other is better than in one of `axes` (of enum front_axis, at least two)
 * without being worse in another, by rising time; of equals the first. All layouts were priced, so
 * this is the true front. */
void layouts_keep_front(struct layout_list *list, unsigned axes);

#endif
