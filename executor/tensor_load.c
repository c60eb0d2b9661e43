#include "executor/tensor_load.h"

#include "base/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_wanted(const void *a, const void *b)
{
    const struct wanted_tensor *left = a, *right = b;
    return strcmp(left->place.name, right->place.name);
}

enum status tensor_loader_open(struct tensor_loader *out, const struct memory_layout *layout,
                               struct error *err)
{
    struct tensor_loader loader = {.layout = layout};
    struct tensor_place *places = NULL;
    uint64_t largest = 1;
    TRY(tensor_places(&layout->plan->model, &places, &loader.count, err));
    loader.wanted = calloc(loader.count, sizeof(*loader.wanted));
    for (size_t i = 0; loader.wanted && i < loader.count; i++) {
        loader.wanted[i].place = places[i];
        loader.wanted[i].is_held = shard_is_wanted(layout, &places[i]);
        if (loader.wanted[i].is_held && places[i].count > largest)
            largest = places[i].count;
    }
    free(places);
    loader.whole = malloc(largest * sizeof(float));
    if (!loader.wanted || !loader.whole) {
        tensor_loader_close(&loader);
        return error_memory(err, largest * sizeof(float), "a tensor to be loaded");
    }
    qsort(loader.wanted, loader.count, sizeof(*loader.wanted), compare_wanted);
    *out = loader;
    return STATUS_OK;
}

void tensor_loader_close(struct tensor_loader *loader)
{
    free(loader->wanted);
    free(loader->whole);
    *loader = (struct tensor_loader){0};
}

struct wanted_tensor *tensor_loader_find(const struct tensor_loader *loader, const char *prefix,
                                         const char *name)
{
    struct wanted_tensor key = {0};
    int bytes = snprintf(key.place.name, sizeof(key.place.name), "%s%s", prefix, name);
    if (bytes < 0 || (size_t)bytes >= sizeof(key.place.name))
        return NULL;
    return bsearch(&key, loader->wanted, loader->count, sizeof(key), compare_wanted);
}

/* "[768, 2304]" */
static void append_shape(struct text *text, const int64_t *shape, int rank)
{
    text_append(text, "[");
    for (int i = 0; i < rank; i++)
        text_printf(text, "%s%lld", i > 0 ? ", " : "", (long long)shape[i]);
    text_append(text, "]");
}

static enum status check_shape(const struct safetensors *file, const char *name,
                               const struct tensor_place *place, const char *path,
                               struct error *err)
{
    int64_t shape[SAFETENSORS_RANK_MAX];
    int rank = safetensors_shape(file, name, shape);
    if (rank == place->rank && memcmp(shape, place->shape, (size_t)rank * sizeof(*shape)) == 0)
        return STATUS_OK;
    struct text text = {0};
    text_printf(&text, "%s: tensor '%s': has shape ", path, name);
    append_shape(&text, shape, rank);
    text_append(&text, ", the model needs ");
    append_shape(&text, place->shape, place->rank);
    enum status status = text_check(&text, err);
    if (status == STATUS_OK)
        status = error_set(err, STATUS_INVALID, "%s", text.data);
    text_free(&text);
    return status;
}

enum status tensor_loader_take(struct tensor_loader *loader, struct safetensors *file,
                               const char *path, const char *name, struct wanted_tensor *wanted,
                               enum tensor_array array, struct error *err)
{
    if (wanted->is_loaded[array])
        return error_set(err, STATUS_INVALID, "%s: tensor '%s' is there more than once", path,
                         wanted->place.name);
    TRY(check_shape(file, name, &wanted->place, path, err));
    wanted->is_loaded[array] = true;
    if (!wanted->is_held)
        return STATUS_OK;
    TRY(safetensors_read(file, name, loader->whole, wanted->place.count, err));
    shard_scatter(loader->layout, &wanted->place, array, loader->whole);
    return STATUS_OK;
}

const struct wanted_tensor *tensor_loader_missing(const struct tensor_loader *loader,
                                                  enum tensor_array array)
{
    for (size_t i = 0; i < loader->count; i++)
        if (!loader->wanted[i].is_loaded[array])
            return &loader->wanted[i];
    return NULL;
}
