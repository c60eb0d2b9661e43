#include "costmodel/data_exchange.h"

#include <math.h>

struct data_exchange data_exchange(const struct cluster *cluster, const struct layout *layout)
{
    const struct node_group *group = &cluster->groups[0];
    bool is_wide = layout->arithmetic == ARITHMETIC_FP32 || layout->arithmetic == ARITHMETIC_TF32;
    int64_t ways = layout->data * layout->context;
    int64_t shard = layout->zero_stage > 0 ? layout->shard : ways;
    /* Neighbours come in the order tensor, context, data, pipeline. */
    return (struct data_exchange){
        .shard = tier_ring(group, (struct tier_group){shard, layout->tensor}),
        .replicas = tier_ring(group, (struct tier_group){ways / shard, layout->tensor * shard}),
        .parameter_bytes = is_wide ? 4 : 2,
        .gradient_bytes = layout->framework == FRAMEWORK_DEEPSPEED && !is_wide ? 2 : 4,
    };
}

double gradient_reduce_s(const struct data_exchange *exchange, const struct layout *layout,
                         double parameters)
{
    double bytes = parameters * exchange->gradient_bytes;
    /* DeepSpeed's ZeRO 1 reduces all gradients to everybody */
    bool scatters = layout->zero_stage > 1 ||
                    (layout->zero_stage == 1 && layout->framework != FRAMEWORK_DEEPSPEED);
    double within_s = scatters ? ring_reduce_scatter_s(&exchange->shard, bytes)
                               : ring_all_reduce_s(&exchange->shard, bytes);
    double part = scatters ? bytes / (double)exchange->shard.ways : bytes;
    return within_s + ring_all_reduce_s(&exchange->replicas, part);
}

double parameter_gather_s(const struct data_exchange *exchange, double parameters)
{
    return ring_all_gather_s(&exchange->shard, parameters * exchange->parameter_bytes);
}
