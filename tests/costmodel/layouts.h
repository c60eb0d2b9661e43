/* Layouts to change one choice of at a time, and figures held against computations by hand. */
#ifndef TEMPER_TESTS_COSTMODEL_LAYOUTS_H
#define TEMPER_TESTS_COSTMODEL_LAYOUTS_H

#include "ir/layout.h"

/* Megatron in bf16 with fused kernels, nothing split or sharded, a global batch of 8. */
struct layout one_device(int64_t micro_batch);
/* Equal but for rounding, or the test fails and says `what`. */
void check_near(double value, double expected, const char *what);

#endif
