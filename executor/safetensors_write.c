#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "executor/safetensors.h"
#include "executor/safetensors_format.h"
#include <stdio.h>
#include <string.h>

enum { DATA_ALIGN_BYTES = 8 };

static uint64_t element_count(const struct safetensor_out *tensor)
{
    uint64_t count = 1;
    for (int i = 0; i < tensor->rank; i++)
        count *= (uint64_t)tensor->shape[i];
    return count;
}

static size_t byte_count(const struct safetensor_out *tensor)
{
    return (size_t)element_count(tensor) * sizeof(float);
}

static void write_metadata(struct jout *json, const struct safetensor_out *tensors, size_t count)
{
    jout_begin_object(json, SAFETENSORS_METADATA_KEY);
    /* transformers refuses a file without it. */
    jout_string(json, "format", "pt");
    for (size_t i = 0; i < count; i++) {
        char key[sizeof(SAFETENSORS_CHECKSUM_PREFIX) + sizeof(tensors[i].name)];
        char digits[HASH_TEXT_BYTES];
        (void)snprintf(key, sizeof(key), SAFETENSORS_CHECKSUM_PREFIX "%s", tensors[i].name);
        hash_format(hash_bytes(tensors[i].data, byte_count(&tensors[i])), digits);
        jout_string(json, key, digits);
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

static enum status build_header(const struct safetensor_out *tensors, size_t count,
                                struct text *header, struct error *err)
{
    struct jout *json = jout_new();
    write_metadata(json, tensors, count);
    write_tensors(json, tensors, count);
    TRY(jout_finish(json, 0, header, err));
    /* The length before the header has 8 bytes, so the data is aligned as the header is. */
    while (!header->failed && header->bytes % DATA_ALIGN_BYTES != 0)
        text_append(header, " ");
    return text_check(header, err);
}

static enum status write_pieces(struct file_out *file, const struct text *header,
                                const struct safetensor_out *tensors, size_t count,
                                struct error *err)
{
    uint64_t header_bytes = header->bytes;
    TRY(file_out_write(file, &header_bytes, sizeof(header_bytes), err));
    TRY(file_out_write(file, header->data, header->bytes, err));
    for (size_t i = 0; i < count; i++)
        TRY(file_out_write(file, tensors[i].data, byte_count(&tensors[i]), err));
    return file_out_commit(file, err);
}

enum status safetensors_write(const char *path, const struct safetensor_out *tensors, size_t count,
                              struct error *err)
{
    struct text header = {0};
    struct file_out *file = NULL;
    enum status status = build_header(tensors, count, &header, err);
    if (status == STATUS_OK)
        status = file_out_open(&file, path, err);
    if (status == STATUS_OK) {
        status = write_pieces(file, &header, tensors, count, err);
        if (status != STATUS_OK)
            file_out_discard(file);
    }
    text_free(&header);
    return status;
}
