#include "costmodel/data_exchange.h"

#include <math.h>

/* Of weights that have `ways` replicas, `apart` numbers from each other. */
static struct data_exchange exchange_of(const struct node_group *group, const struct layout *layout,
                                        struct tier_group of, int64_t shard)
{
    bool is_wide = layout->arithmetic == ARITHMETIC_FP32 || layout->arithmetic == ARITHMETIC_TF32;
    return (struct data_exchange){
        .shard = tier_ring(group, (struct tier_group){shard, of.apart}),
        .replicas = tier_ring(group, (struct tier_group){of.ways / shard, of.apart * shard}),
        .parameter_bytes = is_wide ? 4 : 2,
        .gradient_bytes = layout->framework == FRAMEWORK_DEEPSPEED && !is_wide ? 2 : 4,
    };
}

/* Neighbours come in the order tensor, context, data, pipeline. */
struct data_exchange data_exchange(const struct node_group *group, const struct layout *layout)
{
    int64_t ways = layout->data * layout->context;
    int64_t shard = layout->zero_stage > 0 ? layout->shard : ways;
    return exchange_of(group, layout, (struct tier_group){ways, layout->tensor}, shard);
}

struct data_exchange expert_exchange(const struct node_group *group, const struct layout *layout)
{
    int64_t ways = layout->data * layout->context / layout->expert;
    int64_t shard = layout->zero_stage > 0 ? layout->shard / layout->expert : ways;
    return exchange_of(group, layout, (struct tier_group){ways, layout->tensor * layout->expert},
                       shard);
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

bool exchange_covers(const struct data_exchange *a, const struct data_exchange *b,
                     const struct layout *layout, double least, double most)
{
    const double ends[] = {least, most};
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        if (gradient_reduce_s(a, layout, ends[i]) > gradient_reduce_s(b, layout, ends[i]) ||
            parameter_gather_s(a, ends[i]) > parameter_gather_s(b, ends[i]))
            return false;
    }
    return true;
}
