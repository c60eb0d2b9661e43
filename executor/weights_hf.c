/* Weights from safetensors files as Hugging Face's libraries write them. */
#include "base/file.h"
#include "base/json.h"
#include "executor/checkpoint_record.h"
#include "executor/tensor_load.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char single_name[] = "model.safetensors";

/* Files saved from the bare model, without its head, lack the first part of every name. */
static const char *const name_prefixes[MODEL_FAMILY_COUNT] = {
    [MODEL_GPT2] = "transformer.",
    [MODEL_LLAMA] = "model.",
};

/* What older versions stored beside the weights: causal masks and rotary frequencies. */
static const char *const constant_suffixes[] = {".attn.bias", ".attn.masked_bias",
                                                ".rotary_emb.inv_freq"};

static const struct model *model_of(const struct tensor_loader *loader)
{
    return &loader->layout->plan->model;
}

static struct wanted_tensor *find_wanted(const struct tensor_loader *loader, const char *name)
{
    struct wanted_tensor *found = tensor_loader_find(loader, "", name);
    return found ? found
                 : tensor_loader_find(loader, name_prefixes[model_of(loader)->family], name);
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t bytes = strlen(name), suffix_bytes = strlen(suffix);
    return bytes >= suffix_bytes && strcmp(name + bytes - suffix_bytes, suffix) == 0;
}

/* Not wanted, but not a sign of another model either. */
static bool is_harmless(const struct tensor_loader *loader, const char *name)
{
    for (size_t i = 0; i < sizeof(constant_suffixes) / sizeof(constant_suffixes[0]); i++)
        if (has_suffix(name, constant_suffixes[i]))
            return true;
    return model_of(loader)->tied_head && strcmp(name, "lm_head.weight") == 0;
}

static enum status load_tensor(struct tensor_loader *loader, struct safetensors *file,
                               const char *name, const char *path, struct error *err)
{
    const struct model *model = model_of(loader);
    struct wanted_tensor *wanted = find_wanted(loader, name);
    if (wanted)
        return tensor_loader_take(loader, file, path, name, wanted, ARRAY_PARAMETERS, err);
    if (is_harmless(loader, name))
        return STATUS_OK;
    return error_set(err, STATUS_INVALID,
                     "%s: tensor '%s' is not part of the model (%s, %lld blocks, %s head): the "
                     "weights are of another one",
                     path, name, model_family_name(model->family), (long long)model->blocks,
                     model->tied_head ? "tied" : "untied");
}

static enum status load_file(struct tensor_loader *loader, const char *path, struct error *err)
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

static enum status load_shards(struct tensor_loader *loader, const char *folder,
                               const struct jin *root, struct error *err)
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
        status = checkpoint_path(path, folder, shards[i], err);
        if (status == STATUS_OK)
            status = load_file(loader, path, err);
    }
    free(shards);
    return status;
}

static enum status load_indexed(struct tensor_loader *loader, const char *folder,
                                const char *index_path, struct error *err)
{
    struct json_document *index = NULL;
    TRY(json_parse_file(&index, index_path, err));
    struct jin root = json_root(index);
    enum status status = load_shards(loader, folder, &root, err);
    json_document_free(index);
    return status;
}

static enum status load_path(struct tensor_loader *loader, const char *path, struct error *err)
{
    char inner[PATH_MAX];
    if (!folder_exists(path))
        return load_file(loader, path, err);
    TRY(checkpoint_path(inner, path, CHECKPOINT_INDEX_FILE, err));
    if (file_exists(inner))
        return load_indexed(loader, path, inner, err);
    TRY(checkpoint_path(inner, path, single_name, err));
    if (file_exists(inner))
        return load_file(loader, inner, err);
    return error_set(err, STATUS_INVALID, "'%s' has neither %s nor %s: there are no weights in it",
                     path, single_name, CHECKPOINT_INDEX_FILE);
}

/* ---- the whole ---- */

static enum status check_all_loaded(const struct tensor_loader *loader, const char *path,
                                    struct error *err)
{
    const struct wanted_tensor *missing = tensor_loader_missing(loader, ARRAY_PARAMETERS);
    if (!missing)
        return STATUS_OK;
    return error_set(err, STATUS_INVALID,
                     "%s: has no tensor '%s' (names may lack '%s'): the weights are not whole or "
                     "of another model",
                     path, missing->place.name, name_prefixes[model_of(loader)->family]);
}

enum status weights_load_hf(const char *path, const struct memory_layout *layout, struct error *err)
{
    struct tensor_loader loader;
    TRY(tensor_loader_open(&loader, layout, err));
    enum status status = load_path(&loader, path, err);
    if (status == STATUS_OK)
        status = check_all_loaded(&loader, path, err);
    tensor_loader_close(&loader);
    return status;
}
