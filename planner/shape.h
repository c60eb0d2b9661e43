/* One shape under search: all that its blocks share, the modes that each may choose from, their
 * prices, and a bound for every layout of it. See planner/tailor.h. */
#ifndef TEMPER_PLANNER_SHAPE_H
#define TEMPER_PLANNER_SHAPE_H

#include "planner/stage_mixes.h"
#include "planner/tailor.h"

enum { BLOCK_CLASSES_MAX = 8 };

/* Blocks that do the same work and admit the same modes. */
struct block_class {
    bool has_experts;
    unsigned admitted; /* bits of the shape's kinds; no kind is admitted to two classes */
};

/* Blocks 0 .. n of one class, as far as they were asked for. */
struct mix_series {
    struct mix_set *sets; /* [count], owned */
    size_t count;
};

struct front_table; /* planner/stage_quickest.h */

/* What one stage can be with so many blocks of each class. */
struct stage_option {
    double cost;             /* of the objective: fill and energy */
    double repeat_s, once_s; /* see tailor.h */
    double bytes;            /* see least_device_bytes */
    /* No mix of the content that fits, this or another that is no option, is below: see
     * stage_floor. Where all that matter are options, the option's own. */
    struct stage_floor {
        double cost, repeat_s, once_s;
    } floor;
    uint16_t kinds[BLOCK_KINDS_MAX];
};
struct option_list {
    size_t stage;
    uint16_t content[BLOCK_CLASSES_MAX];
    size_t begin, count; /* in the options; count 0: nothing fits */
    double least_repeat_s;
    double least_bytes, most_total; /* of those that were ever among them */
    size_t next;                    /* of those with the same hash; LIST_END: none */
};
#define LIST_END SIZE_MAX

/* What a unit of each weighs in the objective. */
struct unit_prices {
    double second; /* of the step, idle power included */
    double joule, byte;
};

enum { OPTION_HEADS = 4096 };

/* Large, and of use to one shape after the other. */
struct shape_space {
    struct layout_step step; /* prices of the groups, and stages to work with */
    struct stage_prices slowest[CLUSTER_GROUPS_MAX]; /* each class in the slowest of its modes */
    size_t heads[OPTION_HEADS];                      /* of a hash table of option lists */
};

struct shape {
    const struct tailor_request *request;
    struct layout layout;                   /* without a block plan */
    size_t stage_groups[LAYOUT_STAGES_MAX]; /* of the cluster */
    size_t items;                           /* of the chain: blocks, or v of them together */
    unsigned item_blocks;                   /* v */
    unsigned char *item_classes;            /* [items], owned */
    struct block_class classes[BLOCK_CLASSES_MAX];
    size_t class_count;
    struct block_kind kinds[BLOCK_KINDS_MAX]; /* by class */
    size_t kind_count;
    size_t twins[BLOCK_KINDS_MAX]; /* the first kind that is the same, of another class or itself */
    struct stage_bytes bytes[CLUSTER_GROUPS_MAX];
    struct block_kind lean_kind;                       /* no block needs less of anything */
    struct stage_bytes lean_bytes[CLUSTER_GROUPS_MAX]; /* with it as the only kind */
    bool is_mixed; /* blocks with experts and without: what a stage needs may fall with one more */
    /* A layout's memory is that of the device that has least left. It is no less than another's
     * less what this has more than the smallest: such bytes stand in options and columns. */
    double least_device_bytes, most_device_bytes;
    struct kind_measures measures[CLUSTER_GROUPS_MAX];
    struct mix_series series[CLUSTER_GROUPS_MAX][BLOCK_CLASSES_MAX];
    struct front_table *fronts[CLUSTER_GROUPS_MAX]; /* owned; NULL: not made yet */
    struct unit_prices prices;
    double deviations; /* of memory, that must fit as well */
    double fixed;      /* of the objective: transfers, tied tables */
    /* Of the objective without regard to memory: of all, of its repeats, of all the others. */
    double least, least_repeat, least_others;
    double most_repeat_s;      /* of any stage of a layout below the threshold; INFINITY: any */
    struct option_list *lists; /* owned */
    size_t list_count, list_capacity;
    bool has_floors;              /* some options are above their floors */
    bool lacks_floors;            /* some contents have mixes that no option or floor stands for */
    bool is_cut;                  /* the limits were reached: columns are missing */
    bool is_too_large;            /* its stages cannot hold all items at their leanest */
    struct stage_option *options; /* owned */
    size_t option_count, option_capacity;
    struct shape_space *space;
};

/* `layout` has passed layout_check; its stages stand on `stage_groups` [pipeline]. *is_empty: the
 * shape can have no blocks that differ (interleaved chunks that do not divide them), or none as
 * they are pinned; nothing to close then. `space` is borrowed until shape_close. */
enum status shape_open(struct shape *out, const struct tailor_request *request,
                       const struct layout *layout, const size_t *stage_groups,
                       struct shape_space *space, bool *is_empty, struct error *err);
void shape_close(struct shape *shape);

/* ---- for planner/stage_options.h and stage_columns.h ---- */

size_t class_first_kind(const struct block_class *class);
/* Exposed, once a step: reductions, renewed parameters, optimizer. */
double stage_once_s(const struct stage_work *work);
/* Joules beyond what the stage draws while it waits, however long the step is. */
double shape_busy_joules(struct shape *shape, const struct stage_work *work);
/* What a stage of so many items holds when every block is in its leanest mode. */
struct stage_memory shape_lean_stage(const struct shape *shape, size_t stage, size_t items);

/* Does the host's link work beside the others? What one pass hides twice may fall by more than the
 * pass grows. */
bool shape_waits_for_host(const struct shape *shape);
/* Interleaved, and not the former: its passes hide what they do at no other cost than time. */
bool shape_is_interleaved(const struct shape *shape);
/* Where longer passes hide more than they add, what the slowest would leave exposed: a stage costs
 * no less than that, and then it costs no less in slower modes. */
void shape_hide_most(const struct shape *shape, const struct stage_work *slowest,
                     struct stage_work *work);
/* Its two halves: what is exchanged with every micro-batch, and once a step. */
void stage_hide_exchanges(const struct stage_work *slowest, struct stage_work *work);
void stage_hide_reductions(const struct stage_work *slowest, struct stage_work *work);

#endif
