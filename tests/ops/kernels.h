/* What the libraries offer for one matrix product, each kernel by itself: for tests/bench. The
 * executor's choice among them is in executor/ops/gemm_onednn.c. */
#ifndef TEMPER_TESTS_OPS_KERNELS_H
#define TEMPER_TESTS_OPS_KERNELS_H

#include "executor/ops/gemm.h"

enum kernel_kind {
    KERNEL_STRIPS, /* oneDNN, which packs b in strips */
    KERNEL_PANELS, /* oneDNN, which packs both operands in blocks */
    KERNEL_PACKED, /* oneDNN, of a b that was packed before; preparing it packs b */
    KERNEL_INT8,   /* oneDNN, of 8-bit integers; preparing it quantises a, whose rows each get their
                      own scale */
    KERNEL_BLAS,   /* OpenBLAS; fp32 only */
    KERNEL_COUNT
};

struct kernel; /* one kernel for one product */

const char *kernel_name(enum kernel_kind kind);
/* `gemm` must outlive the kernel, and has no bias. *out is NULL, and the status OK, where the kind
 * has no kernel for it. */
enum status kernel_open(struct kernel **out, enum kernel_kind kind, const struct gemm *gemm,
                        struct error *err);
void kernel_close(struct kernel *kernel); /* NULL allowed */
/* False where the kind has nothing to prepare. By the calling thread alone for KERNEL_INT8. */
bool kernel_prepare(struct kernel *kernel);
void kernel_run(struct kernel *kernel);

#endif
