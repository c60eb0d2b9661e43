#include "executor/ops/norm.h"

#include "executor/ops/vector.h"
#include <math.h>

struct norm norm_of(const struct layer_view *view, const struct layer_call *call)
{
    return (struct norm){
        .tokens = view->dims.stream,
        .hidden = view->dims.hidden,
        .is_rms = call->model->family == MODEL_LLAMA,
        .precision = view->dims.precision,
        .epsilon = (float)call->model->norm_epsilon,
        .input = call->input,
        .weight = view->parameters[ROLE_NORM_WEIGHT],
        .bias = view->parameters[ROLE_NORM_BIAS],
        .stats = call->slots[SLOT_NORM_STATS],
    };
}

INLINED float row_mean(const float *x, size_t n)
{
    float_lanes sums = {0}, part;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes_load(&part, x, i, PRECISION_FP32);
        sums += part;
    }
    float sum = lanes_sum(&sums);
    for (; i < n; i++)
        sum += x[i];
    return sum / (float)n;
}

INLINED float row_mean_square(const float *x, float mean, size_t n)
{
    float_lanes sums = {0}, part;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes_load(&part, x, i, PRECISION_FP32);
        part -= mean;
        sums += part * part;
    }
    float sum = lanes_sum(&sums);
    for (; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return sum / (float)n;
}

INLINED void row_store(const struct norm *z, const float *x, float mean, float scale, void *out,
                       size_t offset, enum precision precision)
{
    const float *weight = z->weight, *bias = z->bias;
    size_t n = z->hidden;
    if (bias == NULL) {
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            store_element(out, offset + i, (x[i] - mean) * scale * weight[i], precision);
        return;
    }
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        store_element(out, offset + i, (x[i] - mean) * scale * weight[i] + bias[i], precision);
}

/* Row t of the output, by its statistics. */
INLINED void row_out(const struct norm *z, size_t t, void *out)
{
    size_t at = t * z->hidden;
    float mean = z->stats[2 * t], scale = z->stats[2 * t + 1];
    if (z->precision == PRECISION_FP32)
        row_store(z, z->input + at, mean, scale, out, at, PRECISION_FP32);
    else if (z->precision == PRECISION_BF16)
        row_store(z, z->input + at, mean, scale, out, at, PRECISION_BF16);
    else
        row_store(z, z->input + at, mean, scale, out, at, PRECISION_FP16);
}

CLONES
static void forward_rows(const struct norm *z, struct span rows, void *out)
{
    size_t n = z->hidden;
    for (size_t t = rows.begin; t < rows.end; t++) {
        const float *x = z->input + t * n;
        float mean = z->is_rms ? 0.0f : row_mean(x, n);
        z->stats[2 * t] = mean;
        z->stats[2 * t + 1] = 1.0f / sqrtf(row_mean_square(x, mean, n) + z->epsilon);
        row_out(z, t, out);
    }
}

void norm_forward(struct device *device, const struct norm *norm, void *out)
{
#pragma omp parallel num_threads(device->threads)
    forward_rows(norm, span_of_thread(norm->tokens, 1), out);
}

CLONES
static void again_rows(const struct norm *z, struct span rows, void *out)
{
    for (size_t t = rows.begin; t < rows.end; t++)
        row_out(z, t, out);
}

void norm_forward_again(struct device *device, const struct norm *norm, void *out)
{
#pragma omp parallel num_threads(device->threads)
    again_rows(norm, span_of_thread(norm->tokens, 1), out);
}

/* With u = (x - mean) scale and d = weight * out_gradient, the gradient by x is
 * scale (d - mean(d) - u mean(d u)); RMSNorm has no mean(d). */
struct row_sums {
    float d, du;
};

INLINED struct row_sums row_sums_of(const float *x, const float *weight, const float *dy,
                                    float mean, float scale, size_t n)
{
    float_lanes sums = {0}, dots = {0}, d, u, weights;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes_load(&d, dy, i, PRECISION_FP32);
        lanes_load(&u, x, i, PRECISION_FP32);
        lanes_load(&weights, weight, i, PRECISION_FP32);
        d *= weights;
        sums += d;
        dots += d * ((u - mean) * scale);
    }
    struct row_sums row = {lanes_sum(&sums), lanes_sum(&dots)};
    for (; i < n; i++) {
        row.d += weight[i] * dy[i];
        row.du += weight[i] * dy[i] * ((x[i] - mean) * scale);
    }
    return row;
}

CLONES
static void backward_rows(const struct norm *z, struct span rows, const float *out_gradient,
                          float *gradient)
{
    size_t n = z->hidden;
    const float *weight = z->weight;
    for (size_t t = rows.begin; t < rows.end; t++) {
        const float *x = z->input + t * n, *dy = out_gradient + t * n;
        float *dx = gradient + t * n;
        float mean = z->stats[2 * t], scale = z->stats[2 * t + 1];
        struct row_sums row = row_sums_of(x, weight, dy, mean, scale, n);
        float mean_d = z->is_rms ? 0.0f : row.d / (float)n, mean_du = row.du / (float)n;
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            float u = (x[i] - mean) * scale;
            dx[i] += scale * (weight[i] * dy[i] - mean_d - u * mean_du);
        }
    }
}

void norm_backward_input(struct device *device, const struct norm *norm, const float *out_gradient,
                         float *gradient)
{
#pragma omp parallel num_threads(device->threads)
    backward_rows(norm, span_of_thread(norm->tokens, 1), out_gradient, gradient);
}

/* A thread keeps the sums of a strip of columns in registers. */
enum { STRIP_VECTORS = 4, STRIP = STRIP_VECTORS * LANES };

INLINED void weight_whole_strip(const struct norm *z, const float *out_gradient, size_t begin,
                                float *weight_sum, float *bias_sum)
{
    float_lanes weight_part[STRIP_VECTORS] = {0}, bias_part[STRIP_VECTORS] = {0}, x, dy;
    for (size_t t = 0; t < z->tokens; t++) {
        size_t at = t * z->hidden + begin;
        float mean = z->stats[2 * t], scale = z->stats[2 * t + 1];
#pragma GCC unroll 4
        for (size_t i = 0; i < STRIP_VECTORS; i++) {
            lanes_load(&x, z->input, at + i * LANES, PRECISION_FP32);
            lanes_load(&dy, out_gradient, at + i * LANES, PRECISION_FP32);
            weight_part[i] += dy * ((x - mean) * scale);
            bias_part[i] += dy;
        }
    }
    memcpy(weight_sum, weight_part, sizeof(weight_part));
    memcpy(bias_sum, bias_part, sizeof(bias_part));
}

INLINED void weight_narrow_strip(const struct norm *z, const float *out_gradient, size_t begin,
                                 size_t width, float *weight_sum, float *bias_sum)
{
    memset(weight_sum, 0, width * sizeof(float));
    memset(bias_sum, 0, width * sizeof(float));
    for (size_t t = 0; t < z->tokens; t++) {
        const float *x = z->input + t * z->hidden + begin;
        const float *dy = out_gradient + t * z->hidden + begin;
        float mean = z->stats[2 * t], scale = z->stats[2 * t + 1];
#pragma omp simd
        for (size_t j = 0; j < width; j++) {
            weight_sum[j] += dy[j] * ((x[j] - mean) * scale);
            bias_sum[j] += dy[j];
        }
    }
}

/* Columns begin .. begin + width of the sums over tokens; `width` <= STRIP. */
CLONES
static void weight_strip(const struct norm *z, const float *out_gradient, size_t begin,
                         size_t width, float *weight_sum, float *bias_sum)
{
    if (width == STRIP)
        weight_whole_strip(z, out_gradient, begin, weight_sum, bias_sum);
    else
        weight_narrow_strip(z, out_gradient, begin, width, weight_sum, bias_sum);
}

static void emit(float *out, const float *sums, size_t width, bool accumulate)
{
    for (size_t j = 0; j < width; j++)
        out[j] = accumulate ? out[j] + sums[j] : sums[j];
}

void norm_backward_weight(struct device *device, const struct norm *norm, const float *out_gradient,
                          float *weight_gradient, float *bias_gradient, bool accumulate)
{
    size_t hidden = norm->hidden;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t begin = 0; begin < hidden; begin += STRIP) {
        size_t width = hidden - begin < STRIP ? hidden - begin : STRIP;
        float weight_sum[STRIP], bias_sum[STRIP];
        weight_strip(norm, out_gradient, begin, width, weight_sum, bias_sum);
        emit(weight_gradient + begin, weight_sum, width, accumulate);
        if (bias_gradient != NULL)
            emit(bias_gradient + begin, bias_sum, width, accumulate);
    }
}
