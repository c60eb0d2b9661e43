/* The files of one checkpoint: every rank writes its own, rank 0 what binds them together. */
#include "base/file.h"
#include "base/json.h"
#include "executor/agree.h"
#include "executor/checkpoint_collect.h"
#include "executor/checkpoint_record.h"
#include "executor/safetensors.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One of weights and one of moments; without a name where the rank writes none. */
enum { FILES_PER_RANK = 2 };

struct contents {
    const char *folder;
    const struct memory_layout *layout;
    struct comm *comm;
    struct checkpoint_split split;
    struct collector collector;
    struct safetensor_out *list; /* [2 * split.count]: the tensors of the file under way */
    struct file_record files[FILES_PER_RANK];
    /* Of this rank's files. After a failure it still takes part in what the others write; they
     * learn of it when all are through. */
    enum status status;
};

static bool is_own(const struct contents *contents, const struct split_tensor *tensor)
{
    return tensor->rank == contents->layout->rank;
}

/* ---- this rank's file ---- */

struct part_file {
    const char *stem;
    enum tensor_array first, last; /* what of each tensor is in it */
    struct file_record *record;
    struct safetensors_writer *writer; /* NULL: the rank writes none, or has failed to */
};

static size_t list_tensors(struct contents *contents, const struct part_file *file)
{
    size_t count = 0;
    for (enum tensor_array array = file->first; array <= file->last; array++)
        for (size_t i = 0; i < contents->split.count; i++) {
            const struct tensor_place *place = &contents->split.tensors[i].place;
            if (!is_own(contents, &contents->split.tensors[i]))
                continue;
            struct safetensor_out *out = &contents->list[count++];
            *out = (struct safetensor_out){.rank = place->rank};
            (void)snprintf(out->name, sizeof(out->name), "%s%s", checkpoint_prefixes[array],
                           place->name);
            memcpy(out->shape, place->shape, sizeof(place->shape));
        }
    return count;
}

static enum status open_file(struct contents *contents, struct part_file *file, struct error *err)
{
    char path[PATH_MAX];
    const struct checkpoint_split *split = &contents->split;
    int number = split->files[contents->layout->rank];
    if (number == 0)
        return STATUS_OK;
    checkpoint_shard_name(file->record->name, file->stem, number, split->file_count);
    TRY(checkpoint_path(path, contents->folder, file->record->name, err));
    size_t count = list_tensors(contents, file);
    return safetensors_writer_open(&file->writer, path, contents->list, count, err);
}

static void add_tensor(struct contents *contents, struct part_file *file, struct error *err)
{
    contents->status = safetensors_writer_add(file->writer, contents->collector.whole, err);
    if (contents->status != STATUS_OK) {
        safetensors_writer_discard(file->writer);
        file->writer = NULL;
    }
}

static void finish_file(struct contents *contents, struct part_file *file, struct error *err)
{
    contents->status = safetensors_writer_commit(file->writer, err);
    if (contents->status != STATUS_OK)
        safetensors_writer_discard(file->writer);
    else
        contents->status = checkpoint_file_measure(contents->folder, file->record, err);
    file->writer = NULL;
}

/* Fails only when the ranks cannot talk to each other; contents->status tells of the file. */
static enum status write_file(struct contents *contents, struct part_file *file, struct error *err)
{
    if (contents->status == STATUS_OK)
        contents->status = open_file(contents, file, err);
    for (enum tensor_array array = file->first; array <= file->last; array++)
        for (size_t i = 0; i < contents->split.count; i++) {
            const struct split_tensor *tensor = &contents->split.tensors[i];
            if (tensor->stage != contents->layout->stage)
                continue;
            enum status status = collector_gather(&contents->collector, tensor, array, err);
            if (status != STATUS_OK) {
                safetensors_writer_discard(file->writer);
                return status;
            }
            if (file->writer && is_own(contents, tensor))
                add_tensor(contents, file, err);
        }
    if (file->writer)
        finish_file(contents, file, err);
    return STATUS_OK;
}

static enum status write_files(struct contents *contents, struct error *err)
{
    struct part_file weights = {.stem = CHECKPOINT_WEIGHTS_STEM,
                                .first = ARRAY_PARAMETERS,
                                .last = ARRAY_PARAMETERS,
                                .record = &contents->files[0]};
    struct part_file moments = {.stem = CHECKPOINT_MOMENTS_STEM,
                                .first = ARRAY_FIRST_MOMENT,
                                .last = ARRAY_SECOND_MOMENT,
                                .record = &contents->files[1]};
    TRY(write_file(contents, &weights, err));
    if (layout_has_moments(contents->layout))
        TRY(write_file(contents, &moments, err));
    return agree(contents->comm, contents->status, err);
}

/* ---- rank 0: what binds the files together ---- */

static enum status write_text(const char *folder, struct file_record *file, struct text *text,
                              struct error *err)
{
    char path[PATH_MAX];
    text_append(text, "\n");
    TRY(text_check(text, err));
    TRY(checkpoint_path(path, folder, file->name, err));
    TRY(file_write(path, text->data, text->bytes, err));
    return checkpoint_file_measure(folder, file, err);
}

static enum status write_config(const char *folder, const struct model *model,
                                struct file_record *file, struct error *err)
{
    struct text text = {0};
    (void)snprintf(file->name, sizeof(file->name), "%s", CHECKPOINT_CONFIG_FILE);
    enum status status = model_write_hf_config(model, &text, err);
    if (status == STATUS_OK)
        status = write_text(folder, file, &text, err);
    text_free(&text);
    return status;
}

/* Which file has which tensor, as Hugging Face's libraries look it up. */
static enum status write_index(const char *folder, const struct checkpoint_split *split,
                               struct file_record *file, struct error *err)
{
    struct jout *json = jout_new();
    struct text text = {0};
    uint64_t total = 0;
    for (size_t i = 0; i < split->count; i++)
        total += split->tensors[i].place.count;
    (void)snprintf(file->name, sizeof(file->name), "%s", CHECKPOINT_INDEX_FILE);
    jout_begin_object(json, "metadata");
    jout_int(json, "total_size", (int64_t)(total * sizeof(float)));
    jout_end(json);
    jout_begin_object(json, "weight_map");
    for (size_t i = 0; i < split->count; i++) {
        char name[CHECKPOINT_FILE_BYTES];
        checkpoint_shard_name(name, CHECKPOINT_WEIGHTS_STEM, split->files[split->tensors[i].rank],
                              split->file_count);
        jout_string(json, split->tensors[i].place.name, name);
    }
    jout_end(json);
    enum status status = jout_finish(json, 2, &text, err);
    if (status == STATUS_OK)
        status = write_text(folder, file, &text, err);
    text_free(&text);
    return status;
}

static void add_files(struct checkpoint_record *record, const struct contents *contents,
                      const struct file_record *written, size_t kind)
{
    for (int rank = 0; rank < contents->split.ranks; rank++) {
        const struct file_record *file = &written[(size_t)rank * FILES_PER_RANK + kind];
        if (file->name[0] != '\0')
            record->files[record->file_count++] = *file;
    }
}

/* `written` [ranks * FILES_PER_RANK] */
static enum status write_binding(const struct contents *contents,
                                 const struct training_state *state,
                                 const struct file_record *written, struct error *err)
{
    const struct model *model = &contents->layout->plan->model;
    struct checkpoint_record record = {.state = *state, .model = *model};
    size_t capacity = (size_t)contents->split.ranks * FILES_PER_RANK + 2;
    record.files = calloc(capacity, sizeof(*record.files));
    if (!record.files)
        return error_memory(err, capacity * sizeof(*record.files), "the list of files");
    enum status status = STATUS_OK;
    add_files(&record, contents, written, 0);
    if (contents->split.file_count > 1)
        status = write_index(contents->folder, &contents->split, &record.files[record.file_count++],
                             err);
    if (status == STATUS_OK)
        status = write_config(contents->folder, model, &record.files[record.file_count++], err);
    add_files(&record, contents, written, 1);
    if (status == STATUS_OK)
        status = checkpoint_record_write(contents->folder, &record, err);
    checkpoint_record_clear(&record);
    return status;
}

/* ---- the whole ---- */

static enum status prepare(struct contents *contents, struct error *err)
{
    TRY(checkpoint_split_make(&contents->split, contents->layout->plan, err));
    size_t capacity = FILES_PER_RANK * contents->split.count;
    contents->list = calloc(capacity, sizeof(*contents->list));
    if (!contents->list)
        return error_memory(err, capacity * sizeof(*contents->list), "the list of tensors");
    return collector_open(&contents->collector, contents->layout, contents->comm, &contents->split,
                          err);
}

static enum status write_all(struct contents *contents, const struct training_state *state,
                             struct error *err)
{
    size_t count = (size_t)comm_size(contents->comm) * FILES_PER_RANK;
    struct file_record *written = calloc(count, sizeof(*written));
    enum status status = prepare(contents, err);
    if (status == STATUS_OK && !written)
        status = error_memory(err, count * sizeof(*written), "the list of files");
    status = agree(contents->comm, status, err);
    if (status == STATUS_OK)
        status = write_files(contents, err);
    if (status == STATUS_OK)
        status =
            comm_all_gather(contents->comm, contents->files, written, sizeof(contents->files), err);
    if (status == STATUS_OK) {
        if (comm_rank(contents->comm) == 0)
            status = write_binding(contents, state, written, err);
        status = agree(contents->comm, status, err);
    }
    free(written);
    return status;
}

enum status checkpoint_contents_write(const char *folder, const struct memory_layout *layout,
                                      struct comm *comm, const struct training_state *state,
                                      struct error *err)
{
    struct contents contents = {.folder = folder, .layout = layout, .comm = comm};
    enum status status = write_all(&contents, state, err);
    collector_close(&contents.collector);
    checkpoint_split_clear(&contents.split);
    free(contents.list);
    return status;
}
