/* Layers of a model that the search may treat as one: of a kind, and pinned alike. */
#ifndef TEMPER_PLANNER_LAYER_GROUPS_H
#define TEMPER_PLANNER_LAYER_GROUPS_H

#include "planner/pins.h"

struct layer_group {
    enum layer_kind kind;
    int64_t first_block; /* of its first layer; -1: in no block */
    struct pins pins;    /* as they hold for its layers: pins_of_layer */
};

struct layer_groups {
    struct layer_group *items; /* [count] in the order of the chain, owned; one a kind unless blocks
                                  are pinned */
    size_t count;
    size_t *of_layer; /* [model_layer_count], owned: index into items */
};

enum status layer_groups_open(struct layer_groups *out, const struct model *model,
                              const struct pins *pins, struct error *err);
void layer_groups_close(struct layer_groups *groups);

#endif
