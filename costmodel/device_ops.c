#include "costmodel/device_ops.h"

#include <assert.h>
#include <math.h>

/* Tensor cores load rows of 16 bytes; products whose rows do not divide take slower kernels: the
 * share is fitted to runs with heads of 108 columns (docs/layout-model.md). Lines of 128 bytes that
 * do not divide cost partial loads (NVIDIA, Matrix Multiplication Background User's Guide). */
static const double unaligned_share = 0.05, part_line_share = 0.9;

double product_flops(const struct product *product)
{
    return 2.0 * product->rows * product->inner * product->columns * product->batch;
}

/* fmod would do, ten times slower. */
static bool divides(double bytes, double line_bytes)
{
    double lines = bytes / line_bytes;
    return (double)(int64_t)lines == lines;
}

static double alignment_share(const struct product *product, double operand_bytes)
{
    double inner_bytes = product->inner * operand_bytes;
    double column_bytes = product->columns * operand_bytes;
    if (divides(inner_bytes, 128) && divides(column_bytes, 128))
        return 1.0;
    if (divides(inner_bytes, 16) && divides(column_bytes, 16))
        return part_line_share;
    return unaligned_share;
}

/* Curves are of 16-bit work. A rate twice as high finishes twice the FLOPs before the device is
 * full, so that a size counts by how long it would take at the peak. */
static double share_of(const struct device_type *device, enum operation operation,
                       enum arithmetic arithmetic, double flops)
{
    const double *peaks = device->peak_flops;
    double bf16 = peaks[ARITHMETIC_BF16], fp16 = peaks[ARITHMETIC_FP16];
    double half_flops = bf16 > fp16 ? bf16 : fp16;
    double size = half_flops > 0 ? flops * half_flops / peaks[arithmetic] : flops;
    return efficiency_at(&device->efficiency[operation], size);
}

/* No less than traffic_s: enough to tell that most products are bound by their FLOPs. */
static double traffic_most_s(const struct device_type *device, double bytes)
{
    const struct efficiency_curve *curve = &device->efficiency[OPERATION_MEMORY];
    return bytes / (device->memory_bytes_s * efficiency_floor(curve, bytes));
}

double reached_flops_s(const struct device_type *device, enum arithmetic arithmetic, double flops)
{
    double peak = device->peak_flops[arithmetic];
    assert(peak > 0);
    return peak * share_of(device, OPERATION_MATMUL, arithmetic, flops);
}

double product_at_s(const struct device_type *device, double flops_s, const struct product *product,
                    double operand_bytes, double result_bytes)
{
    double bytes =
        product->batch * (operand_bytes * product->inner * (product->rows + product->columns) +
                          result_bytes * product->rows * product->columns);
    double computing_s =
        product_flops(product) / (flops_s * alignment_share(product, operand_bytes));
    if (computing_s >= traffic_most_s(device, bytes))
        return computing_s;
    return fmax(computing_s, traffic_s(device, bytes));
}

double product_s(const struct device_type *device, enum arithmetic arithmetic,
                 const struct product *product, double operand_bytes, double result_bytes)
{
    double flops_s = reached_flops_s(device, arithmetic, product_flops(product));
    return product_at_s(device, flops_s, product, operand_bytes, result_bytes);
}

double fused_attention_s(const struct device_type *device, enum arithmetic arithmetic, double flops)
{
    double share = share_of(device, OPERATION_ATTENTION, arithmetic, flops);
    assert(device->peak_flops[arithmetic] > 0);
    return flops / (device->peak_flops[arithmetic] * share);
}

double traffic_s(const struct device_type *device, double bytes)
{
    return bytes /
           (device->memory_bytes_s * efficiency_at(&device->efficiency[OPERATION_MEMORY], bytes));
}
