#include "executor/ops/linear.h"

#include "executor/ops/gemm.h"

struct linear linear_of(const struct layer_view *view, const struct layer_call *call,
                        enum tensor_role role, size_t in, size_t out)
{
    return (struct linear){
        .call = call,
        .tokens = view->dims.tokens,
        .in = in,
        .out = out,
        .weight = layer_weight(view, role),
        .out_major = call->model->family == MODEL_LLAMA || role == ROLE_HEAD_WEIGHT,
        .precision = call->mode.precision,
    };
}

static enum status run(struct device *device, const struct linear *z, const struct gemm *gemm,
                       struct error *err)
{
    TRY(gemm_run(device, gemm, err));
    layer_poll(z->call);
    return STATUS_OK;
}

static struct gemm product_xw(const struct linear *z, const void *x, void *y)
{
    return (struct gemm){
        .m = z->tokens,
        .n = z->out,
        .k = z->in,
        .a = x,
        .b = z->weight,
        .c = y,
        .b_transposed = z->out_major,
        .operands = z->precision,
        .result = PRECISION_FP32,
    };
}

enum status linear_forward(struct device *device, const struct linear *z, const void *x,
                           const float *bias, void *y, enum precision y_precision,
                           struct error *err)
{
    struct gemm gemm = product_xw(z, x, y);
    gemm.bias = bias;
    gemm.result = y_precision;
    return run(device, z, &gemm, err);
}

enum status linear_forward_add(struct device *device, const struct linear *z, const void *x,
                               float *y, struct error *err)
{
    struct gemm gemm = product_xw(z, x, y);
    gemm.accumulate = true;
    return run(device, z, &gemm, err);
}

enum status linear_backward_input(struct device *device, const struct linear *z,
                                  const void *y_gradient, void *x_gradient,
                                  enum precision x_precision, struct error *err)
{
    struct gemm gemm = {
        .m = z->tokens,
        .n = z->in,
        .k = z->out,
        .a = y_gradient,
        .b = z->weight,
        .c = x_gradient,
        .b_transposed = !z->out_major,
        .operands = z->precision,
        .result = x_precision,
    };
    return run(device, z, &gemm, err);
}

enum status linear_backward_weight(struct device *device, const struct linear *z, const void *x,
                                   const void *y_gradient, void *weight_gradient, bool accumulate,
                                   struct error *err)
{
    struct gemm gemm = {
        .m = z->out_major ? z->out : z->in,
        .n = z->out_major ? z->in : z->out,
        .k = z->tokens,
        .a = z->out_major ? y_gradient : x,
        .b = z->out_major ? x : y_gradient,
        .c = weight_gradient,
        .a_transposed = true,
        .accumulate = accumulate,
        .operands = z->precision,
        .result = z->call->gradient_precision,
    };
    return run(device, z, &gemm, err);
}
