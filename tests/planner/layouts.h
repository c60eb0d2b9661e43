/* What tests of layouts on described clusters start from. */
#ifndef TEMPER_TESTS_PLANNER_LAYOUTS_H
#define TEMPER_TESTS_PLANNER_LAYOUTS_H

#include "planner/layouts.h"

/* A built-in model cut to so many blocks, sequences of 2048 tokens. */
struct model few_blocks(const char *name, int64_t blocks);
/* Megatron in bf16, global batch 16, all that hides or fuses, no pins. */
struct layouts_request request_of(const struct cluster *cluster, const struct model *model);

#endif
