#include "planner/shape_pattern.h"

struct shape_pattern shape_pattern_of(const struct plan *plan)
{
    return (struct shape_pattern){
        .ranks = plan->ranks,
        .threads = plan->threads,
        .pipeline = plan->pipeline,
        .data_parallel = plan->data_parallel,
        .tensor_parallel = plan->tensor_parallel,
        .virtual_stages = plan->virtual_stages,
        .micro_batch = plan->micro_batch,
        .has_schedule = true,
        .schedule = plan->schedule,
    };
}

static bool is_open_or(int64_t wanted, int64_t value)
{
    return wanted == 0 || wanted == value;
}

bool shape_pattern_has(const struct shape_pattern *pattern, const struct shape_pattern *shape)
{
    return is_open_or(pattern->ranks, shape->ranks) &&
           is_open_or(pattern->threads, shape->threads) &&
           is_open_or(pattern->pipeline, shape->pipeline) &&
           is_open_or(pattern->data_parallel, shape->data_parallel) &&
           is_open_or(pattern->tensor_parallel, shape->tensor_parallel) &&
           is_open_or(pattern->virtual_stages, shape->virtual_stages) &&
           is_open_or(pattern->micro_batch, shape->micro_batch) &&
           (!pattern->has_schedule || pattern->schedule == shape->schedule);
}
