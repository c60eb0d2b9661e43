#include "executor/ops/loss.h"

#include "executor/ops/convert.h"
#include "executor/ops/vector.h"
#include <math.h>

OPS_CLONES
static float row_maximum(const float *row, size_t count)
{
    float maximum = -INFINITY;
#pragma omp simd reduction(max : maximum)
    for (size_t j = 0; j < count; j++)
        maximum = row[j] > maximum ? row[j] : maximum;
    return maximum;
}

/* Sum of e^(logit - maximum). */
OPS_CLONES
static float row_sum(const float *row, float maximum, size_t count)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < count; j++)
        sum += exp_vector(row[j] - maximum);
    return sum;
}

/* Is token t's target in this part? Its column is then in `column`. */
static bool target_column(const struct loss *loss, size_t t, size_t *column)
{
    int32_t target = loss->targets[t];
    if (target < 0 || (size_t)target < loss->first)
        return false;
    *column = (size_t)target - loss->first;
    return *column < loss->valid;
}

static double loss_of_whole(struct device *device, const struct loss *loss)
{
    size_t tokens = loss->tokens, vocab = loss->vocab;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++) {
        const float *row = loss->logits + t * vocab;
        float maximum = row_maximum(row, loss->valid);
        loss->log_sums[t] = maximum + logf(row_sum(row, maximum, loss->valid));
    }
    double sum = 0.0;
    for (size_t t = 0; t < tokens; t++) {
        size_t column = 0;
        if (target_column(loss, t, &column))
            sum += (double)loss->log_sums[t] - (double)loss->logits[t * vocab + column];
    }
    return sum;
}

static enum status loss_of_parts(struct device *device, const struct loss *loss, double *sum,
                                 struct error *err)
{
    size_t tokens = loss->tokens, vocab = loss->vocab;
    const struct layer_group *group = loss->group;
    float *maxima = loss->exchanged, *sums = maxima + tokens, *at_targets = sums + tokens;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++)
        maxima[t] = row_maximum(loss->logits + t * vocab, loss->valid);
    TRY(group->all_reduce_max(group->user, maxima, tokens, err));
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++) {
        const float *row = loss->logits + t * vocab;
        size_t column = 0;
        sums[t] = row_sum(row, maxima[t], loss->valid);
        at_targets[t] = target_column(loss, t, &column) ? row[column] : 0.0f;
    }
    TRY(group->all_reduce_sum(group->user, sums, 2 * tokens, err));
    *sum = 0.0;
    for (size_t t = 0; t < tokens; t++) {
        loss->log_sums[t] = maxima[t] + logf(sums[t]);
        if (loss->targets[t] >= 0)
            *sum += (double)loss->log_sums[t] - (double)at_targets[t];
    }
    return STATUS_OK;
}

enum status loss_forward(struct device *device, const struct loss *loss, double *sum,
                         struct error *err)
{
    if (loss->group != NULL)
        return loss_of_parts(device, loss, sum, err);
    *sum = loss_of_whole(device, loss);
    return STATUS_OK;
}

OPS_CLONES
static void gradient_row(const float *row, float log_sum, float scale, size_t count, float *out)
{
#pragma omp simd
    for (size_t j = 0; j < count; j++)
        out[j] = scale * exp_vector(row[j] - log_sum);
}

static void gradient_row_16(const float *row, float log_sum, float scale, size_t count,
                            uint16_t *out, enum precision precision)
{
    float chunk[CONVERT_CHUNK];
    for (size_t at = 0; at < count; at += CONVERT_CHUNK) {
        size_t part = count - at < CONVERT_CHUNK ? count - at : CONVERT_CHUNK;
        gradient_row(row + at, log_sum, scale, part, chunk);
        convert_narrow(chunk, out + at, part, precision);
    }
}

void loss_backward(struct device *device, const struct loss *loss, float scale, void *out,
                   enum precision precision)
{
    size_t tokens = loss->tokens, vocab = loss->vocab, valid = loss->valid;
    size_t element_bytes = (size_t)precision_bytes(precision);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++) {
        const float *row = loss->logits + t * vocab;
        char *out_row = (char *)out + t * vocab * element_bytes;
        size_t column = 0;
        bool has_target = target_column(loss, t, &column);
        /* e^(logit - log_sum) - 1 loses no digits that matter: the gradient is 0 there. */
        float at_target = 0.0f;
        if (has_target)
            at_target = scale * (expf(row[column] - loss->log_sums[t]) - 1.0f);
        float row_scale = loss->targets[t] >= 0 ? scale : 0.0f;
        if (precision == PRECISION_FP32) {
            gradient_row(row, loss->log_sums[t], row_scale, valid, (float *)(void *)out_row);
        } else {
            gradient_row_16(row, loss->log_sums[t], row_scale, valid, (uint16_t *)(void *)out_row,
                            precision);
        }
        memset(out_row + valid * element_bytes, 0, (vocab - valid) * element_bytes);
        if (has_target)
            store_element(out_row, column, at_target, precision);
    }
}
