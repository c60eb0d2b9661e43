#include "executor/ops/loss.h"

#include "executor/ops/convert.h"
#include "executor/ops/vector.h"
#include <assert.h>
#include <math.h>

struct loss_rows loss_rows_at(float *memory, size_t tokens)
{
    return (struct loss_rows){.log_sums = memory,
                              .maxima = memory + tokens,
                              .sums = memory + 2 * tokens,
                              .at_target = memory + 3 * tokens};
}

CLONES
static float row_maximum(const float *row, size_t count)
{
    float maximum = -INFINITY;
#pragma omp simd reduction(max : maximum)
    for (size_t j = 0; j < count; j++)
        maximum = row[j] > maximum ? row[j] : maximum;
    return maximum;
}

/* Sum of e^(logit - maximum). */
CLONES
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

/* Of a token whose row is at hand. */
static void measure_row(const struct loss *loss, size_t t)
{
    const float *row = loss->logits + t * loss->vocab;
    float maximum = row_maximum(row, loss->valid);
    size_t column = 0;
    loss->rows.log_sums[t] = maximum + logf(row_sum(row, maximum, loss->valid));
    loss->rows.at_target[t] = target_column(loss, t, &column) ? row[column] : 0.0f;
}

static void measure_whole(struct device *device, const struct loss *loss)
{
    size_t tokens = loss->tokens;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++)
        measure_row(loss, t);
}

static enum status measure_parts(struct device *device, const struct loss *loss, struct error *err)
{
    size_t tokens = loss->tokens, vocab = loss->vocab;
    const struct layer_group *group = loss->group;
    struct loss_rows rows = loss->rows;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++)
        rows.maxima[t] = row_maximum(loss->logits + t * vocab, loss->valid);
    TRY(group->all_reduce_max(group->user, rows.maxima, tokens, err));
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++) {
        const float *row = loss->logits + t * vocab;
        size_t column = 0;
        rows.sums[t] = row_sum(row, rows.maxima[t], loss->valid);
        rows.at_target[t] = target_column(loss, t, &column) ? row[column] : 0.0f;
    }
    assert(rows.at_target == rows.sums + tokens);
    TRY(group->all_reduce_sum(group->user, rows.sums, 2 * tokens, err));
    for (size_t t = 0; t < tokens; t++)
        rows.log_sums[t] = rows.maxima[t] + logf(rows.sums[t]);
    return STATUS_OK;
}

static void add_up(const struct loss *loss, double *sum)
{
    for (size_t t = 0; t < loss->tokens; t++)
        if (loss->targets[t] >= 0)
            *sum += (double)loss->rows.log_sums[t] - (double)loss->rows.at_target[t];
}

enum status loss_forward(struct device *device, const struct loss *loss, double *sum,
                         struct error *err)
{
    if (loss->group != NULL)
        TRY(measure_parts(device, loss, err));
    else
        measure_whole(device, loss);
    add_up(loss, sum);
    return STATUS_OK;
}

CLONES
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

static void gradient_of_row(const struct loss *loss, const struct loss_gradient *gradient, size_t t)
{
    size_t element_bytes = (size_t)precision_bytes(gradient->precision), column = 0;
    const float *row = loss->logits + t * loss->vocab;
    char *out = (char *)gradient->out + t * loss->vocab * element_bytes;
    float log_sum = loss->rows.log_sums[t], at_target = 0.0f;
    bool has_target = target_column(loss, t, &column);
    /* e^(logit - log_sum) - 1 loses no digits that matter: the gradient is 0 there. */
    if (has_target)
        at_target = gradient->scale * (expf(row[column] - log_sum) - 1.0f);
    float scale = loss->targets[t] >= 0 ? gradient->scale : 0.0f;
    if (gradient->precision == PRECISION_FP32) {
        gradient_row(row, log_sum, scale, loss->valid, (float *)(void *)out);
    } else {
        gradient_row_16(row, log_sum, scale, loss->valid, (uint16_t *)(void *)out,
                        gradient->precision);
    }
    memset(out + loss->valid * element_bytes, 0, (loss->vocab - loss->valid) * element_bytes);
    if (has_target)
        store_element(out, column, at_target, gradient->precision);
}

/* A row of a whole vocabulary is measured and then turned into its gradient while it is cached. */
enum status loss_backward(struct device *device, const struct loss *loss,
                          const struct loss_gradient *gradient, double *sum, struct error *err)
{
    size_t tokens = loss->tokens;
    if (loss->group != NULL)
        TRY(measure_parts(device, loss, err));
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++) {
        if (loss->group == NULL)
            measure_row(loss, t);
        gradient_of_row(loss, gradient, t);
    }
    add_up(loss, sum);
    return STATUS_OK;
}
