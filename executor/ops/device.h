/* A device: where tensors live and kernels run. The CPU is the first one; a CUDA device will stand
 * beside it, which is why nobody else touches a tensor's memory.
 *
 * The only folder that knows OpenBLAS, oneDNN and OpenMP. */
#ifndef TEMPER_OPS_DEVICE_H
#define TEMPER_OPS_DEVICE_H

#include "base/error.h"
#include "ir/layer.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;

/* `threads` compute threads for BLAS, oneDNN and our own loops. */
enum status device_open(struct device **out, int threads, struct error *err);
void device_close(struct device *device); /* NULL allowed */
int device_threads(const struct device *device);
/* fp32 always; fp16 too, computed in fp32 between roundings; bf16 where temper was built with
 * oneDNN and the CPU has AMX or AVX512-BF16. */
bool device_supports(const struct device *device, enum precision precision);
/* "OpenBLAS 0.3.21 (Cooperlake), oneDNN 2.6.3"; owned by the device. */
const char *device_libraries(const struct device *device);

/* Zeroed, page-aligned, every page touched so that it counts as resident; from the system, and
 * given back to it by device_free. */
enum status device_allocate(struct device *device, size_t bytes, void **out, struct error *err);
void device_free(struct device *device, void *data, size_t bytes); /* NULL allowed */
/* To and from memory of the host program. */
void device_write(struct device *device, void *to, const void *from, size_t bytes);
void device_read(struct device *device, void *to, const void *from, size_t bytes);
void device_zero(struct device *device, void *data, size_t bytes);
/* Within the device; the two do not overlap. */
void device_copy(struct device *device, void *to, const void *from, size_t bytes);

/* Matrix-product and copy rates of this device with its threads, measured now over about
 * `seconds` each, the fastest of repeated runs: FLOP/s of a large product in that precision;
 * bytes/s read + written of a copy larger than the caches. What "share of the machine's peak" is a
 * share of. */
enum status device_measure_matmul(struct device *device, enum precision precision, double seconds,
                                  double *flops, struct error *err);
enum status device_measure_copy(struct device *device, double seconds, double *bytes_per_s,
                                struct error *err);

#endif
