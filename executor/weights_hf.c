/* Weights from safetensors files as Hugging Face's libraries write them. */
#include "base/file.h"
#include "base/json.h"
#include "executor/checkpoint.h"
#include "executor/safetensors.h"
#include "executor/tensor_place.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

/* Files saved from the bare model, without its head, lack the first part of every name. */
static const char *const name_prefixes[MODEL_FAMILY_COUNT] = {
    [MODEL_GPT2] = "transformer.",
    [MODEL_LLAMA] = "model.",
};

/* What older versions stored beside the weights: causal masks and rotary frequencies. */
static const char *const constant_suffixes[] = {".attn.bias", ".attn.masked_bias",
                                                ".rotary_emb.inv_freq"};

struct wanted {
    struct tensor_place place;
    bool loaded;
};

struct loader {
    const struct model *model;
    float *parameters;
    struct wanted *wanted; /* [count], by name */
    size_t count;
};

static int compare_wanted(const void *a, const void *b)
{
    const struct wanted *left = a, *right = b;
    return strcmp(left->place.name, right->place.name);
}

static struct wanted *find_exact(const struct loader *loader, const char *prefix, const char *name)
{
    struct wanted key = {0};
    int bytes = snprintf(key.place.name, sizeof(key.place.name), "%s%s", prefix, name);
    if (bytes < 0 || (size_t)bytes >= sizeof(key.place.name))
        return NULL;
    return bsearch(&key, loader->wanted, loader->count, sizeof(key), compare_wanted);
}

static struct wanted *find_wanted(const struct loader *loader, const char *name)
{
    struct wanted *found = find_exact(loader, "", name);
    return found ? found : find_exact(loader, name_prefixes[loader->model->family], name);
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t bytes = strlen(name), suffix_bytes = strlen(suffix);
    return bytes >= suffix_bytes && strcmp(name + bytes - suffix_bytes, suffix) == 0;
}

/* Not wanted, but not a sign of another model either. */
static bool is_harmless(const struct loader *loader, const char *name)
{
    for (size_t i = 0; i < sizeof(constant_suffixes) / sizeof(constant_suffixes[0]); i++)
        if (has_suffix(name, constant_suffixes[i]))
            return true;
    return loader->model->tied_head && strcmp(name, "lm_head.weight") == 0;
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

static enum status load_tensor(struct loader *loader, struct safetensors *file, const char *name,
                               const char *path, struct error *err)
{
    struct wanted *wanted = find_wanted(loader, name);
    if (!wanted && is_harmless(loader, name))
        return STATUS_OK;
    if (!wanted)
        return error_set(err, STATUS_INVALID,
                         "%s: tensor '%s' is not part of the model (%s, %lld blocks, %s head): the "
                         "weights are of another one",
                         path, name, model_family_name(loader->model->family),
                         (long long)loader->model->blocks,
                         loader->model->tied_head ? "tied" : "untied");
    if (wanted->loaded)
        return error_set(err, STATUS_INVALID, "%s: tensor '%s' is there more than once", path,
                         wanted->place.name);
    TRY(check_shape(file, name, &wanted->place, path, err));
    TRY(safetensors_read(file, name, loader->parameters + wanted->place.first, wanted->place.count,
                         err));
    wanted->loaded = true;
    return STATUS_OK;
}

static enum status load_file(struct loader *loader, const char *path, struct error *err)
{
    struct safetensors *file = NULL;
    TRY(safetensors_open(&file, path, err));
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < safetensors_count(file); i++)
        status = load_tensor(loader, file, safetensors_name(file, i), path, err);
    safetensors_close(file);
    return status;
}

/* ---- sharded folders ---- */

static enum status join_path(char path[PATH_MAX], const char *folder, const char *name,
                             struct error *err)
{
    int bytes = snprintf(path, PATH_MAX, "%s/%s", folder, name);
    if (bytes < 0 || bytes >= PATH_MAX)
        return error_set(err, STATUS_INVALID, "path '%.200s...' is longer than %d bytes", folder,
                         PATH_MAX - 1);
    return STATUS_OK;
}

/* The shards in the order in which the map first names them; `shards` is [jin members of map]. */
static enum status list_shards(const struct jin *map, const char **shards, size_t *count,
                               struct error *err)
{
    void *iterator = NULL;
    const char *tensor = NULL, *shard = NULL;
    struct jin member;
    while (jin_next_member(map, &iterator, &tensor, &member)) {
        TRY(jin_as_string(&member, &shard, err));
        if (shard[0] == '\0' || strchr(shard, '/') || strcmp(shard, "..") == 0)
            return jin_invalid(&member, NULL, err, "must be a file in the same folder, is '%s'",
                               shard);
        size_t i = 0;
        while (i < *count && strcmp(shards[i], shard) != 0)
            i++;
        if (i == *count)
            shards[(*count)++] = shard;
    }
    return STATUS_OK;
}

static enum status load_shards(struct loader *loader, const char *folder, const struct jin *root,
                               struct error *err)
{
    struct jin map, member;
    void *iterator = NULL;
    const char *tensor = NULL;
    size_t tensors = 0, count = 0;
    TRY(jin_object(root, "weight_map", &map, err));
    while (jin_next_member(&map, &iterator, &tensor, &member))
        tensors++;
    const char **shards = calloc(tensors + 1, sizeof(*shards));
    if (!shards)
        return error_memory(err, (tensors + 1) * sizeof(*shards), "the list of shards");
    enum status status = list_shards(&map, shards, &count, err);
    for (size_t i = 0; status == STATUS_OK && i < count; i++) {
        char path[PATH_MAX];
        status = join_path(path, folder, shards[i], err);
        if (status == STATUS_OK)
            status = load_file(loader, path, err);
    }
    free(shards);
    return status;
}

static enum status load_indexed(struct loader *loader, const char *folder, const char *index_path,
                                struct error *err)
{
    struct json_document *index = NULL;
    TRY(json_parse_file(&index, index_path, err));
    struct jin root = json_root(index);
    enum status status = load_shards(loader, folder, &root, err);
    json_document_free(index);
    return status;
}

static enum status load_path(struct loader *loader, const char *path, struct error *err)
{
    char inner[PATH_MAX];
    if (!folder_exists(path))
        return load_file(loader, path, err);
    TRY(join_path(inner, path, index_name, err));
    if (file_exists(inner))
        return load_indexed(loader, path, inner, err);
    TRY(join_path(inner, path, single_name, err));
    if (file_exists(inner))
        return load_file(loader, inner, err);
    return error_set(err, STATUS_INVALID, "'%s' has neither %s nor %s: there are no weights in it",
                     path, single_name, index_name);
}

/* ---- the whole ---- */

static enum status make_loader(struct loader *loader, struct error *err)
{
    struct tensor_place *places = NULL;
    TRY(tensor_places(loader->model, &places, &loader->count, err));
    loader->wanted = calloc(loader->count, sizeof(*loader->wanted));
    for (size_t i = 0; loader->wanted && i < loader->count; i++)
        loader->wanted[i].place = places[i];
    free(places);
    if (!loader->wanted)
        return error_memory(err, loader->count * sizeof(*loader->wanted), "the list of tensors");
    qsort(loader->wanted, loader->count, sizeof(*loader->wanted), compare_wanted);
    return STATUS_OK;
}

static enum status check_all_loaded(const struct loader *loader, const char *path,
                                    struct error *err)
{
    for (size_t i = 0; i < loader->count; i++)
        if (!loader->wanted[i].loaded)
            return error_set(err, STATUS_INVALID,
                             "%s: has no tensor '%s' (names may lack '%s'): the weights are not "
                             "whole or of another model",
                             path, loader->wanted[i].place.name,
                             name_prefixes[loader->model->family]);
    return STATUS_OK;
}

enum status weights_load_hf(const char *path, const struct model *model, float *parameters,
                            struct error *err)
{
    struct loader loader = {.model = model, .parameters = parameters};
    TRY(make_loader(&loader, err));
    enum status status = load_path(&loader, path, err);
    if (status == STATUS_OK)
        status = check_all_loaded(&loader, path, err);
    free(loader.wanted);
    return status;
}
