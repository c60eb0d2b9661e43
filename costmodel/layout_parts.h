/* What a layout is put together from: its stages, and the prices of its layers on each group of
 * devices that they stand on. Time and memory are asked of the same parts. */
#ifndef TEMPER_COSTMODEL_LAYOUT_PARTS_H
#define TEMPER_COSTMODEL_LAYOUT_PARTS_H

#include "costmodel/layer_prices.h"
#include "costmodel/layout_cost.h"
#include "costmodel/stage_list.h"

struct layout_parts {
    const struct cluster *cluster;
    const struct model *model;
    const struct layout *layout;
    struct stage_list stages;
    struct layer_prices *layers[CLUSTER_GROUPS_MAX]; /* of the groups that stages stand on */
    struct layer_prices own[CLUSTER_GROUPS_MAX];     /* of those that nobody remembers */
};

/* The layout passes layout_check, and outlives `out`, which must not be moved. `memory` keeps the
 * prices for the next layout of the same model; NULL: nobody does. */
void layout_parts_fill(const struct cluster *cluster, const struct model *model,
                       const struct layout *layout, struct layer_memory *memory,
                       struct layout_parts *out);

/* As layout_memory and layout_time (layout_cost.h). */
void parts_memory(const struct layout_parts *parts, struct layout_prediction *out);
enum status parts_time(const struct layout_parts *parts, struct layout_prediction *out,
                       struct error *err);

#endif
