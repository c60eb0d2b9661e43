#include "planner/layer_groups.h"

#include <stdlib.h>

static size_t find_or_add(struct layer_groups *groups, const struct layer_group *group)
{
    size_t i = 0;
    while (i < groups->count &&
           (groups->items[i].kind != group->kind ||
            !pins_are_alike(&groups->items[i].pins, &group->pins, group->kind)))
        i++;
    if (i == groups->count)
        groups->items[groups->count++] = *group;
    return i;
}

/* A range begins and ends one piece more of each of two kinds, at most. */
static size_t most_groups(const struct pins *pins, size_t layers)
{
    size_t most = LAYER_KIND_COUNT + 4 * pins->range_count;
    return most < layers ? most : layers;
}

enum status layer_groups_open(struct layer_groups *out, const struct model *model,
                              const struct pins *pins, struct error *err)
{
    size_t layers = model_layer_count(model), most = most_groups(pins, layers);
    *out = (struct layer_groups){.items = calloc(most, sizeof(*out->items)),
                                 .of_layer = calloc(layers, sizeof(*out->of_layer))};
    if (!out->items || !out->of_layer) {
        layer_groups_close(out);
        return error_memory(err, layers * sizeof(*out->of_layer), "the search space");
    }
    for (size_t l = 0; l < layers; l++) {
        const struct layer layer = model_layer(model, l);
        const struct layer_group group = {.kind = layer.kind,
                                          .first_block = layer.block,
                                          .pins = pins_of_layer(pins, layer.kind, layer.block)};
        out->of_layer[l] = find_or_add(out, &group);
    }
    return STATUS_OK;
}

void layer_groups_close(struct layer_groups *groups)
{
    free(groups->items);
    free(groups->of_layer);
    *groups = (struct layer_groups){.items = NULL};
}
