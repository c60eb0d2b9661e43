/* Publishing checkpoints: written aside, made visible by one rename, older ones removed after. */
#include "base/file.h"
#include "executor/agree.h"
#include "executor/checkpoint_find.h"
#include "executor/checkpoint_record.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char temporary_prefix[] = ".tmp-";

enum { NAME_BYTES = 64 };

/* One writer a folder, so that what another one is writing is never taken for left over. The kernel
 * lets go of the lock when the process dies. A file system without such locks (some network ones)
 * is trusted to have one run a folder. */
static enum status lock_folder(const char *folder, int *lock, struct error *err)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, STATUS_IO, "cannot open the checkpoint folder '%s': %s", folder,
                         strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        (void)close(fd);
        return error_set(err, STATUS_IO,
                         "another process is saving a checkpoint in '%s': give each run a folder "
                         "of its own",
                         folder);
    }
    *lock = fd;
    return STATUS_OK;
}

/* What a run left behind that died while saving. The caller holds the lock. One that cannot be
 * removed is no reason to lose the new checkpoint as well. */
static void remove_left_over(const char *folder)
{
    DIR *entries = opendir(folder);
    for (struct dirent *entry = entries ? readdir(entries) : NULL; entry;
         entry = readdir(entries)) {
        char path[PATH_MAX];
        struct error ignored;
        if (strncmp(entry->d_name, temporary_prefix, sizeof(temporary_prefix) - 1) == 0 &&
            checkpoint_path(path, folder, entry->d_name, &ignored) == STATUS_OK)
            (void)folder_remove(path, &ignored);
    }
    if (entries)
        (void)closedir(entries);
}

static enum status name_paths(const char *folder, int64_t step, char temporary[PATH_MAX],
                              char target[PATH_MAX], struct error *err)
{
    char name[NAME_BYTES];
    (void)snprintf(name, sizeof(name), "%sstep-%08lld-%ld", temporary_prefix, (long long)step,
                   (long)getpid());
    TRY(checkpoint_path(temporary, folder, name, err));
    (void)snprintf(name, sizeof(name), "step-%08lld", (long long)step);
    return checkpoint_path(target, folder, name, err);
}

static enum status cannot_publish(const char *target, struct error *err)
{
    return error_set(err, STATUS_IO, "cannot put the checkpoint '%s' in its place: %s", target,
                     strerror(errno));
}

/* For file systems that cannot exchange two names: for a moment there is none of this step. */
static enum status replace_in_two_acts(const char *temporary, const char *target, struct error *err)
{
    char aside[PATH_MAX];
    struct error ignored;
    int bytes = snprintf(aside, sizeof(aside), "%s-old", temporary);
    if (bytes < 0 || (size_t)bytes >= sizeof(aside) || rename(target, aside) != 0)
        return cannot_publish(target, err);
    if (rename(temporary, target) != 0) {
        enum status status = cannot_publish(target, err);
        (void)rename(aside, target);
        return status;
    }
    (void)folder_remove(aside, &ignored);
    return STATUS_OK;
}

/* Where a checkpoint of this step is already there, the two change places in one act, and what is
 * under the temporary name afterwards is the old one. */
static enum status publish(const char *temporary, const char *target, struct error *err)
{
    struct error ignored;
    if (rename(temporary, target) == 0)
        return STATUS_OK;
    if (errno != EEXIST && errno != ENOTEMPTY)
        return cannot_publish(target, err);
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, target, RENAME_EXCHANGE) == 0) {
        (void)folder_remove(temporary, &ignored);
        return STATUS_OK;
    }
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP)
        return cannot_publish(target, err);
    return replace_in_two_acts(temporary, target, err);
}

/* What rank 0 has begun and must end. */
struct publication {
    char temporary[PATH_MAX], target[PATH_MAX];
    int lock; /* -1: none */
};

static enum status begin(struct publication *publication, const char *folder, int64_t step,
                         struct error *err)
{
    TRY(folder_create(folder, err));
    TRY(lock_folder(folder, &publication->lock, err));
    remove_left_over(folder);
    TRY(name_paths(folder, step, publication->temporary, publication->target, err));
    if (mkdir(publication->temporary, 0777) == 0)
        return STATUS_OK;
    return error_set(err, STATUS_IO, "cannot create the folder '%s': %s", publication->temporary,
                     strerror(errno));
}

/* Each file was synced as it was written, and its folder after each. `status` is that of the
 * contents: what is not whole is removed. */
static enum status finish(const struct publication *publication, const char *folder,
                          enum status status, struct error *err)
{
    struct error ignored;
    if (status == STATUS_OK)
        status = publish(publication->temporary, publication->target, err);
    if (status != STATUS_OK) {
        (void)folder_remove(publication->temporary, &ignored);
        return status;
    }
    return folder_sync(folder, err);
}

/* Renamed before it is removed, so that no half-removed checkpoint is ever seen. */
static void remove_checkpoint(const char *folder, const char *name)
{
    char path[PATH_MAX], aside[PATH_MAX], aside_name[NAME_BYTES];
    struct error ignored;
    (void)snprintf(aside_name, sizeof(aside_name), "%sold-%s", temporary_prefix, name);
    if (checkpoint_path(path, folder, name, &ignored) == STATUS_OK &&
        checkpoint_path(aside, folder, aside_name, &ignored) == STATUS_OK &&
        rename(path, aside) == 0)
        (void)folder_remove(aside, &ignored);
}

/* All but `keep` up to the newest step; later ones are of another run. One that cannot be removed
 * stays: that is no reason to stop a training whose checkpoint has just been saved, and the next
 * save tries again. */
static void remove_older(const char *folder, int64_t newest, int64_t keep)
{
    struct checkpoint_list list = {0};
    struct error ignored;
    int64_t kept = 0;
    (void)checkpoint_list_read(folder, &list, &ignored);
    for (size_t i = 0; i < list.count; i++)
        if (list.rows[i].step <= newest && kept++ >= keep)
            remove_checkpoint(folder, list.rows[i].name);
    free(list.rows);
}

static enum status write_new(struct publication *publication, const char *folder,
                             const struct memory_layout *layout, struct comm *comm,
                             const struct training_state *state, struct error *err)
{
    bool is_first = comm_rank(comm) == 0;
    enum status status = comm_broadcast(comm, publication->temporary, PATH_MAX, 0, err);
    if (status == STATUS_OK)
        status = checkpoint_contents_write(publication->temporary, layout, comm, state, err);
    bool is_written = status == STATUS_OK;
    if (is_first)
        status = finish(publication, folder, status, err);
    /* A failure before this is known to all of them. */
    if (is_written)
        status = agree(comm, status, err);
    if (status != STATUS_OK)
        return error_prefix(err, "saving the checkpoint of step %lld", (long long)state->step);
    return STATUS_OK;
}

enum status checkpoint_save(const char *folder, const struct memory_layout *layout,
                            struct comm *comm, const struct training_state *state, int64_t keep,
                            struct error *err)
{
    struct publication publication = {.lock = -1};
    bool is_first = comm_rank(comm) == 0;
    enum status status = STATUS_OK;
    assert(keep >= 1 && state->step >= 0);
    assert(layout->rank == comm_rank(comm) && layout->plan->ranks == comm_size(comm));
    if (is_first)
        status = begin(&publication, folder, state->step, err);
    status = agree(comm, status, err);
    if (status == STATUS_OK)
        status = write_new(&publication, folder, layout, comm, state, err);
    if (status == STATUS_OK && is_first)
        remove_older(folder, state->step, keep);
    if (publication.lock >= 0)
        (void)close(publication.lock);
    return status;
}
