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

static double alignment_share(const struct product *product, double operand_bytes)
{
    double inner_bytes = product->inner * operand_bytes;
    double column_bytes = product->columns * operand_bytes;
    if (fmod(inner_bytes, 16) != 0 || fmod(column_bytes, 16) != 0)
        return unaligned_share;
    if (fmod(inner_bytes, 128) != 0 || fmod(column_bytes, 128) != 0)
        return part_line_share;
    return 1.0;
}

/* Curves are of 16-bit work. A rate twice as high finishes twice the FLOPs before the device is
 * full, so that a size counts by how long it would take at the peak. */
static double share_of(const struct device_type *device, enum operation operation,
                       enum arithmetic arithmetic, double flops)
{
    double half_flops =
        fmax(device->peak_flops[ARITHMETIC_BF16], device->peak_flops[ARITHMETIC_FP16]);
    double size = half_flops > 0 ? flops * half_flops / device->peak_flops[arithmetic] : flops;
    return efficiency_at(&device->efficiency[operation], size);
}

double product_s(const struct device_type *device, enum arithmetic arithmetic,
                 const struct product *product, double operand_bytes, double result_bytes)
{
    double peak = device->peak_flops[arithmetic];
    double flops = product_flops(product);
    double bytes =
        product->batch * (operand_bytes * product->inner * (product->rows + product->columns) +
                          result_bytes * product->rows * product->columns);
    assert(peak > 0);
    double share = share_of(device, OPERATION_MATMUL, arithmetic, flops) *
                   alignment_share(product, operand_bytes);
    return fmax(flops / (peak * share), traffic_s(device, bytes));
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
