#include "executor/ops/update.h"

#include "base/rng.h"
#include "executor/ops/convert.h"
#include "executor/ops/internal.h"
#include "executor/ops/vector.h"
#include <math.h>

enum { GRAIN = 1024 }; /* elements at which threads' parts are cut: whole pages of fp32 */

/* One step's constants; the bias corrections are folded into the factors. */
struct adamw_factors {
    float beta1, one_minus_beta1, beta2, one_minus_beta2;
    float step;          /* lr / (1 - beta1^t) */
    float root_scale;    /* 1 / sqrt(1 - beta2^t) */
    float epsilon, keep; /* keep = 1 - lr * decay */
    float grad_scale;
};

static struct adamw_factors factors_of(const struct adamw_call *call)
{
    double time = (double)call->time;
    return (struct adamw_factors){
        .beta1 = (float)call->beta1,
        .one_minus_beta1 = (float)(1.0 - call->beta1),
        .beta2 = (float)call->beta2,
        .one_minus_beta2 = (float)(1.0 - call->beta2),
        .step = (float)(call->learning_rate / (1.0 - pow(call->beta1, time))),
        .root_scale = (float)(1.0 / sqrt(1.0 - pow(call->beta2, time))),
        .epsilon = (float)call->epsilon,
        .keep = (float)(1.0 - call->learning_rate * call->weight_decay),
        .grad_scale = (float)call->grad_scale,
    };
}

INLINED void adamw_loop(const struct adamw_call *call, struct adamw_factors f, struct span span,
                        enum precision rounded_to)
{
    float *p = call->parameters, *m = call->first_moment, *v = call->second_moment;
    const float *g = call->gradients;
    uint16_t *rounded = call->parameters_16;
#pragma omp simd
    for (size_t i = span.begin; i < span.end; i++) {
        float gradient = g[i] * f.grad_scale;
        float first = f.beta1 * m[i] + f.one_minus_beta1 * gradient;
        float second = f.beta2 * v[i] + f.one_minus_beta2 * gradient * gradient;
        float value = f.keep * p[i] - f.step * first / (sqrtf(second) * f.root_scale + f.epsilon);
        m[i] = first;
        v[i] = second;
        p[i] = value;
        if (rounded_to != PRECISION_FP32)
            rounded[i] = float_to_16(value, rounded_to);
    }
}

CLONES
static void adamw_span(const struct adamw_call *call, struct adamw_factors factors,
                       struct span span)
{
    if (call->parameters_16 == NULL)
        adamw_loop(call, factors, span, PRECISION_FP32);
    else if (call->precision_16 == PRECISION_BF16)
        adamw_loop(call, factors, span, PRECISION_BF16);
    else
        adamw_loop(call, factors, span, PRECISION_FP16);
}

void ops_adamw(struct device *device, const struct adamw_call *call)
{
    struct adamw_factors factors = factors_of(call);
#pragma omp parallel num_threads(device->threads)
    adamw_span(call, factors, span_of_thread(call->count, GRAIN));
}

CLONES
static double sum_squares_span(const float *data, struct span span)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = span.begin; i < span.end; i++)
        sum += (double)data[i] * (double)data[i];
    return sum;
}

/* Partial sums of fixed parts, added in order: the same bits whatever the threads' timing. */
double ops_sum_squares(struct device *device, const float *data, uint64_t count)
{
    enum { PARTS = 256 };
    double parts[PARTS];
    size_t grains = (count + GRAIN - 1) / GRAIN;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t part = 0; part < PARTS; part++) {
        size_t begin = grains * part / PARTS * GRAIN, end = grains * (part + 1) / PARTS * GRAIN;
        parts[part] = sum_squares_span(data, (struct span){begin, end < count ? end : count});
    }
    double sum = 0.0;
    for (size_t part = 0; part < PARTS; part++)
        sum += parts[part];
    return sum;
}

void ops_cast_16(struct device *device, const float *from, uint16_t *to, uint64_t count,
                 enum precision precision)
{
#pragma omp parallel num_threads(device->threads)
    {
        struct span span = span_of_thread(count, GRAIN);
        convert_narrow(from + span.begin, to + span.begin, span.end - span.begin, precision);
    }
}

CLONES
static void add_span(const float *from, float *to, struct span span)
{
#pragma omp simd
    for (size_t i = span.begin; i < span.end; i++)
        to[i] += from[i];
}

void ops_accumulate(struct device *device, const float *from, float *to, uint64_t count, bool add)
{
#pragma omp parallel num_threads(device->threads)
    {
        struct span span = span_of_thread(count, GRAIN);
        if (add)
            add_span(from, to, span);
        else if (span.end > span.begin)
            memcpy(to + span.begin, from + span.begin, (span.end - span.begin) * sizeof(float));
    }
}

void ops_fill_normal(struct device *device, float *data, uint64_t first, uint64_t count,
                     double deviation, uint64_t seed, uint64_t stream)
{
#pragma omp parallel num_threads(device->threads)
    {
        struct span span = span_of_thread(count, GRAIN);
        rng_normals(seed, stream, first + span.begin, span.end - span.begin, deviation,
                    data + span.begin);
    }
}

void ops_fill(struct device *device, float *data, uint64_t count, float value)
{
#pragma omp parallel for simd schedule(static) num_threads(device->threads)
    for (uint64_t i = 0; i < count; i++)
        data[i] = value;
}
