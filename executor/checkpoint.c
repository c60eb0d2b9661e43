/* Loading checkpoints. */
#include "executor/checkpoint.h"
#include "base/json.h"
#include "executor/agree.h"
#include "executor/checkpoint_find.h"
#include "executor/checkpoint_record.h"
#include "executor/tensor_load.h"
#include <stdlib.h>
#include <string.h>

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

/* ---- moments ---- */

/* "first_moment.NAME" or "second_moment.NAME" */
static struct wanted_tensor *find_moment(const struct tensor_loader *loader, const char *name,
                                         enum tensor_array *array)
{
    for (*array = ARRAY_FIRST_MOMENT; *array < ARRAY_COUNT; (*array)++) {
        const char *prefix = checkpoint_prefixes[*array];
        if (strncmp(name, prefix, strlen(prefix)) == 0)
            return tensor_loader_find(loader, "", name + strlen(prefix));
    }
    return NULL;
}

static enum status load_moment_file(struct tensor_loader *loader, const char *path,
                                    struct error *err)
{
    struct safetensors *file = NULL;
    TRY(safetensors_open(&file, path, err));
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < safetensors_count(file); i++) {
        const char *name = safetensors_name(file, i);
        enum tensor_array array;
        struct wanted_tensor *wanted = find_moment(loader, name, &array);
        if (!wanted)
            status = error_set(err, STATUS_INVALID,
                               "%s: tensor '%s' is no moment of the model's tensors", path, name);
        else
            status = tensor_loader_take(loader, file, path, name, wanted, array, err);
    }
    safetensors_close(file);
    return status;
}

static enum status check_all_moments(const struct tensor_loader *loader, const char *folder,
                                     struct error *err)
{
    for (enum tensor_array array = ARRAY_FIRST_MOMENT; array < ARRAY_COUNT; array++) {
        const struct wanted_tensor *missing = tensor_loader_missing(loader, array);
        if (missing)
            return error_set(err, STATUS_INVALID, "checkpoint '%s' has no tensor '%s%s'", folder,
                             checkpoint_prefixes[array], missing->place.name);
    }
    return STATUS_OK;
}

static enum status load_moments(const char *folder, const struct checkpoint_record *record,
                                const struct memory_layout *layout, struct error *err)
{
    struct tensor_loader loader;
    bool has_moments = false;
    TRY(tensor_loader_open(&loader, layout, err));
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < record->file_count; i++) {
        char path[PATH_MAX];
        if (!checkpoint_is_moments(&record->files[i]))
            continue;
        has_moments = true;
        status = checkpoint_path(path, folder, record->files[i].name, err);
        if (status == STATUS_OK)
            status = load_moment_file(&loader, path, err);
    }
    if (!has_moments)
        status = error_set(err, STATUS_INVALID,
                           "checkpoint '%s' holds weights only: training cannot be resumed from "
                           "it, but its weights can be loaded as initial ones",
                           folder);
    if (status == STATUS_OK)
        status = check_all_moments(&loader, folder, err);
    tensor_loader_close(&loader);
    return status;
}

/* ---- the whole ---- */

static enum status load_contents(const char *folder, const struct checkpoint_record *record,
                                 const struct memory_layout *layout, struct error *err)
{
    const struct model *model = &layout->plan->model;
    if (!model_same_weights(&record->model, model))
        return refuse_model(&record->model, model, folder, err);
    TRY(weights_load_hf(folder, layout, err));
    return layout_has_moments(layout) ? load_moments(folder, record, layout, err) : STATUS_OK;
}

enum status checkpoint_load(const char *path, const struct memory_layout *layout, struct comm *comm,
                            struct training_state *state, const struct reporter *reporter,
                            struct error *err)
{
    char folder[PATH_MAX];
    struct checkpoint_record record = {0};
    TRY(checkpoint_find(path, comm, reporter, folder, &record, err));
    enum status status = agree(comm, load_contents(folder, &record, layout, err), err);
    if (status == STATUS_OK)
        *state = record.state;
    checkpoint_record_clear(&record);
    return status;
}

enum status checkpoint_model(const char *path, struct model *model, char *resolved,
                             size_t resolved_bytes, struct error *err)
{
    char folder[PATH_MAX];
    struct checkpoint_record record = {0};
    struct comm *alone = NULL;
    TRY(comm_open_alone(&alone, err));
    enum status status = checkpoint_find(path, alone, NULL, folder, &record, err);
    comm_close(alone);
    TRY(status);
    struct model found = record.model;
    checkpoint_record_clear(&record);
    size_t bytes = strlen(folder) + 1;
    if (bytes > resolved_bytes)
        return error_set(err, STATUS_INVALID, "path '%.200s...' is longer than %zu bytes", folder,
                         resolved_bytes);
    memcpy(resolved, folder, bytes);
    *model = found;
    return STATUS_OK;
}
