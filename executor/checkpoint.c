#include "executor/checkpoint.h"
#include "base/file.h"
#include "base/json.h"
#include "executor/checkpoint_find.h"
#include "executor/checkpoint_record.h"
#include "executor/safetensors.h"
#include "executor/tensor_place.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Before the HF names in optimizer.safetensors. */
static const char first_prefix[] = "first_moment.", second_prefix[] = "second_moment.";

/* ---- the contents of one checkpoint's folder ---- */

static void describe_tensors(const struct tensor_place *places, size_t count, const char *prefix,
                             const float *flat, struct safetensor_out *out)
{
    for (size_t i = 0; i < count; i++) {
        const struct tensor_place *place = &places[i];
        (void)snprintf(out[i].name, sizeof(out[i].name), "%s%s", prefix, place->name);
        memcpy(out[i].shape, place->shape, sizeof(place->shape));
        out[i].rank = place->rank;
        out[i].data = flat + place->first;
    }
}

static enum status write_weights(const char *folder, const struct tensor_place *places,
                                 size_t count, const struct weight_arrays *arrays,
                                 struct error *err)
{
    char path[PATH_MAX];
    struct safetensor_out *tensors = calloc(2 * count, sizeof(*tensors));
    if (!tensors)
        return error_memory(err, 2 * count * sizeof(*tensors), "the list of tensors");
    describe_tensors(places, count, "", arrays->parameters, tensors);
    enum status status =
        checkpoint_path(path, folder, checkpoint_file_names[CHECKPOINT_WEIGHTS], err);
    if (status == STATUS_OK)
        status = safetensors_write(path, tensors, count, err);
    if (status == STATUS_OK && arrays->first_moment) {
        describe_tensors(places, count, first_prefix, arrays->first_moment, tensors);
        describe_tensors(places, count, second_prefix, arrays->second_moment, tensors + count);
        status = checkpoint_path(path, folder, checkpoint_file_names[CHECKPOINT_MOMENTS], err);
        if (status == STATUS_OK)
            status = safetensors_write(path, tensors, 2 * count, err);
    }
    free(tensors);
    return status;
}

static enum status write_config(const char *folder, const struct model *model, struct error *err)
{
    char path[PATH_MAX];
    struct text text = {0};
    TRY(checkpoint_path(path, folder, checkpoint_file_names[CHECKPOINT_CONFIG], err));
    enum status status = model_write_hf_config(model, &text, err);
    if (status == STATUS_OK) {
        text_append(&text, "\n");
        status = text_check(&text, err);
    }
    if (status == STATUS_OK)
        status = file_write(path, text.data, text.bytes, err);
    text_free(&text);
    return status;
}

enum status checkpoint_contents_write(const char *folder, const struct model *model,
                                      const struct weight_arrays *arrays,
                                      const struct training_state *state, struct error *err)
{
    struct tensor_place *places = NULL;
    size_t count = 0;
    TRY(tensor_places(model, &places, &count, err));
    enum status status = write_weights(folder, places, count, arrays, err);
    free(places);
    TRY(status);
    TRY(write_config(folder, model, err));
    struct checkpoint_record record = {
        .state = *state, .model = *model, .has_moments = arrays->first_moment != NULL};
    return checkpoint_record_write(folder, &record, err);
}

/* ---- loading ---- */

/* A member of a written model as text, for a message. */
static void append_member(const struct jin *model, const char *key, struct text *out)
{
    struct error ignored;
    int64_t integer;
    double real;
    bool truth;
    const char *string;
    if (jin_int(model, key, &integer, &ignored) == STATUS_OK)
        text_printf(out, "%lld", (long long)integer);
    else if (jin_real(model, key, &real, &ignored) == STATUS_OK)
        text_printf(out, "%.17g", real);
    else if (jin_bool(model, key, &truth, &ignored) == STATUS_OK)
        text_append(out, truth ? "true" : "false");
    else if (jin_string(model, key, &string, &ignored) == STATUS_OK)
        text_append(out, string);
}

static enum status write_models(const struct model *saved, const struct model *model,
                                struct json_document **document, struct error *err)
{
    struct jout *json = jout_new();
    struct text text = {0};
    model_write(saved, "saved", json);
    model_write(model, "model", json);
    enum status status = jout_finish(json, 0, &text, err);
    if (status == STATUS_OK)
        status = json_parse_text(document, text.data, text.bytes, "models", err);
    text_free(&text);
    return status;
}

/* Names each member that differs. The members are those of model_write, so that a new one cannot be
 * forgotten here; name and length may differ between models that can share weights. */
static enum status refuse_model(const struct model *saved, const struct model *model,
                                const char *folder, struct error *err)
{
    struct json_document *document = NULL;
    struct jin saved_at, model_at, member;
    struct text list = {0};
    void *iterator = NULL;
    const char *key = NULL;
    TRY(write_models(saved, model, &document, err));
    struct jin root = json_root(document);
    enum status status = jin_object(&root, "saved", &saved_at, err);
    if (status == STATUS_OK)
        status = jin_object(&root, "model", &model_at, err);
    while (status == STATUS_OK && jin_next_member(&saved_at, &iterator, &key, &member)) {
        struct text saved_value = {0}, model_value = {0};
        append_member(&saved_at, key, &saved_value);
        append_member(&model_at, key, &model_value);
        bool differs =
            saved_value.data && model_value.data && strcmp(saved_value.data, model_value.data) != 0;
        if (differs && strcmp(key, "name") != 0 && strcmp(key, "seq_length") != 0)
            text_printf(&list, "%s'%s' is %s in the checkpoint and %s in the model",
                        list.bytes > 0 ? "; " : "", key, saved_value.data, model_value.data);
        text_free(&saved_value);
        text_free(&model_value);
    }
    if (status == STATUS_OK)
        status = error_set(err, STATUS_INVALID, "checkpoint '%s' is of another model: %s", folder,
                           list.data ? list.data : "their weights differ");
    text_free(&list);
    json_document_free(document);
    return status;
}

static enum status read_moments(struct safetensors *file, const struct tensor_place *places,
                                size_t count, const struct weight_arrays *arrays, struct error *err)
{
    const char *const prefixes[] = {first_prefix, second_prefix};
    float *const moments[] = {arrays->first_moment, arrays->second_moment};
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < count; i++) {
            struct safetensor_out tensor;
            describe_tensors(&places[i], 1, prefixes[k], moments[k], &tensor);
            TRY(safetensors_read(file, tensor.name, moments[k] + places[i].first, places[i].count,
                                 err));
        }
    return STATUS_OK;
}

static enum status load_moments(const char *folder, const struct checkpoint_record *record,
                                const struct weight_arrays *arrays, struct error *err)
{
    char path[PATH_MAX];
    struct tensor_place *places = NULL;
    struct safetensors *file = NULL;
    size_t count = 0;
    if (!record->has_moments)
        return error_set(err, STATUS_INVALID,
                         "checkpoint '%s' holds weights only: training cannot be resumed from it, "
                         "but its weights can be loaded as initial ones",
                         folder);
    TRY(checkpoint_path(path, folder, checkpoint_file_names[CHECKPOINT_MOMENTS], err));
    TRY(tensor_places(&record->model, &places, &count, err));
    enum status status = safetensors_open(&file, path, err);
    if (status == STATUS_OK)
        status = read_moments(file, places, count, arrays, err);
    safetensors_close(file);
    free(places);
    return status;
}

enum status checkpoint_load(const char *path, const struct model *model,
                            const struct weight_arrays *arrays, struct training_state *state,
                            const struct reporter *reporter, struct error *err)
{
    char folder[PATH_MAX], weights[PATH_MAX];
    struct checkpoint_record record;
    assert((arrays->first_moment == NULL) == (arrays->second_moment == NULL));
    TRY(checkpoint_find(path, reporter, folder, &record, err));
    if (!model_same_weights(&record.model, model))
        return refuse_model(&record.model, model, folder, err);
    TRY(checkpoint_path(weights, folder, checkpoint_file_names[CHECKPOINT_WEIGHTS], err));
    TRY(weights_load_hf(weights, model, arrays->parameters, err));
    if (arrays->first_moment)
        TRY(load_moments(folder, &record, arrays, err));
    *state = record.state;
    return STATUS_OK;
}

enum status checkpoint_model(const char *path, struct model *model, char *resolved,
                             size_t resolved_bytes, struct error *err)
{
    char folder[PATH_MAX];
    struct checkpoint_record record;
    TRY(checkpoint_find(path, NULL, folder, &record, err));
    size_t bytes = strlen(folder) + 1;
    if (bytes > resolved_bytes)
        return error_set(err, STATUS_INVALID, "path '%.200s...' is longer than %zu bytes", folder,
                         resolved_bytes);
    memcpy(resolved, folder, bytes);
    *model = record.model;
    return STATUS_OK;
}
