/* Tensors from safetensors files into a rank's arrays, each checked against the model. Private to
 * weights_hf.c and checkpoint.c. */
#ifndef TEMPER_EXECUTOR_TENSOR_LOAD_H
#define TEMPER_EXECUTOR_TENSOR_LOAD_H

#include "executor/safetensors.h"
#include "executor/shard_copy.h"

struct wanted_tensor {
    struct tensor_place place;
    bool is_held; /* by this rank: others' are only checked */
    bool is_loaded[ARRAY_COUNT];
};

struct tensor_loader {
    const struct memory_layout *layout;
    struct wanted_tensor *wanted; /* [count], by name */
    size_t count;
    float *whole; /* the largest tensor that the rank holds */
};

enum status tensor_loader_open(struct tensor_loader *out, const struct memory_layout *layout,
                               struct error *err);
void tensor_loader_close(struct tensor_loader *loader);

/* The model's tensor PREFIXNAME; NULL: it has none. */
struct wanted_tensor *tensor_loader_find(const struct tensor_loader *loader, const char *prefix,
                                         const char *name);
/* `name` of `file` at `path` is this tensor: STATUS_INVALID for another shape or a second one. */
enum status tensor_loader_take(struct tensor_loader *loader, struct safetensors *file,
                               const char *path, const char *name, struct wanted_tensor *wanted,
                               enum tensor_array array, struct error *err);
/* The first tensor that was not there yet; NULL: all were. */
const struct wanted_tensor *tensor_loader_missing(const struct tensor_loader *loader,
                                                  enum tensor_array array);

#endif
