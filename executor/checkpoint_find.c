#include "executor/checkpoint_find.h"
#include "base/file.h"
#include "executor/agree.h"
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

/* Every rank reads state.json, and the other files are shared out. */
static enum status examine(const char *folder, struct comm *comm, struct checkpoint_record *record,
                           struct error *err)
{
    enum status status = checkpoint_record_read(folder, record, err);
    if (status == STATUS_OK)
        status = checkpoint_record_verify(folder, record, (size_t)comm_rank(comm),
                                          (size_t)comm_size(comm), err);
    status = agree(comm, status, err);
    if (status != STATUS_OK)
        checkpoint_record_clear(record);
    return status;
}

/* An older checkpoint stands in for a damaged one, not for one that this temper is too old or the
 * machine too small to read. */
static bool is_torn(enum status status)
{
    return status == STATUS_CORRUPT || status == STATUS_INVALID || status == STATUS_IO;
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

/* Only rank 0 looks, so that all ranks try the same ones whatever happens in the folder. */
struct candidates {
    char folder[PATH_MAX]; /* the checkpoint itself, or the folder of those in the list */
    bool is_one;
    struct checkpoint_list list;
};

static enum status find_candidates(const char *path, struct candidates *out, struct error *err)
{
    size_t bytes = strlen(path);
    while (bytes > 1 && path[bytes - 1] == '/')
        bytes--;
    if (bytes >= sizeof(out->folder))
        return error_set(err, STATUS_INVALID, "path '%.200s...' is longer than %d bytes", path,
                         PATH_MAX - 1);
    memcpy(out->folder, path, bytes);
    out->folder[bytes] = '\0';
    out->is_one = is_checkpoint(out->folder);
    if (out->is_one)
        return STATUS_OK;
    TRY(checkpoint_list_read(out->folder, &out->list, err));
    if (out->list.count > 0)
        return STATUS_OK;
    return error_set(err, STATUS_INVALID,
                     "'%s' holds no checkpoint: expected folders named %sNNNNNNNN, or a %s",
                     out->folder, step_prefix, CHECKPOINT_STATE_FILE);
}

/* The path of a candidate, at every rank. */
static enum status tell_path(const struct candidates *candidates, size_t index, struct comm *comm,
                             char path[PATH_MAX], struct error *err)
{
    enum status status = STATUS_OK;
    memset(path, 0, PATH_MAX);
    if (comm_rank(comm) == 0 && candidates->is_one)
        memcpy(path, candidates->folder, strlen(candidates->folder) + 1);
    else if (comm_rank(comm) == 0)
        status = checkpoint_path(path, candidates->folder, candidates->list.rows[index].name, err);
    TRY(agree(comm, status, err));
    return comm_broadcast(comm, path, PATH_MAX, 0, err);
}

static enum status try_candidates(const struct candidates *candidates, struct comm *comm,
                                  const struct reporter *reporter, char resolved[PATH_MAX],
                                  struct checkpoint_record *record, struct error *err)
{
    int64_t told[] = {candidates->is_one, (int64_t)candidates->list.count};
    TRY(comm_broadcast(comm, told, sizeof(told), 0, err));
    bool is_one = told[0] != 0;
    size_t count = is_one ? 1 : (size_t)told[1];
    for (size_t i = 0; i < count; i++) {
        TRY(tell_path(candidates, i, comm, resolved, err));
        enum status status = examine(resolved, comm, record, err);
        if (!is_torn(status) || is_one)
            return status;
        if (comm_rank(comm) == 0)
            report_warning(reporter, "checkpoint '%s' is not whole and is passed over: %s",
                           resolved, err->message);
    }
    char *folder_end = strrchr(resolved, '/');
    return error_prefix(err, "none of the %zu checkpoints in '%.*s' is whole; the oldest", count,
                        (int)(folder_end ? folder_end - resolved : 0), resolved);
}

enum status checkpoint_find(const char *path, struct comm *comm, const struct reporter *reporter,
                            char resolved[PATH_MAX], struct checkpoint_record *record,
                            struct error *err)
{
    struct candidates candidates = {0};
    enum status status = STATUS_OK;
    if (comm_rank(comm) == 0)
        status = find_candidates(path, &candidates, err);
    status = agree(comm, status, err);
    if (status == STATUS_OK)
        status = try_candidates(&candidates, comm, reporter, resolved, record, err);
    free(candidates.list.rows);
    return status;
}
