#include "executor/safetensors.h"
#include "base/hash.h"
#include "base/json.h"
#include "executor/safetensors_format.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8, HEADER_BYTES_MAX = 100 * 1000 * 1000 };

static const char metadata_key[] = SAFETENSORS_METADATA_KEY;
static const char checksum_prefix[] = SAFETENSORS_CHECKSUM_PREFIX;

struct entry {
    const char *name; /* borrowed from the header */
    const struct safetensor_dtype *dtype;
    const char *checksum; /* hexadecimal digits, borrowed from the header; NULL: none */
    int64_t shape[SAFETENSORS_RANK_MAX];
    int rank;
    uint64_t count;
    int64_t first_byte, end_byte; /* in the data, which follows the header */
};

struct safetensors {
    int fd;
    char *path;
    struct json_document *header;
    int64_t data_offset, data_bytes; /* in the file */
    struct entry *entries;           /* [count], by name */
    size_t count;
};

static enum status read_at(const struct safetensors *file, int64_t offset, void *data, size_t bytes,
                           struct error *err)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(file->fd, (char *)data + done, bytes - done, offset + (int64_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, STATUS_IO, "cannot read '%s': %s", file->path, strerror(errno));
        if (got == 0)
            return error_set(err, STATUS_CORRUPT, "%s: ends at byte %lld, byte %lld is wanted",
                             file->path, (long long)(offset + (int64_t)done),
                             (long long)(offset + (int64_t)bytes));
        done += (size_t)got;
    }
    return STATUS_OK;
}

/* ---- the header ---- */

static enum status corrupt_tensor(const struct safetensors *file, const char *name,
                                  const char *what, struct error *err)
{
    return error_set(err, STATUS_CORRUPT, "%s: tensor '%s': %s", file->path, name, what);
}

static enum status read_shape(const struct safetensors *file, const struct jin *tensor,
                              struct entry *entry, struct error *err)
{
    struct jin shape;
    TRY(jin_array(tensor, "shape", &shape, err));
    if (jin_length(&shape) > SAFETENSORS_RANK_MAX)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: tensor '%s': has %zu dimensions, at most %d are supported",
                         file->path, entry->name, jin_length(&shape), SAFETENSORS_RANK_MAX);
    entry->rank = (int)jin_length(&shape);
    entry->count = 1;
    for (int i = 0; i < entry->rank; i++) {
        struct jin length = jin_element(&shape, (size_t)i);
        TRY(jin_as_int(&length, &entry->shape[i], err));
        if (entry->shape[i] < 0)
            return error_set(err, STATUS_CORRUPT, "%s: tensor '%s': dimension %d is negative: %lld",
                             file->path, entry->name, i, (long long)entry->shape[i]);
        if (__builtin_mul_overflow(entry->count, (uint64_t)entry->shape[i], &entry->count))
            return corrupt_tensor(file, entry->name, "its shape has more than 2^64 elements", err);
    }
    return STATUS_OK;
}

static enum status read_offsets(const struct safetensors *file, const struct jin *tensor,
                                struct entry *entry, struct error *err)
{
    struct jin offsets;
    TRY(jin_array(tensor, "data_offsets", &offsets, err));
    if (jin_length(&offsets) != 2)
        return corrupt_tensor(file, entry->name, "data_offsets must be [first, end]", err);
    struct jin first = jin_element(&offsets, 0), end = jin_element(&offsets, 1);
    TRY(jin_as_int(&first, &entry->first_byte, err));
    TRY(jin_as_int(&end, &entry->end_byte, err));
    if (entry->first_byte < 0 || entry->end_byte < entry->first_byte ||
        entry->end_byte > file->data_bytes)
        return error_set(err, STATUS_CORRUPT,
                         "%s: tensor '%s': data_offsets [%lld, %lld] are not inside the file's "
                         "%lld bytes of data",
                         file->path, entry->name, (long long)entry->first_byte,
                         (long long)entry->end_byte, (long long)file->data_bytes);
    uint64_t bytes;
    if (__builtin_mul_overflow(entry->count, entry->dtype->bytes, &bytes) ||
        bytes != (uint64_t)(entry->end_byte - entry->first_byte))
        return error_set(err, STATUS_CORRUPT,
                         "%s: tensor '%s': data_offsets span %lld bytes, %llu elements of %s need "
                         "%llu each",
                         file->path, entry->name, (long long)(entry->end_byte - entry->first_byte),
                         (unsigned long long)entry->count, entry->dtype->name,
                         (unsigned long long)entry->dtype->bytes);
    return STATUS_OK;
}

static enum status unsupported_dtype(const struct safetensors *file, const char *name,
                                     const char *dtype, struct error *err)
{
    struct text readable = {0};
    safetensor_dtype_names(&readable);
    (void)error_set(err, STATUS_UNSUPPORTED,
                    "%s: tensor '%s': dtype '%s' cannot be read as weights; temper reads %s",
                    file->path, name, dtype, readable.data ? readable.data : "F32");
    text_free(&readable);
    return err->status;
}

static enum status read_entry(const struct safetensors *file, const char *name,
                              const struct jin *tensor, struct entry *entry, struct error *err)
{
    const char *dtype = NULL;
    entry->name = name;
    TRY(jin_string(tensor, "dtype", &dtype, err));
    entry->dtype = safetensor_dtype_find(dtype);
    if (!entry->dtype)
        return unsupported_dtype(file, name, dtype, err);
    TRY(read_shape(file, tensor, entry, err));
    return read_offsets(file, tensor, entry, err);
}

static enum status read_entries(struct safetensors *file, const struct jin *root, struct error *err)
{
    void *iterator = NULL;
    const char *name = NULL;
    struct jin member;
    size_t members = 0;
    while (jin_next_member(root, &iterator, &name, &member))
        members++;
    file->entries = calloc(members + 1, sizeof(*file->entries));
    if (!file->entries)
        return error_memory(err, members * sizeof(*file->entries), file->path);
    iterator = NULL;
    while (jin_next_member(root, &iterator, &name, &member)) {
        if (strcmp(name, metadata_key) == 0)
            continue;
        TRY(read_entry(file, name, &member, &file->entries[file->count], err));
        file->count++;
    }
    return STATUS_OK;
}

static int compare_places(const void *a, const void *b)
{
    const struct entry *left = a, *right = b;
    if (left->first_byte != right->first_byte)
        return left->first_byte < right->first_byte ? -1 : 1;
    return (left->end_byte > right->end_byte) - (left->end_byte < right->end_byte);
}

static int compare_names(const void *a, const void *b)
{
    const struct entry *left = a, *right = b;
    return strcmp(left->name, right->name);
}

/* The tensors must lie one behind the other and fill the data, as the format demands: nothing can
 * overlap and a file cut short cannot pass. */
static enum status check_places(const struct safetensors *file, struct error *err)
{
    int64_t end_byte = 0;
    const char *before = metadata_key;
    qsort(file->entries, file->count, sizeof(*file->entries), compare_places);
    for (size_t i = 0; i < file->count; i++) {
        const struct entry *entry = &file->entries[i];
        if (entry->first_byte != end_byte)
            return error_set(
                err, STATUS_CORRUPT,
                "%s: tensor '%s': starts at data byte %lld, but '%s' before it ends at "
                "%lld: tensors must not %s",
                file->path, entry->name, (long long)entry->first_byte, before, (long long)end_byte,
                entry->first_byte < end_byte ? "overlap" : "leave gaps");
        end_byte = entry->end_byte;
        before = entry->name;
    }
    if (end_byte != file->data_bytes)
        return error_set(err, STATUS_CORRUPT, "%s: has %lld bytes of data, its tensors end at %lld",
                         file->path, (long long)file->data_bytes, (long long)end_byte);
    qsort(file->entries, file->count, sizeof(*file->entries), compare_names);
    return STATUS_OK;
}

static struct entry *find_entry(const struct safetensors *file, const char *name)
{
    struct entry key = {.name = name};
    return bsearch(&key, file->entries, file->count, sizeof(key), compare_names);
}

static enum status read_metadata(struct safetensors *file, const struct jin *root,
                                 struct error *err)
{
    struct jin metadata, member;
    void *iterator = NULL;
    const char *key = NULL;
    if (!jin_has(root, metadata_key))
        return STATUS_OK;
    TRY(jin_object(root, metadata_key, &metadata, err));
    size_t prefix_bytes = strlen(checksum_prefix);
    while (jin_next_member(&metadata, &iterator, &key, &member)) {
        struct entry *entry = NULL;
        if (strncmp(key, checksum_prefix, prefix_bytes) == 0)
            entry = find_entry(file, key + prefix_bytes);
        if (entry)
            TRY(jin_as_string(&member, &entry->checksum, err));
    }
    return STATUS_OK;
}

static enum status parse_header(struct safetensors *file, size_t header_bytes, struct error *err)
{
    char *text = malloc(header_bytes + 1);
    if (!text)
        return error_memory(err, header_bytes, "a safetensors header");
    enum status status = read_at(file, LENGTH_BYTES, text, header_bytes, err);
    if (status == STATUS_OK)
        status = json_parse_text(&file->header, text, header_bytes, file->path, err);
    free(text);
    TRY(status);
    struct jin root = json_root(file->header);
    if (!jin_is_object(&root))
        return error_set(err, STATUS_CORRUPT, "%s: its header is not a JSON object", file->path);
    TRY(read_entries(file, &root, err));
    TRY(check_places(file, err));
    return read_metadata(file, &root, err);
}

static enum status read_header(struct safetensors *file, struct error *err)
{
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        return error_set(err, STATUS_IO, "cannot read '%s': %s", file->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return error_set(err, STATUS_INVALID, "%s: is not a regular file", file->path);
    if (info.st_size < LENGTH_BYTES)
        return error_set(err, STATUS_CORRUPT,
                         "%s: has %lld bytes, a safetensors file has at least %d", file->path,
                         (long long)info.st_size, LENGTH_BYTES);
    uint64_t header_bytes;
    TRY(read_at(file, 0, &header_bytes, sizeof(header_bytes), err));
    uint64_t rest_bytes = (uint64_t)info.st_size - LENGTH_BYTES;
    if (header_bytes > rest_bytes || header_bytes > HEADER_BYTES_MAX)
        return error_set(err, STATUS_CORRUPT,
                         "%s: tells of a header of %llu bytes; the file has %llu more, and at most "
                         "%d are allowed: it is torn or not a safetensors file",
                         file->path, (unsigned long long)header_bytes,
                         (unsigned long long)rest_bytes, HEADER_BYTES_MAX);
    file->data_offset = LENGTH_BYTES + (int64_t)header_bytes;
    file->data_bytes = info.st_size - file->data_offset;
    enum status status = parse_header(file, (size_t)header_bytes, err);
    if (status == STATUS_INVALID) /* a header of other types or not JSON: written by no one */
        status = err->status = STATUS_CORRUPT;
    return status;
}

enum status safetensors_open(struct safetensors **out, const char *path, struct error *err)
{
    struct safetensors *file = calloc(1, sizeof(*file));
    if (!file)
        return error_memory(err, sizeof(*file), path);
    enum status status = STATUS_OK;
    file->path = strdup(path);
    file->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file->fd < 0)
        status = error_set(err, STATUS_IO, "cannot open '%s': %s", path, strerror(errno));
    else if (!file->path)
        status = error_memory(err, strlen(path) + 1, path);
    else
        status = read_header(file, err);
    if (status != STATUS_OK) {
        safetensors_close(file);
        return status;
    }
    *out = file;
    return STATUS_OK;
}

void safetensors_close(struct safetensors *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        (void)close(file->fd);
    json_document_free(file->header);
    free(file->entries);
    free(file->path);
    free(file);
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const char *safetensors_name(const struct safetensors *file, size_t index)
{
    return file->entries[index].name;
}

bool safetensors_has(const struct safetensors *file, const char *name)
{
    return find_entry(file, name) != NULL;
}

int safetensors_shape(const struct safetensors *file, const char *name,
                      int64_t shape[SAFETENSORS_RANK_MAX])
{
    const struct entry *entry = find_entry(file, name);
    if (!entry)
        return -1;
    for (int i = 0; i < entry->rank; i++)
        shape[i] = entry->shape[i];
    return entry->rank;
}

/* ---- the data ---- */

static enum status read_checked(const struct safetensors *file, const struct entry *entry,
                                unsigned char *stored, size_t bytes, struct error *err)
{
    TRY(read_at(file, file->data_offset + entry->first_byte, stored, bytes, err));
    char digits[HASH_TEXT_BYTES];
    if (entry->checksum &&
        strcmp(hash_format(hash_bytes(stored, bytes), digits), entry->checksum) != 0)
        return error_set(
            err, STATUS_CORRUPT,
            "%s: tensor '%s': its bytes have checksum %s, the header says %s: the file "
            "was damaged",
            file->path, entry->name, digits, entry->checksum);
    return STATUS_OK;
}

enum status safetensors_read(struct safetensors *file, const char *name, float *data,
                             uint64_t count, struct error *err)
{
    const struct entry *entry = find_entry(file, name);
    if (!entry)
        return error_set(err, STATUS_INVALID, "%s: has no tensor '%s'", file->path, name);
    if (entry->count != count)
        return error_set(err, STATUS_INVALID, "%s: tensor '%s': has %llu elements, expected %llu",
                         file->path, name, (unsigned long long)entry->count,
                         (unsigned long long)count);
    if (!entry->dtype->widen)
        return unsupported_dtype(file, name, entry->dtype->name, err);
    size_t bytes = (size_t)(entry->end_byte - entry->first_byte);
    size_t out_bytes = (size_t)count * sizeof(*data);
    /* What is stored in fewer bytes is read to the end of the output and widened from there, so
     * that a large tensor needs no second buffer. */
    unsigned char *wide = bytes > out_bytes ? malloc(bytes) : NULL;
    if (bytes > out_bytes && !wide)
        return error_memory(err, bytes, name);
    unsigned char *stored = wide ? wide : (unsigned char *)data + (out_bytes - bytes);
    enum status status = read_checked(file, entry, stored, bytes, err);
    if (status == STATUS_OK)
        entry->dtype->widen(stored, (size_t)count, data);
    free(wide);
    return status;
}
