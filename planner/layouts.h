/* Every uniform layout of a model on a described cluster, priced: the space that launch scripts
 * choose from. All of them are evaluated, so the best of the list is the optimum of the space. */
#ifndef TEMPER_PLANNER_LAYOUTS_H
#define TEMPER_PLANNER_LAYOUTS_H

#include "base/reporter.h"
#include "costmodel/layout_cost.h"
#include "planner/layout_choice.h"
#include "planner/layout_list.h"
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
    int fused_attention;   /* 0 or 1 */
    int overlap;           /* 0 or 1; free: what the request says */
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
    enum arithmetic arithmetic;    /* of layouts */
    struct arithmetic_list others; /* that layouts may be of as well */
    int64_t global_batch;          /* sequences */
    uint64_t memory_cap_bytes;     /* of one device; 0: what the device has */
    double risk;                   /* that a layout's memory exceeds it; 0: MEMORY_RISK */
    unsigned left_out;             /* layouts that choose this: bits 1 << enum plan_only */
    bool overlaps;                 /* the software overlaps communication with compute */
    bool fused_cross_entropy;      /* it has that; attention is a choice */
    /* Memory is an aim: what only saves some counts, too. Otherwise nothing waits on the host that
     * finds room on the device, which costs no less time and energy. */
    bool saves_memory;
    struct layout_pins pins;
    /* Layouts that choose so are left out; NULL: none. Borrowed. */
    const struct layout_exclusion *excluded;
    struct search_limits limits;
    struct reporter reporter;
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

#endif
