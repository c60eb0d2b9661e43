#include "executor/tensor_place.h"
#include <stdlib.h>

static struct tensor_place place_of(const struct tensor_spec *spec, int64_t block, size_t layer)
{
    struct tensor_place place = {.count = tensor_count(spec), .layer = layer, .role = spec->role};
    tensor_name(spec, block, place.name);
    if (!spec->is_vector)
        place.shape[place.rank++] = spec->rows;
    place.shape[place.rank++] = spec->cols;
    return place;
}

enum status tensor_places(const struct model *model, struct tensor_place **out, size_t *count,
                          struct error *err)
{
    size_t layers = model_layer_count(model), used = 0;
    struct tensor_place *places = calloc(layers * LAYER_TENSORS_MAX, sizeof(*places));
    if (!places)
        return error_memory(err, layers * LAYER_TENSORS_MAX * sizeof(*places),
                            "the list of tensors");
    for (size_t i = 0; i < layers; i++) {
        struct layer layer = model_layer(model, i);
        struct tensor_spec specs[LAYER_TENSORS_MAX];
        size_t tensors = layer_tensors(model, layer.kind, specs);
        for (size_t k = 0; k < tensors; k++)
            places[used++] = place_of(&specs[k], layer.block, i);
    }
    *out = places;
    *count = used;
    return STATUS_OK;
}
