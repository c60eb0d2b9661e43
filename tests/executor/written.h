/* Safetensors files of tensors that are all in memory. */
#ifndef TEMPER_TESTS_EXECUTOR_WRITTEN_H
#define TEMPER_TESTS_EXECUTOR_WRITTEN_H

#include "support.h"

#include "executor/safetensors.h"

struct tensor_data {
    char name[112];
    int64_t shape[SAFETENSORS_RANK_MAX];
    int rank;
    const float *data;
};

static inline enum status write_tensors(const char *path, const struct tensor_data *tensors,
                                        size_t count, struct error *err)
{
    struct safetensors_writer *writer = NULL;
    struct safetensor_out *list = calloc(count + 1, sizeof(*list));
    assert_non_null(list);
    for (size_t i = 0; i < count; i++) {
        memcpy(list[i].name, tensors[i].name, sizeof(list[i].name));
        memcpy(list[i].shape, tensors[i].shape, sizeof(list[i].shape));
        list[i].rank = tensors[i].rank;
    }
    enum status status = safetensors_writer_open(&writer, path, list, count, err);
    for (size_t i = 0; status == STATUS_OK && i < count; i++)
        status = safetensors_writer_add(writer, tensors[i].data, err);
    if (status == STATUS_OK)
        status = safetensors_writer_commit(writer, err);
    if (status != STATUS_OK)
        safetensors_writer_discard(writer);
    free(list);
    return status;
}

#endif
