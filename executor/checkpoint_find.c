#include "executor/checkpoint_find.h"
#include "base/file.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char step_prefix[] = "step-";

enum { STEP_DIGITS_MAX = 18 /* any number of so many digits is an int64_t */ };
_Static_assert(sizeof(step_prefix) + STEP_DIGITS_MAX <= CHECKPOINT_NAME_BYTES, "names fit");

static bool parse_step(const char *name, int64_t *step)
{
    const size_t prefix_bytes = sizeof(step_prefix) - 1;
    if (strncmp(name, step_prefix, prefix_bytes) != 0)
        return false;
    const char *digits = name + prefix_bytes;
    size_t count = strspn(digits, "0123456789");
    if (count == 0 || count > STEP_DIGITS_MAX || digits[count] != '\0')
        return false;
    *step = strtoll(digits, NULL, 10);
    return true;
}

static enum status append_name(struct checkpoint_list *list, int64_t step, const char *name,
                               struct error *err)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity > 0 ? list->capacity * 2 : 16;
        struct checkpoint_name *rows = realloc(list->rows, capacity * sizeof(*rows));
        if (!rows)
            return error_memory(err, capacity * sizeof(*rows), "the list of checkpoints");
        list->rows = rows;
        list->capacity = capacity;
    }
    struct checkpoint_name *row = &list->rows[list->count++];
    row->step = step;
    memcpy(row->name, name, strlen(name) + 1);
    return STATUS_OK;
}

static int compare_newest_first(const void *a, const void *b)
{
    const struct checkpoint_name *left = a, *right = b;
    return (left->step < right->step) - (left->step > right->step);
}

enum status checkpoint_list_read(const char *folder, struct checkpoint_list *list,
                                 struct error *err)
{
    DIR *entries = opendir(folder);
    if (!entries)
        return error_set(err, STATUS_IO, "cannot open the checkpoint folder '%s': %s", folder,
                         strerror(errno));
    enum status status = STATUS_OK;
    int64_t step;
    for (struct dirent *entry = readdir(entries); entry && status == STATUS_OK;
         entry = readdir(entries))
        if (parse_step(entry->d_name, &step))
            status = append_name(list, step, entry->d_name, err);
    (void)closedir(entries);
    if (list->count > 0)
        qsort(list->rows, list->count, sizeof(*list->rows), compare_newest_first);
    return status;
}

static enum status examine(const char *folder, char resolved[PATH_MAX],
                           struct checkpoint_record *record, struct error *err)
{
    TRY(checkpoint_record_read(folder, record, err));
    TRY(checkpoint_record_verify(folder, record, err));
    memcpy(resolved, folder, strlen(folder) + 1);
    return STATUS_OK;
}

/* An older checkpoint stands in for a damaged one, not for one that this temper is too old or the
 * machine too small to read. */
static bool is_torn(enum status status)
{
    return status == STATUS_CORRUPT || status == STATUS_INVALID || status == STATUS_IO;
}

static enum status find_newest(const char *folder, const struct checkpoint_list *list,
                               const struct reporter *reporter, char resolved[PATH_MAX],
                               struct checkpoint_record *record, struct error *err)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; i < list->count; i++) {
        char path[PATH_MAX];
        TRY(checkpoint_path(path, folder, list->rows[i].name, err));
        status = examine(path, resolved, record, err);
        if (!is_torn(status))
            return status;
        report_warning(reporter, "checkpoint '%s' is not whole and is passed over: %s", path,
                       err->message);
    }
    if (list->count == 0)
        return error_set(err, STATUS_INVALID,
                         "'%s' holds no checkpoint: expected folders named %sNNNNNNNN, or a %s",
                         folder, step_prefix, CHECKPOINT_STATE_FILE);
    return error_prefix(err, "none of the %zu checkpoints in '%s' is whole; the oldest",
                        list->count, folder);
}

/* A folder named like a checkpoint is one even when its state.json is lost. */
static bool is_checkpoint(const char *folder)
{
    char path[PATH_MAX];
    struct error ignored;
    int64_t step;
    const char *name = strrchr(folder, '/');
    if (parse_step(name ? name + 1 : folder, &step))
        return true;
    return checkpoint_path(path, folder, CHECKPOINT_STATE_FILE, &ignored) == STATUS_OK &&
           file_exists(path);
}

enum status checkpoint_find(const char *path, const struct reporter *reporter,
                            char resolved[PATH_MAX], struct checkpoint_record *record,
                            struct error *err)
{
    char folder[PATH_MAX];
    size_t bytes = strlen(path);
    while (bytes > 1 && path[bytes - 1] == '/')
        bytes--;
    if (bytes >= sizeof(folder))
        return error_set(err, STATUS_INVALID, "path '%.200s...' is longer than %d bytes", path,
                         PATH_MAX - 1);
    memcpy(folder, path, bytes);
    folder[bytes] = '\0';
    if (is_checkpoint(folder))
        return examine(folder, resolved, record, err);
    struct checkpoint_list list = {0};
    enum status status = checkpoint_list_read(folder, &list, err);
    if (status == STATUS_OK)
        status = find_newest(folder, &list, reporter, resolved, record, err);
    free(list.rows);
    return status;
}
