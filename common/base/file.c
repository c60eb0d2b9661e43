#include "base/file.h"
#include "base/liveness.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_OUT_BUFFER_BYTES = 64 * 1024, READ_FIRST_BYTES = 16 * 1024, SUFFIX_BYTES = 64 };

static enum status error_system(struct error *err, const char *act, const char *path, int code)
{
    return error_set(err, STATUS_IO, "cannot %s '%s': %s", act, path, strerror(code));
}

/* Reads up to the end of the file, so that /proc and pipes, whose size is unknown, work as well. */
static enum status read_all(int fd, const char *path, size_t expected_bytes, char **data,
                            size_t *bytes, struct error *err)
{
    size_t capacity = expected_bytes + 1 > READ_FIRST_BYTES ? expected_bytes + 1 : READ_FIRST_BYTES;
    size_t used = 0;
    char *buffer = malloc(capacity);
    if (!buffer)
        return error_memory(err, capacity, path);
    for (;;) {
        ssize_t got = read(fd, buffer + used, capacity - used - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int code = errno;
            free(buffer);
            return error_system(err, "read", path, code);
        }
        if (got == 0)
            break;
        used += (size_t)got;
        if (used + 1 < capacity)
            continue;
        char *larger = realloc(buffer, capacity * 2);
        if (!larger) {
            free(buffer);
            return error_memory(err, capacity * 2ULL, path);
        }
        buffer = larger;
        capacity *= 2;
    }
    buffer[used] = '\0';
    *data = buffer;
    *bytes = used;
    return STATUS_OK;
}

enum status file_read(const char *path, char **data, size_t *bytes, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_system(err, "open", path, errno);
    struct stat info;
    enum status status = STATUS_OK;
    if (fstat(fd, &info) != 0)
        status = error_system(err, "read", path, errno);
    else if (S_ISDIR(info.st_mode))
        status = error_set(err, STATUS_IO, "cannot read '%s': it is a folder, not a file", path);
    else
        status = read_all(fd, path, (size_t)info.st_size, data, bytes, err);
    (void)close(fd);
    return status;
}

enum status file_write(const char *path, const void *data, size_t bytes, struct error *err)
{
    struct file_out *file = NULL;
    TRY(file_out_open(&file, path, err));
    enum status status = file_out_write(file, data, bytes, err);
    if (status == STATUS_OK)
        status = file_out_commit(file, err);
    if (status != STATUS_OK)
        file_out_discard(file);
    return status;
}

struct file_out {
    int fd;          /* -1 once closed */
    char *path;      /* as the caller wrote it, for messages */
    char *target;    /* the same with links followed: what the rename replaces */
    char *temporary; /* NULL when writing straight to a device or pipe, or after the rename */
    uint64_t written_bytes;
    size_t buffered_bytes;
    char buffer[FILE_OUT_BUFFER_BYTES];
};

/* The folder part of `path`, allocated; NULL without memory. */
static char *folder_of(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return NULL;
    char *folder = strdup(dirname(copy));
    free(copy);
    return folder;
}

/* A new file in the target's folder, under a name that no other process or thread has. */
static enum status open_temporary(struct file_out *file, mode_t mode, struct error *err)
{
    static atomic_uint counter;
    char *folder = folder_of(file->target);
    size_t capacity = folder ? strlen(folder) + SUFFIX_BYTES : 0;
    file->temporary = folder ? malloc(capacity) : NULL;
    if (!file->temporary) {
        free(folder);
        return error_memory(err, capacity, "a temporary file's name");
    }
    int code = 0;
    do {
        (void)snprintf(file->temporary, capacity, "%s/.temper-%ld-%u.tmp", folder, (long)getpid(),
                       atomic_fetch_add(&counter, 1));
        file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        code = errno;
    } while (file->fd < 0 && code == EEXIST);
    free(folder);
    if (file->fd < 0) {
        free(file->temporary);
        file->temporary = NULL;
        return error_system(err, "create", file->path, code);
    }
    /* A replaced file keeps its permissions; where the system refuses that, the default stands. */
    if (mode != 0)
        (void)fchmod(file->fd, mode & 07777);
    return STATUS_OK;
}

static enum status open_target(struct file_out *file, struct error *err)
{
    struct stat info;
    bool exists = stat(file->path, &info) == 0;
    if (exists && S_ISDIR(info.st_mode))
        return error_set(err, STATUS_IO, "cannot write '%s': it is a folder, not a file",
                         file->path);
    if (exists && !S_ISREG(info.st_mode)) {
        /* A device or pipe is written to; a rename would replace /dev/null by a file. */
        file->fd = open(file->path, O_WRONLY | O_CLOEXEC);
        return file->fd < 0 ? error_system(err, "open", file->path, errno) : STATUS_OK;
    }
    if (exists && access(file->path, W_OK) != 0)
        return error_system(err, "write", file->path, errno);
    file->target = exists ? realpath(file->path, NULL) : strdup(file->path);
    if (!file->target)
        return errno == ENOMEM ? error_memory(err, strlen(file->path) + 1, file->path)
                               : error_system(err, "resolve", file->path, errno);
    return open_temporary(file, exists ? info.st_mode : 0, err);
}

enum status file_out_open(struct file_out **out, const char *path, struct error *err)
{
    if (path[0] == '\0')
        return error_set(err, STATUS_IO, "cannot write a file with an empty name");
    struct file_out *file = calloc(1, sizeof(*file));
    if (!file)
        return error_memory(err, sizeof(*file), path);
    file->fd = -1;
    file->path = strdup(path);
    enum status status =
        file->path ? open_target(file, err) : error_memory(err, strlen(path) + 1, path);
    if (status != STATUS_OK) {
        file_out_discard(file);
        return status;
    }
    *out = file;
    return STATUS_OK;
}

static enum status write_all(struct file_out *file, const char *data, size_t bytes,
                             struct error *err)
{
    while (bytes > 0) {
        ssize_t put = write(file->fd, data, bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return error_set(err, STATUS_IO, "cannot write '%s': %s (after %llu bytes%s)",
                             file->path, strerror(errno), (unsigned long long)file->written_bytes,
                             file->temporary ? "; what was there before is unchanged" : "");
        liveness_advance();
        data += put;
        bytes -= (size_t)put;
        file->written_bytes += (uint64_t)put;
    }
    return STATUS_OK;
}

static enum status flush_buffer(struct file_out *file, struct error *err)
{
    TRY(write_all(file, file->buffer, file->buffered_bytes, err));
    file->buffered_bytes = 0;
    return STATUS_OK;
}

enum status file_out_write(struct file_out *file, const void *data, size_t bytes, struct error *err)
{
    if (bytes > sizeof(file->buffer) - file->buffered_bytes)
        TRY(flush_buffer(file, err));
    if (bytes >= sizeof(file->buffer))
        return write_all(file, data, bytes, err);
    if (bytes > 0)
        memcpy(file->buffer + file->buffered_bytes, data, bytes);
    file->buffered_bytes += bytes;
    return STATUS_OK;
}

enum status file_out_rewrite(struct file_out *file, uint64_t offset, const void *data, size_t bytes,
                             struct error *err)
{
    TRY(flush_buffer(file, err));
    assert(offset + bytes <= file->written_bytes);
    for (size_t done = 0; done < bytes;) {
        ssize_t put =
            pwrite(file->fd, (const char *)data + done, bytes - done, (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return error_system(err, "write", file->path, errno);
        liveness_advance();
        done += (size_t)put;
    }
    return STATUS_OK;
}

static void file_out_free(struct file_out *file)
{
    free(file->temporary);
    free(file->target);
    free(file->path);
    free(file);
}

enum status file_out_commit(struct file_out *file, struct error *err)
{
    TRY(flush_buffer(file, err));
    if (file->temporary && fsync(file->fd) != 0)
        return error_system(err, "sync", file->path, errno);
    int closed = close(file->fd);
    file->fd = -1;
    if (closed != 0)
        return error_system(err, "close", file->path, errno);
    if (file->temporary) {
        if (rename(file->temporary, file->target) != 0)
            return error_system(err, "replace", file->path, errno);
        free(file->temporary);
        file->temporary = NULL;
        char *folder = folder_of(file->target);
        enum status status =
            folder ? folder_sync(folder, err) : error_memory(err, strlen(file->target), file->path);
        free(folder);
        TRY(status);
    }
    file_out_free(file);
    return STATUS_OK;
}

void file_out_discard(struct file_out *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        (void)close(file->fd);
    if (file->temporary)
        (void)unlink(file->temporary);
    file_out_free(file);
}

bool file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISDIR(info.st_mode);
}

bool folder_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

enum status folder_create(const char *path, struct error *err)
{
    char *prefix = strdup(path);
    if (!prefix)
        return error_memory(err, strlen(path) + 1, path);
    enum status status = STATUS_OK;
    if (path[0] == '\0')
        status = error_set(err, STATUS_IO, "cannot create a folder with an empty name");
    for (char *end = prefix; status == STATUS_OK && *end != '\0';) {
        end += strspn(end, "/");
        end += strcspn(end, "/");
        char kept = *end;
        *end = '\0';
        if (mkdir(prefix, 0777) != 0 && !folder_exists(prefix))
            status = errno == EEXIST
                         ? error_set(err, STATUS_IO,
                                     "cannot create the folder '%s': '%s' is a file", path, prefix)
                         : error_system(err, "create the folder", prefix, errno);
        *end = kept;
    }
    free(prefix);
    return status;
}

static int remove_entries(int folder_fd);

/* 0, or errno. Links are removed, never followed. */
static int remove_entry(int parent_fd, const char *name)
{
    if (unlinkat(parent_fd, name, 0) == 0)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return errno;
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int code = remove_entries(fd);
    if (code == 0 && unlinkat(parent_fd, name, AT_REMOVEDIR) != 0)
        code = errno;
    return code;
}

/* Takes `folder_fd` over and closes it. */
static int remove_entries(int folder_fd)
{
    DIR *folder = fdopendir(folder_fd);
    if (!folder) {
        int code = errno;
        (void)close(folder_fd);
        return code;
    }
    int code = 0;
    errno = 0;
    for (struct dirent *entry = readdir(folder); entry && code == 0; entry = readdir(folder)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            code = remove_entry(folder_fd, entry->d_name);
        errno = 0;
    }
    if (code == 0)
        code = errno;
    (void)closedir(folder);
    return code;
}

enum status folder_remove(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_system(err, "remove the folder", path, errno);
    int code = remove_entries(fd);
    if (code == 0 && rmdir(path) != 0)
        code = errno;
    return code == 0 ? STATUS_OK : error_system(err, "remove the folder", path, code);
}

enum status folder_sync(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_system(err, "open the folder", path, errno);
    /* Some network file systems cannot sync a folder and say EINVAL: nothing more can be done. */
    int code = fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
    (void)close(fd);
    return code == 0 ? STATUS_OK : error_system(err, "sync the folder", path, code);
}
