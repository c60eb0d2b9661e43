#include "executor/ops/activation.h"

#include "executor/ops/convert.h"
#include "executor/ops/vector.h"

struct activation activation_of(const struct layer_view *view, const struct layer_call *call)
{
    return (struct activation){
        .tokens = view->dims.tokens,
        .ffn = view->dims.ffn,
        .is_gated = call->model->family == MODEL_LLAMA,
        .precision = view->dims.precision,
    };
}

/* GELU's tanh form is x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3), because
 * (1 + tanh u) / 2 = sigmoid(2u). */
static const float TWO_ROOT = 0x1.988454p+0f; /* 2 sqrt(2/pi) */
static const float CUBIC = 0.044715f;
static const float MINUS_LOG2_E = -0x1.715476p+0f;

/* sigmoid(2u), of x and its square */
INLINED float gelu_sigmoid(float x, float square)
{
    const float linear = MINUS_LOG2_E * TWO_ROOT;
    return sigmoid2_vector(x * (linear + linear * CUBIC * square));
}

CLONES
static void gelu(const float *pre, float *act, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        act[i] = pre[i] * gelu_sigmoid(pre[i], pre[i] * pre[i]);
}

/* pre_gradient may be act_gradient */
CLONES
static void gelu_backward(const float *pre, const float *act_gradient, float *pre_gradient,
                          size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        float x = pre[i], square = x * x, s = gelu_sigmoid(x, square);
        float slope = s + x * s * (1.0f - s) * (TWO_ROOT + 3.0f * CUBIC * TWO_ROOT * square);
        pre_gradient[i] = act_gradient[i] * slope;
    }
}

CLONES
static void swiglu(const float *gate, const float *up, float *act, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        act[i] = gate[i] * sigmoid2_vector(MINUS_LOG2_E * gate[i]) * up[i];
}

CLONES
static void swiglu_backward(const float *gate, const float *up, const float *act_gradient,
                            float *gate_gradient, float *up_gradient, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        float g = gate[i], d = act_gradient[i], s = sigmoid2_vector(MINUS_LOG2_E * g);
        gate_gradient[i] = d * up[i] * (s + g * s * (1.0f - s));
        up_gradient[i] = d * g * s;
    }
}

/* A chunk of an array that is fp32, or 16 bit and then widened into `buffer`. */
static const float *open_chunk(const void *data, size_t at, size_t count, enum precision precision,
                               float *buffer)
{
    if (precision == PRECISION_FP32)
        return (const float *)data + at;
    convert_widen((const uint16_t *)data + at, buffer, count, precision);
    return buffer;
}

/* Where to compute a chunk of an output; close_chunk puts it there. */
static float *output_chunk(void *data, size_t at, enum precision precision, float *buffer)
{
    return precision == PRECISION_FP32 ? (float *)data + at : buffer;
}

static void close_chunk(const float *chunk, void *data, size_t at, size_t count,
                        enum precision precision)
{
    if (precision != PRECISION_FP32)
        convert_narrow(chunk, (uint16_t *)data + at, count, precision);
}

static void forward_chunk(const struct activation *z, const void *pre, void *act, size_t pre_at,
                          size_t act_at, size_t count)
{
    float buffers[3][CONVERT_CHUNK];
    const float *first = open_chunk(pre, pre_at, count, z->precision, buffers[0]);
    float *out = output_chunk(act, act_at, z->precision, buffers[2]);
    if (z->is_gated)
        swiglu(first, open_chunk(pre, pre_at + z->ffn, count, z->precision, buffers[1]), out,
               count);
    else
        gelu(first, out, count);
    close_chunk(out, act, act_at, count, z->precision);
}

static void backward_chunk(const struct activation *z, const void *pre, const void *act_gradient,
                           void *pre_gradient, size_t pre_at, size_t act_at, size_t count)
{
    float buffers[5][CONVERT_CHUNK];
    const float *first = open_chunk(pre, pre_at, count, z->precision, buffers[0]);
    const float *incoming = open_chunk(act_gradient, act_at, count, z->precision, buffers[1]);
    float *out = output_chunk(pre_gradient, pre_at, z->precision, buffers[2]);
    if (z->is_gated) {
        const float *up = open_chunk(pre, pre_at + z->ffn, count, z->precision, buffers[3]);
        float *up_out = output_chunk(pre_gradient, pre_at + z->ffn, z->precision, buffers[4]);
        swiglu_backward(first, up, incoming, out, up_out, count);
        close_chunk(up_out, pre_gradient, pre_at + z->ffn, count, z->precision);
    } else {
        gelu_backward(first, incoming, out, count);
    }
    close_chunk(out, pre_gradient, pre_at, count, z->precision);
}

void activation_forward(struct device *device, const struct activation *z, const void *pre,
                        void *act)
{
    size_t width = z->is_gated ? 2 * z->ffn : z->ffn;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < z->tokens; t++) {
        for (size_t at = 0; at < z->ffn; at += CONVERT_CHUNK) {
            size_t count = z->ffn - at < CONVERT_CHUNK ? z->ffn - at : CONVERT_CHUNK;
            forward_chunk(z, pre, act, t * width + at, t * z->ffn + at, count);
        }
    }
}

void activation_backward(struct device *device, const struct activation *z, const void *pre,
                         const void *act_gradient, void *pre_gradient)
{
    size_t width = z->is_gated ? 2 * z->ffn : z->ffn;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t t = 0; t < z->tokens; t++) {
        for (size_t at = 0; at < z->ffn; at += CONVERT_CHUNK) {
            size_t count = z->ffn - at < CONVERT_CHUNK ? z->ffn - at : CONVERT_CHUNK;
            backward_chunk(z, pre, act_gradient, pre_gradient, t * width + at, t * z->ffn + at,
                           count);
        }
    }
}
