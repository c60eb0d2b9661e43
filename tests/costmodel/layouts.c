#include "layouts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct layout one_device(int64_t micro_batch)
{
    return (struct layout){
        .framework = FRAMEWORK_MEGATRON,
        .devices = 1,
        .pipeline = 1,
        .virtual_stages = 1,
        .data = 1,
        .tensor = 1,
        .context = 1,
        .expert = 1,
        .schedule = SCHEDULE_1F1B,
        .shard = 1,
        .micro_batch = micro_batch,
        .global_batch = 8,
        .arithmetic = ARITHMETIC_BF16,
        .fused_attention = true,
        .fused_cross_entropy = true,
    };
}

void check_near(double value, double expected, const char *what)
{
    if (fabs(value - expected) > 1e-9 * fabs(expected))
        fail_msg("%s: %.12g, by hand %.12g", what, value, expected);
}
