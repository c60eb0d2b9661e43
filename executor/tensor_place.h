/* Every tensor of a model as it stands in files. */
#ifndef TEMPER_EXECUTOR_TENSOR_PLACE_H
#define TEMPER_EXECUTOR_TENSOR_PLACE_H

#include "base/error.h"
#include "ir/layer.h"
#include <stddef.h>
#include <stdint.h>

struct tensor_place {
    char name[TENSOR_NAME_BYTES]; /* HF name */
    int64_t shape[2];             /* as stored: [rows, cols], or [cols] of a vector */
    int rank;
    uint64_t count; /* elements */
    size_t layer;   /* in the chain */
    enum tensor_role role;
};

/* In the order of the chain and of layer_tensors; the caller frees *out with free(). */
enum status tensor_places(const struct model *model, struct tensor_place **out, size_t *count,
                          struct error *err);

#endif
