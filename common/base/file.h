/* Files that are whole or absent: written to a temporary name beside the target, synced, renamed.
 */
#ifndef TEMPER_BASE_FILE_H
#define TEMPER_BASE_FILE_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Read a whole file; *data has one NUL byte after *bytes and is freed by the caller with free(). */
enum status file_read(const char *path, char **data, size_t *bytes, struct error *err);
/* Write a whole file: temporary name, fsync, rename, fsync of the folder. A link is followed, a
 * replaced file keeps its permissions, and a device or pipe is written to directly. */
enum status file_write(const char *path, const void *data, size_t bytes, struct error *err);

/* The same in pieces. On any failure, or when file_out_commit is not reached, call
 * file_out_discard: the target is then as it was. */
struct file_out;
enum status file_out_open(struct file_out **out, const char *path, struct error *err);
enum status file_out_write(struct file_out *file, const void *data, size_t bytes,
                           struct error *err);
/* Write over bytes that were written before: `offset` + `bytes` is not behind the end. */
enum status file_out_rewrite(struct file_out *file, uint64_t offset, const void *data, size_t bytes,
                             struct error *err);
enum status file_out_commit(struct file_out *file, struct error *err); /* frees on success */
void file_out_discard(struct file_out *file);                          /* NULL allowed */

bool file_exists(const char *path);
bool folder_exists(const char *path);
enum status folder_create(const char *path, struct error *err); /* parents too; existing is fine */
enum status folder_remove(const char *path, struct error *err); /* with everything in it; links are
                                                                   removed, not followed */
enum status folder_sync(const char *path, struct error *err);   /* fsync of the folder itself */

#endif
