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
                        enum precision gradients, enum precision rounded_to)
{
    float *p = call->parameters, *m = call->first_moment, *v = call->second_moment;
    uint16_t *rounded = call->parameters_16;
#pragma omp simd
    for (size_t i = span.begin; i < span.end; i++) {
        float gradient = load_element(call->gradients, i, gradients) * f.grad_scale;
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
    bool is_narrow = call->gradient_precision == PRECISION_BF16;
    enum precision rounded_to = call->parameters_16 == NULL ? PRECISION_FP32 : call->precision_16;
    if (is_narrow && rounded_to == PRECISION_BF16)
        adamw_loop(call, factors, span, PRECISION_BF16, PRECISION_BF16);
    else if (is_narrow)
        adamw_loop(call, factors, span, PRECISION_BF16, PRECISION_FP32);
    else if (rounded_to == PRECISION_BF16)
        adamw_loop(call, factors, span, PRECISION_FP32, PRECISION_BF16);
    else if (rounded_to == PRECISION_FP16)
        adamw_loop(call, factors, span, PRECISION_FP32, PRECISION_FP16);
    else
        adamw_loop(call, factors, span, PRECISION_FP32, PRECISION_FP32);
}

void ops_adamw(struct device *device, const struct adamw_call *call)
{
    struct adamw_factors factors = factors_of(call);
#pragma omp parallel num_threads(device->threads)
    adamw_span(call, factors, span_of_thread(call->count, GRAIN));
}

INLINED double sum_squares_loop(const void *data, struct span span, enum precision precision)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = span.begin; i < span.end; i++) {
        double value = (double)load_element(data, i, precision);
        sum += value * value;
    }
    return sum;
}

CLONES
static double sum_squares_span(const void *data, enum precision precision, struct span span)
{
    return precision == PRECISION_BF16 ? sum_squares_loop(data, span, PRECISION_BF16)
                                       : sum_squares_loop(data, span, PRECISION_FP32);
}

/* Partial sums of fixed parts, added in order: the same bits whatever the threads' timing. */
double ops_sum_squares(struct device *device, const void *data, enum precision precision,
                       uint64_t count)
{
    enum { PARTS = 256 };
    double parts[PARTS];
    size_t grains = (count + GRAIN - 1) / GRAIN;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t part = 0; part < PARTS; part++) {
        size_t begin = grains * part / PARTS * GRAIN, end = grains * (part + 1) / PARTS * GRAIN;
        parts[part] =
            sum_squares_span(data, precision, (struct span){begin, end < count ? end : count});
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

INLINED void add_loop(const void *from, void *to, struct span span, enum precision precision)
{
#pragma omp simd
    for (size_t i = span.begin; i < span.end; i++)
        store_element(to, i, load_element(to, i, precision) + load_element(from, i, precision),
                      precision);
}

CLONES
static void add_span(const void *from, void *to, struct span span, enum precision precision)
{
    if (precision == PRECISION_BF16)
        add_loop(from, to, span, PRECISION_BF16);
    else
        add_loop(from, to, span, PRECISION_FP32);
}

void ops_accumulate(struct device *device, const void *from, void *to, enum precision precision,
                    uint64_t count, bool add)
{
    size_t bytes = precision_bytes(precision);
#pragma omp parallel num_threads(device->threads)
    {
        struct span span = span_of_thread(count, GRAIN);
        if (add)
            add_span(from, to, span, precision);
        else if (span.end > span.begin)
            memcpy((char *)to + span.begin * bytes, (const char *)from + span.begin * bytes,
                   (span.end - span.begin) * bytes);
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
