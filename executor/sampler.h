/* Text from trained weights: one token after the other, each from the model's distribution. */
#ifndef TEMPER_EXECUTOR_SAMPLER_H
#define TEMPER_EXECUTOR_SAMPLER_H

#include "base/error.h"
#include "executor/ops/device.h"
#include "ir/model.h"
#include <stdint.h>

struct sampler_options {
    double temperature; /* 0: always the most likely token */
    int64_t top_k;      /* 0: all tokens */
    uint64_t seed;
};

struct sampler;

/* `path`: a temper checkpoint or HF weights; `model` is borrowed. */
enum status sampler_open(struct sampler **out, const char *path, const struct model *model,
                         struct device *device, const struct sampler_options *options,
                         struct error *err);
void sampler_close(struct sampler *sampler); /* NULL allowed */

/* The token that follows `tokens` [count >= 1]; the last seq_length of them are read. */
enum status sampler_next(struct sampler *sampler, const int32_t *tokens, int64_t count,
                         int32_t *next, struct error *err);

#endif
