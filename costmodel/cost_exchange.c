/* What goes from layer to layer: resharding within a stage, hand-overs between stages, as
 * executor/reshard.h and executor/pipeline.h move them. */
#include "costmodel/terms.h"
#include "ir/mesh.h"
#include <stdlib.h>

/* A replica's b * s tokens are T shares, of which a rank of spread g holds g: fp32 [g b s / T,
 * hidden]. */
static uint64_t stream_bytes(const struct plan *plan, int spread)
{
    uint64_t tokens = (uint64_t)(plan->micro_batch * plan->model.seq_length);
    return tokens * (uint64_t)spread / (uint64_t)plan->tensor_parallel *
           (uint64_t)plan->model.hidden * sizeof(float);
}

/* ---- resharding ---- */

static enum status gather_stream(const struct profile *profile, const struct plan *plan, int have,
                                 int want, struct quantity *seconds, struct error *err)
{
    const struct collective_group group = {.ways = want, .apart = 1};
    *seconds = (struct quantity){.value = 0};
    if (have % want == 0)
        return STATUS_OK;
    return collective_time(profile, plan, COLLECTIVE_TENSOR_ALL_GATHER, group,
                           stream_bytes(plan, want), seconds, err);
}

static struct quantity working_joules(const struct profile *profile, const struct plan *plan,
                                      struct quantity seconds)
{
    if (seconds.value == 0)
        return seconds;
    struct quantity watts = machine_value(profile, placement_of(plan), METRIC_ACTIVE_W);
    return quantity_scale(energy_at(watts, seconds), 1.0 / plan->ranks);
}

enum status cost_reshard(const struct profile *profile, const struct plan *plan,
                         const struct layer_strategy *from, const struct layer_strategy *to,
                         struct reshard_cost *out, struct error *err)
{
    int before = strategy_spread(from), behind = strategy_spread(to);
    struct reshard_cost cost;
    TRY(gather_stream(profile, plan, before, behind, &cost.forward_s, err));
    TRY(gather_stream(profile, plan, behind, before, &cost.backward_s, err));
    cost.forward_j = working_joules(profile, plan, cost.forward_s);
    cost.backward_j = working_joules(profile, plan, cost.backward_s);
    *out = cost;
    return STATUS_OK;
}

/* ---- hand-overs ---- */

/* The narrower spread travels. */
static int travel_spread(int have, int want)
{
    return have % want == 0 ? want : 1;
}

enum status cost_handover(const struct profile *profile, const struct plan *plan, int virtual_stage,
                          const struct layer_strategy *from, const struct layer_strategy *to,
                          struct handover_cost *out, struct error *err)
{
    int before = strategy_spread(from), behind = strategy_spread(to);
    int stage = virtual_stage % plan->pipeline, next = (virtual_stage + 1) % plan->pipeline;
    const struct collective_group group = {.ways = 2,
                                           .apart = abs(next - stage) * mesh_stage_ranks(plan)};
    struct handover_cost cost;
    TRY(collective_time(profile, plan, COLLECTIVE_POINT_TO_POINT, group,
                        stream_bytes(plan, travel_spread(before, behind)), &cost.forward_s, err));
    TRY(collective_time(profile, plan, COLLECTIVE_POINT_TO_POINT, group,
                        stream_bytes(plan, travel_spread(behind, before)), &cost.backward_s, err));
    *out = cost;
    return STATUS_OK;
}
