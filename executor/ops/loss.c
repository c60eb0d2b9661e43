#include "executor/ops/loss.h"

#include "executor/ops/convert.h"
#include "executor/ops/vector.h"
#include <assert.h>
#include <math.h>

OPS_CLONES
static float row_log_sum(const float *row, size_t count)
{
    assert(count > 0);
    float maximum = row[0], sum = 0.0f;
#pragma omp simd reduction(max : maximum)
    for (size_t j = 0; j < count; j++)
        maximum = row[j] > maximum ? row[j] : maximum;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < count; j++)
        sum += exp_vector(row[j] - maximum);
    return maximum + logf(sum);
}

double loss_forward(struct device *device, const struct loss *loss)
{
    size_t tokens = loss->tokens, vocab = loss->vocab;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++)
        loss->log_sums[t] = row_log_sum(loss->logits + t * vocab, vocab);

    double sum = 0.0;
    for (size_t t = 0; t < tokens; t++) {
        int32_t target = loss->targets[t];
        if (target >= 0)
            sum += (double)loss->log_sums[t] - (double)loss->logits[t * vocab + (size_t)target];
    }
    return sum;
}

OPS_CLONES
static void gradient_row(const float *row, float log_sum, float scale, size_t count, float *out)
{
#pragma omp simd
    for (size_t j = 0; j < count; j++)
        out[j] = scale * exp_vector(row[j] - log_sum);
}

static void gradient_row_bf16(const float *row, float log_sum, float scale, size_t count,
                              uint16_t *out)
{
    float chunk[CONVERT_CHUNK];
    for (size_t at = 0; at < count; at += CONVERT_CHUNK) {
        size_t part = count - at < CONVERT_CHUNK ? count - at : CONVERT_CHUNK;
        gradient_row(row + at, log_sum, scale, part, chunk);
        bf16_narrow(chunk, out + at, part);
    }
}

void loss_backward(struct device *device, const struct loss *loss, float scale, uint16_t *out)
{
    size_t tokens = loss->tokens, vocab = loss->vocab;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < tokens; t++) {
        int32_t target = loss->targets[t];
        float *row = loss->logits + t * vocab;
        /* e^(logit - log_sum) - 1 loses no digits that matter: the gradient is 0 there. */
        float at_target = 0.0f;
        if (target >= 0)
            at_target = scale * (expf(row[target] - loss->log_sums[t]) - 1.0f);
        float row_scale = target >= 0 ? scale : 0.0f;
        if (out != NULL)
            gradient_row_bf16(row, loss->log_sums[t], row_scale, vocab, out + t * vocab);
        else
            gradient_row(row, loss->log_sums[t], row_scale, vocab, row);
        if (target >= 0 && out != NULL)
            out[t * vocab + (size_t)target] = bf16_from_float(at_target);
        else if (target >= 0)
            row[target] = at_target;
    }
}
