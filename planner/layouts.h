/* Every uniform layout of a model on a described cluster, priced: the space that launch scripts
 * choose from. All of them are evaluated, so the best of the list is the optimum of the space. */
#ifndef TEMPER_PLANNER_LAYOUTS_H
#define TEMPER_PLANNER_LAYOUTS_H

#include "base/reporter.h"
#include "costmodel/layout_cost.h"
#include "planner/front.h"
#include "planner/layout_choice.h"
#include "planner/limits.h"

/* Blocks `first` to `last`, both included, that are pinned apart from the others. */
struct block_pin {
    int64_t first, last;
    int recompute;  /* enum recompute; below zero: free */
    int arithmetic; /* enum arithmetic; likewise */
};

/* Fixed values; 0 (of what is an int: below zero) is free. */
struct layout_pins {
    int64_t pipeline, virtual_stages, data, tensor, context, micro_batch;
    int64_t expert;        /* devices that share the experts */
    int64_t shard;         /* devices that ZeRO's state is divided over */
    int sequence_parallel; /* 0 or 1 */
    int zero_stage;        /* 0 to 3 */
    int recompute;         /* enum recompute */
    int schedule;          /* enum schedule */
    int offload;           /* bits of enum pinned_offload; 0: none of it */
    /* [block_count], ascending and disjoint; they stand before what holds for all layers. */
    struct block_pin blocks[2 * RANGE_PINS_MAX];
    size_t block_count;
};

/* Everything free. */
struct layout_pins layout_pins_none(void);

struct layout_exclusion {
    enum layout_choice choice;
    int64_t value;
};

struct layouts_request {
    const struct cluster *cluster;
    const struct model *model;
    enum framework framework;
    enum arithmetic arithmetic;
    int64_t global_batch;      /* sequences */
    uint64_t memory_cap_bytes; /* of one device; 0: what the device has */
    double risk;               /* that a layout's memory exceeds it; 0: MEMORY_RISK */
    unsigned left_out;         /* layouts that choose this: bits 1 << enum plan_only */
    bool overlaps;             /* the software overlaps communication with compute */
    bool fused;                /* it has fused attention and cross-entropy */
    /* Memory is an aim: what only saves some counts, too. Otherwise nothing waits on the host that
     * finds room on the device, which costs no less time and energy. */
    bool saves_memory;
    struct layout_pins pins;
    /* Layouts that choose so are left out; NULL: none. Borrowed. */
    const struct layout_exclusion *excluded;
    struct search_limits limits;
    struct reporter reporter;
};

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

/* What may come after a layout of the same degrees: bits. */
enum layout_wish {
    WISH_QUICKER = 1, /* gpipe, zb-h1, ZeRO's state over part of the replicas: no less memory */
    /* Offload of activations, of the optimizer, of both: no less time. */
    WISH_ACTIVATIONS_AWAY = 2,
    WISH_OPTIMIZER_AWAY = 4,
    WISH_BOTH_AWAY = 8,
    WISH_EVERYTHING = 15
};

/* Called with every layout that passes layout_check and the pins; the layout is gone afterwards. */
struct layout_visitor {
    void *user;
    enum status (*visit)(void *user, const struct layout *layout, struct error *err);
    /* After a visit: what may be better. A plain layout for which nothing is wished ends all that
     * its degrees admit. NULL: WISH_QUICKER. */
    unsigned (*wishes)(void *user);
};
/* *is_whole: the limits did not end it early. */
enum status layouts_each(const struct layouts_request *request,
                         const struct layout_visitor *visitor, bool *is_whole, struct error *err);

enum status layouts_price(const struct layouts_request *request, struct layout_list *out,
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
