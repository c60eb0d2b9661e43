/* Seconds of single operations on a described device: a roofline (Williams et al. 2009) whose two
 * roofs are the shares of the peaks that work of a size reaches (ir/cluster.h). The equations stand
 * in docs/layout-model.md. */
#ifndef TEMPER_COSTMODEL_DEVICE_OPS_H
#define TEMPER_COSTMODEL_DEVICE_OPS_H

#include "ir/cluster.h"

/* `batch` products [rows, inner] x [inner, columns] of one call. */
struct product {
    double rows, inner, columns, batch;
};

double product_flops(const struct product *product);
/* `operand_bytes` of one element of both factors, `result_bytes` of all that is read and written of
 * one element of the result (8 where it is added to an fp32 sum). The device has such arithmetic.
 */
double product_s(const struct device_type *device, enum arithmetic arithmetic,
                 const struct product *product, double operand_bytes, double result_bytes);
/* The same in two steps, for several products of equal FLOPs: the FLOP/s that a product of so many
 * FLOPs reaches where its rows are aligned, and the seconds at that rate. */
double reached_flops_s(const struct device_type *device, enum arithmetic arithmetic, double flops);
double product_at_s(const struct device_type *device, double flops_s, const struct product *product,
                    double operand_bytes, double result_bytes);
/* One call of fused attention; `flops` as computed: causal ones are half of the square. */
double fused_attention_s(const struct device_type *device, enum arithmetic arithmetic,
                         double flops);
/* Elementwise work and norms that move so many bytes. */
double traffic_s(const struct device_type *device, double bytes);

#endif
