/* What reading and writing safetensors files share: keys and element types. Private to
 * safetensors*.c. */
#ifndef TEMPER_EXECUTOR_SAFETENSORS_FORMAT_H
#define TEMPER_EXECUTOR_SAFETENSORS_FORMAT_H

#include "base/text.h"
#include <stddef.h>
#include <stdint.h>

#define SAFETENSORS_METADATA_KEY    "__metadata__"
#define SAFETENSORS_CHECKSUM_PREFIX "temper.xxh3." /* before a tensor's name, in the metadata */

struct safetensor_dtype {
    const char *name;
    uint64_t bytes; /* of one element */
    /* To fp32, first element first; `data` may overlap the end of `out`. NULL: temper cannot read
     * it as fp32. */
    void (*widen)(const unsigned char *data, size_t count, float *out);
};

/* NULL for an unknown name. */
const struct safetensor_dtype *safetensor_dtype_find(const char *name);
/* "F32, F16, ...": those that can be read. */
void safetensor_dtype_names(struct text *out);

#endif
