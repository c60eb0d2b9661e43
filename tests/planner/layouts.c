#include "layouts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct model few_blocks(const char *name, int64_t blocks)
{
    struct model model;
    struct error err;
    const struct model_overrides sizes = {.layers = blocks, .seq_length = 2048};
    if (model_load(&model, name, &sizes, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return model;
}

struct layouts_request request_of(const struct cluster *cluster, const struct model *model)
{
    return (struct layouts_request){
        .cluster = cluster,
        .model = model,
        .framework = FRAMEWORK_MEGATRON,
        .arithmetic = ARITHMETIC_BF16,
        .global_batch = 16,
        .overlaps = true,
        .fused_cross_entropy = true,
        .pins = layout_pins_none(),
        .limits = {.deadline_s = INFINITY},
    };
}
