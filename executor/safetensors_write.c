#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "executor/safetensors.h"
#include "executor/safetensors_format.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DATA_ALIGN_BYTES = 8 };

struct safetensors_writer {
    struct file_out *file;
    const struct safetensor_out *tensors; /* [count] */
    uint64_t *hashes;                     /* [count]; 0 of those that are not written yet */
    size_t count, written;
    size_t header_bytes;
};

static size_t byte_count(const struct safetensor_out *tensor)
{
    uint64_t count = 1;
    for (int i = 0; i < tensor->rank; i++)
        count *= (uint64_t)tensor->shape[i];
    return (size_t)count * sizeof(float);
}

static void write_metadata(struct jout *json, const struct safetensors_writer *writer)
{
    jout_begin_object(json, SAFETENSORS_METADATA_KEY);
    /* transformers refuses a file without it. */
    jout_string(json, "format", "pt");
    for (size_t i = 0; i < writer->count; i++) {
        char key[sizeof(SAFETENSORS_CHECKSUM_PREFIX) + sizeof(writer->tensors[i].name)];
        char digits[HASH_TEXT_BYTES];
        (void)snprintf(key, sizeof(key), SAFETENSORS_CHECKSUM_PREFIX "%s", writer->tensors[i].name);
        jout_string(json, key, hash_format(writer->hashes[i], digits));
    }
    jout_end(json);
}

static void write_tensors(struct jout *json, const struct safetensor_out *tensors, size_t count)
{
    int64_t offset_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        jout_begin_object(json, tensors[i].name);
        jout_string(json, "dtype", "F32");
        jout_begin_array(json, "shape");
        for (int k = 0; k < tensors[i].rank; k++)
            jout_int(json, NULL, tensors[i].shape[k]);
        jout_end(json);
        jout_begin_array(json, "data_offsets");
        jout_int(json, NULL, offset_bytes);
        offset_bytes += (int64_t)byte_count(&tensors[i]);
        jout_int(json, NULL, offset_bytes);
        jout_end(json);
        jout_end(json);
    }
}

/* Always of the same length, whatever the hashes are. */
static enum status build_header(const struct safetensors_writer *writer, struct text *header,
                                struct error *err)
{
    struct jout *json = jout_new();
    write_metadata(json, writer);
    write_tensors(json, writer->tensors, writer->count);
    TRY(jout_finish(json, 0, header, err));
    /* The length before the header has 8 bytes, so the data is aligned as the header is. */
    while (!header->failed && header->bytes % DATA_ALIGN_BYTES != 0)
        text_append(header, " ");
    return text_check(header, err);
}

static enum status write_header(struct safetensors_writer *writer, struct error *err)
{
    struct text header = {0};
    enum status status = build_header(writer, &header, err);
    uint64_t header_bytes = header.bytes;
    writer->header_bytes = header.bytes;
    if (status == STATUS_OK)
        status = file_out_write(writer->file, &header_bytes, sizeof(header_bytes), err);
    if (status == STATUS_OK)
        status = file_out_write(writer->file, header.data, header.bytes, err);
    text_free(&header);
    return status;
}

enum status safetensors_writer_open(struct safetensors_writer **out, const char *path,
                                    const struct safetensor_out *tensors, size_t count,
                                    struct error *err)
{
    struct safetensors_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return error_memory(err, sizeof(*writer), path);
    writer->tensors = tensors;
    writer->count = count;
    writer->hashes = calloc(count + 1, sizeof(*writer->hashes));
    enum status status = writer->hashes ? file_out_open(&writer->file, path, err)
                                        : error_memory(err, count * sizeof(*writer->hashes), path);
    if (status == STATUS_OK)
        status = write_header(writer, err);
    if (status != STATUS_OK) {
        safetensors_writer_discard(writer);
        return status;
    }
    *out = writer;
    return STATUS_OK;
}

enum status safetensors_writer_add(struct safetensors_writer *writer, const float *data,
                                   struct error *err)
{
    assert(writer->written < writer->count);
    size_t bytes = byte_count(&writer->tensors[writer->written]);
    writer->hashes[writer->written] = hash_bytes(data, bytes);
    TRY(file_out_write(writer->file, data, bytes, err));
    writer->written++;
    return STATUS_OK;
}

enum status safetensors_writer_commit(struct safetensors_writer *writer, struct error *err)
{
    struct text header = {0};
    assert(writer->written == writer->count);
    enum status status = build_header(writer, &header, err);
    assert(status != STATUS_OK || header.bytes == writer->header_bytes);
    if (status == STATUS_OK)
        status = file_out_rewrite(writer->file, sizeof(uint64_t), header.data, header.bytes, err);
    text_free(&header);
    TRY(status);
    TRY(file_out_commit(writer->file, err));
    writer->file = NULL;
    safetensors_writer_discard(writer);
    return STATUS_OK;
}

void safetensors_writer_discard(struct safetensors_writer *writer)
{
    if (!writer)
        return;
    file_out_discard(writer->file);
    free(writer->hashes);
    free(writer);
}
