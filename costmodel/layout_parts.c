#include "costmodel/layout_parts.h"

static struct layer_prices *group_layers(struct layout_parts *parts, size_t group,
                                         struct layer_memory *memory)
{
    const struct node_group *of = &parts->cluster->groups[group];
    struct layer_prices *known = memory ? layer_memory_prices(memory, of, parts->layout) : NULL;
    if (known)
        return known;
    layer_prices_start(of, parts->model, parts->layout, &parts->own[group]);
    return &parts->own[group];
}

void layout_parts_fill(const struct cluster *cluster, const struct model *model,
                       const struct layout *layout, struct layer_memory *memory,
                       struct layout_parts *out)
{
    out->cluster = cluster;
    out->model = model;
    out->layout = layout;
    stage_list(model, layout, &out->stages);
    for (size_t i = 0; i < out->stages.count; i++) {
        size_t group = out->stages.entries[i].group;
        /* stages of a group are neighbours */
        if (i == 0 || group != out->stages.entries[i - 1].group)
            out->layers[group] = group_layers(out, group, memory);
    }
}
