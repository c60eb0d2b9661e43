/* The safetensors file format: 8 bytes of header length, a JSON header, the tensors' bytes. What
 * temper adds and what it refuses: docs/checkpoint.md. */
#ifndef TEMPER_EXECUTOR_SAFETENSORS_H
#define TEMPER_EXECUTOR_SAFETENSORS_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_RANK_MAX = 4 };

/* One tensor to be written: fp32, row-major. */
struct safetensor_out {
    char name[112];
    int64_t shape[SAFETENSORS_RANK_MAX];
    int rank;
};

/* Writes the tensors, whose names differ, one after the other, so that no more than one has to be
 * in memory, with "__metadata__": {"format": "pt", "temper.xxh3.<name>": checksum of each}. The
 * checksums stand before the data: zeros keep their places until the last tensor is written. Whole
 * or absent (base/file.h). */
struct safetensors_writer;
/* `tensors` is borrowed until the end. */
enum status safetensors_writer_open(struct safetensors_writer **out, const char *path,
                                    const struct safetensor_out *tensors, size_t count,
                                    struct error *err);
/* The elements of the next tensor; host-readable. */
enum status safetensors_writer_add(struct safetensors_writer *writer, const float *data,
                                   struct error *err);
/* After the last tensor; frees on success. After any failure call safetensors_writer_discard. */
enum status safetensors_writer_commit(struct safetensors_writer *writer, struct error *err);
void safetensors_writer_discard(struct safetensors_writer *writer); /* NULL allowed */

struct safetensors; /* an open file */

/* Opens and checks the header: offsets inside the file, no overlaps and no gaps, sizes equal
 * shape x dtype, header size sane. A torn or hostile file is STATUS_CORRUPT by name; a dtype or
 * rank that temper does not know is STATUS_UNSUPPORTED. */
enum status safetensors_open(struct safetensors **out, const char *path, struct error *err);
void safetensors_close(struct safetensors *file);
size_t safetensors_count(const struct safetensors *file);
/* In alphabetical order; borrowed from `file`. */
const char *safetensors_name(const struct safetensors *file, size_t index);
bool safetensors_has(const struct safetensors *file, const char *name);
/* The rank and shape of a tensor; -1 if there is none of this name. */
int safetensors_shape(const struct safetensors *file, const char *name,
                      int64_t shape[SAFETENSORS_RANK_MAX]);
/* Read a tensor as fp32 (dtypes F32, F16, BF16, F64) into data [count]; the element count must
 * match and, where the file has a checksum of it, so must that (STATUS_CORRUPT naming file and
 * tensor). On failure `data` may have been written to. */
enum status safetensors_read(struct safetensors *file, const char *name, float *data,
                             uint64_t count, struct error *err);

#endif
