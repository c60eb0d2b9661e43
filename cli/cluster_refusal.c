#include "cli/cluster_refusal.h"

#include "base/units.h"
#include <stdio.h>

enum { DEVICES_FACTOR_MAX = 64, RELAXATION_BYTES = 160 };

static bool any_fits(const struct layouts_request *request)
{
    struct layout_list list;
    struct error ignored;
    if (layouts_price(request, &list, &ignored) != STATUS_OK)
        return false;
    bool fits = list.count > 0;
    layouts_free(&list);
    return fits;
}

static bool has_pins(const struct layouts_request *request)
{
    const struct layout_pins *pins = &request->pins;
    const int64_t numbers[] = {pins->pipeline, pins->virtual_stages, pins->data,
                               pins->tensor,   pins->context,        pins->micro_batch,
                               pins->expert,   pins->shard,          (int64_t)pins->block_count};
    const int choices[] = {
        pins->sequence_parallel, pins->zero_stage,      pins->recompute, pins->schedule,
        pins->offload,           pins->fused_attention, pins->overlap};
    bool any = false;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        any = any || numbers[i] != 0;
    for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++)
        any = any || choices[i] >= 0;
    return any;
}

static void multiply_nodes(struct cluster *cluster, int64_t factor)
{
    struct node_group *group = &cluster->groups[0];
    int64_t all = group->nodes * group->node_devices;
    if (group->tier_count > 0 && group->tiers[group->tier_count - 1].devices == all)
        group->tiers[group->tier_count - 1].devices *= factor;
    group->nodes *= factor;
}

/* The first of: no pins, more devices, more and no pins. Empty: none of them helps. */
static void find_relaxation(const struct cluster *cluster, const struct layouts_request *request,
                            char out[RELAXATION_BYTES])
{
    struct layouts_request trial = *request;
    trial.reporter = (struct reporter){.user = NULL};
    trial.pins = layout_pins_none();
    out[0] = '\0';
    if (has_pins(request) && any_fits(&trial)) {
        (void)snprintf(out, RELAXATION_BYTES, "without --pin some layout fits");
        return;
    }
    for (int keeps = 1; keeps >= 0; keeps--) {
        trial.pins = keeps ? request->pins : layout_pins_none();
        for (int64_t factor = 2; factor <= DEVICES_FACTOR_MAX; factor *= 2) {
            struct cluster larger = *cluster;
            multiply_nodes(&larger, factor);
            trial.cluster = &larger;
            if (!any_fits(&trial))
                continue;
            (void)snprintf(out, RELAXATION_BYTES, "on %lld devices%s some layout fits",
                           (long long)cluster_devices(&larger), keeps ? "" : " and without --pin");
            return;
        }
    }
}

static enum status refuse_leanest(const struct cluster *cluster,
                                  const struct layouts_request *request,
                                  const struct layout_list *list, struct error *err)
{
    const struct layout *leanest = &list->leanest;
    char least[UNIT_TEXT_BYTES], cap[UNIT_TEXT_BYTES], missing[UNIT_TEXT_BYTES];
    char relaxation[RELAXATION_BYTES];
    double device_bytes = (double)cluster->groups[0].device.memory_bytes;
    double cap_bytes = (double)request->memory_cap_bytes;
    if (request->memory_cap_bytes == 0 || cap_bytes > device_bytes)
        cap_bytes = device_bytes;
    find_relaxation(cluster, request, relaxation);
    return error_set(
        err, STATUS_INFEASIBLE,
        "no layout fits: the leanest (tp %lld, pp %lld, dp %lld, ZeRO %d, recompute "
        "%s%s) takes %s a device in all but %g %% of runs, %s more than the %s there "
        "are; %s",
        (long long)leanest->tensor, (long long)leanest->pipeline, (long long)leanest->data,
        leanest->zero_stage, recompute_name(leanest->recompute),
        leanest->fused_attention ? "" : ", attention not fused",
        format_bytes(list->leanest_bytes, least), 100 * request->risk,
        format_bytes(list->leanest_bytes - cap_bytes, missing), format_bytes(cap_bytes, cap),
        relaxation[0] != '\0' ? relaxation : "take a smaller sequence or model");
}

enum status cluster_refuse(const struct cluster *cluster, const struct layouts_request *request,
                           const struct cluster_answer *answer, struct error *err)
{
    const struct layout_list *list = &answer->uniform;
    if (!answer->is_whole)
        return error_set(err, STATUS_FAILED, "the search was stopped before a layout was found");
    if (list->considered + answer->tailored.shapes == 0)
        return error_set(err, STATUS_INFEASIBLE,
                         "no layout of %lld devices divides the model, global batch %lld%s as "
                         "pinned; drop a pin or change --global-batch",
                         (long long)cluster_devices(cluster), (long long)request->global_batch,
                         cluster->group_count > 1 ? " and each group of nodes into whole stages"
                                                  : "");
    if (list->considered == 0)
        return error_set(err, STATUS_INFEASIBLE,
                         "no layout fits: of %llu shapes none leaves every stage enough memory; "
                         "take more devices, or a smaller sequence",
                         (unsigned long long)answer->tailored.shapes);
    return refuse_leanest(cluster, request, list, err);
}
