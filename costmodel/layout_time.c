#include "costmodel/layout_cost.h"

#include "costmodel/layout_energy.h"
#include "costmodel/layout_step.h"
#include <math.h>

/* One standard deviation of measured step times about the predicted ones, as a share; over the
 * published runs that docs/layout-model.md lists. */
static const double time_deviation = 0.1;

static struct quantity modelled(double value)
{
    return (struct quantity){value, time_deviation * value, PROVENANCE_MODELLED};
}

static enum status check_device(const struct cluster *cluster, const struct device_type *device,
                                const struct layout *layout, struct error *err)
{
    if (!(device->peak_flops[layout->arithmetic] > 0))
        return error_set(err, STATUS_UNSUPPORTED,
                         "cluster '%s': device %s has no peak rate in %s; give it or choose "
                         "another arithmetic",
                         cluster->name, device->name, arithmetic_name(layout->arithmetic));
    if (layout->arithmetic == ARITHMETIC_FP8 && !(device->peak_flops[ARITHMETIC_BF16] > 0))
        return error_set(err, STATUS_UNSUPPORTED,
                         "cluster '%s': device %s has no peak rate in bf16, which attention and "
                         "logits of an fp8 layout need",
                         cluster->name, device->name);
    if (!(device->memory_bytes_s > 0))
        return error_set(err, STATUS_INVALID,
                         "cluster '%s': the memory rate of device %s is not given", cluster->name,
                         device->name);
    for (int operation = 0; operation < OPERATION_COUNT; operation++)
        if (device->efficiency[operation].count == 0)
            return error_set(
                err, STATUS_INVALID, "cluster '%s': device %s has no efficiency curve for %s",
                cluster->name, device->name, operation_name((enum operation)operation));
    return STATUS_OK;
}

static bool offloads(const struct layout *layout, const struct model *model)
{
    bool does = layout->offload_activations || layout->offload_optimizer;
    for (int64_t block = 0; layout->own && block < model->blocks && !does; block++)
        does = layout->own->modes[block].offload;
    return does;
}

static enum status check_host(const struct cluster *cluster, const struct device_type *device,
                              struct error *err)
{
    if (!(device->host_bytes_s > 0) || !(device->host_memory_bytes_s > 0) ||
        device->host_memory_bytes == 0)
        return error_set(err, STATUS_INVALID,
                         "cluster '%s': the host of device %s is not given, which the layout's "
                         "offload needs: host_bytes_s, host_memory_bytes_s, host_memory_bytes",
                         cluster->name, device->name);
    return STATUS_OK;
}

static enum status check_group(const struct cluster *cluster, size_t index,
                               const struct layout *layout, int64_t stages, bool needs_host,
                               struct error *err)
{
    const struct node_group *group = &cluster->groups[index];
    int64_t devices = group->nodes * group->node_devices;
    int64_t taken = layout->devices / layout->pipeline * stages;

    if (taken > devices)
        return error_set(err, STATUS_INVALID,
                         "cluster '%s': the layout takes %lld devices of group %zu, which has %lld",
                         cluster->name, (long long)taken, index + 1, (long long)devices);
    if (layout->devices > 1 && group->tier_count == 0)
        return error_set(err, STATUS_INVALID,
                         "cluster '%s': its group %zu has no links, the layout takes %lld devices",
                         cluster->name, index + 1, (long long)layout->devices);
    TRY(check_device(cluster, &group->device, layout, err));
    return needs_host ? check_host(cluster, &group->device, err) : STATUS_OK;
}

/* The first stage from `first` on that stands on another group than it. */
static int64_t group_end(const struct layout *layout, int64_t first)
{
    const size_t *groups = layout->own ? layout->own->stage_groups : NULL;
    int64_t end = first + 1;
    if (!groups)
        return layout->pipeline;
    while (end < layout->pipeline && groups[end] == groups[first])
        end++;
    return end;
}

static enum status check_cluster(const struct cluster *cluster, const struct model *model,
                                 const struct layout *layout, struct error *err)
{
    bool needs_host = offloads(layout, model);
    int64_t first = 0;
    while (first < layout->pipeline) {
        bool has_groups = layout->own && layout->own->stage_groups;
        size_t group = has_groups ? layout->own->stage_groups[first] : 0;
        int64_t end = group_end(layout, first);
        if (group >= cluster->group_count)
            return error_set(err, STATUS_INVALID, "cluster '%s': it has no group %zu",
                             cluster->name, group + 1);
        TRY(check_group(cluster, group, layout, end - first, needs_host, err));
        first = end;
    }
    return STATUS_OK;
}

/* FLOPs of the step's products, backward twice forward, whatever is computed again. */
static double model_flops(const struct model *model, const struct layout *layout)
{
    const struct micro_batch_shape sequence = {
        .sequences = 1, .seq_length = model->seq_length, .threads = 1};
    return 3 * model_forward_flops(model, &sequence) * (double)layout->global_batch;
}

/* Of the slowest stage; what it does not work is the pipeline's. */
static void fill_phases(const struct layout_step *step, struct layout_prediction *out)
{
    const struct stage_work *stage = &step->stages[step->slowest];
    double m = step->micro_batches, rest_s = step->pipeline_s, exchange_s[PASS_COUNT];
    double phase_s[PHASE_COUNT] = {0};

    for (int pass = 0; pass < PASS_COUNT; pass++)
        exchange_s[pass] = fmin(stage->pass[pass].exchange_s, stage->pass_s[pass]);
    phase_s[PHASE_FORWARD] = m * (stage->pass_s[PASS_FORWARD] - exchange_s[PASS_FORWARD]);
    phase_s[PHASE_BACKWARD] = m * (stage->pass_s[PASS_BACKWARD] - exchange_s[PASS_BACKWARD]);
    phase_s[PHASE_TENSOR] = m * (exchange_s[PASS_FORWARD] + exchange_s[PASS_BACKWARD]);
    rest_s -= m * stage_work_s(stage);
    phase_s[PHASE_PIPELINE] = fmax(rest_s, 0);
    phase_s[PHASE_PARAM_GATHER] = m * stage->gather_s + step->gather_s;
    phase_s[PHASE_GRAD_REDUCE] = m * stage->scatter_s + step->reduce_s;
    phase_s[PHASE_OPTIMIZER] = step->optimizer_s;
    phase_s[PHASE_OTHER] = m * stage->host_s;
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        out->phase_time_s[phase] = modelled(phase_s[phase]);
}

/* Of all devices, per second. */
static double peak_flops(const struct layout_step *step)
{
    const struct layout *layout = step->layout;
    double sum = 0;
    for (size_t i = 0; i < step->stage_count; i++) {
        const struct stage_work *stage = &step->stages[i];
        const struct device_type *device = step->prices[stage->group].share.device;
        sum += stage->count * device->peak_flops[layout->arithmetic];
    }
    return sum * (double)layout->devices / (double)layout->pipeline;
}

enum status parts_time(const struct layout_parts *parts, struct layout_prediction *out,
                       struct error *err)
{
    struct layout_step step;

    TRY(check_cluster(parts->cluster, parts->model, parts->layout, err));
    layout_step(parts, &step);
    fill_phases(&step, out);
    /* Phases err alike: their deviations add up rather than cancel. */
    out->time_s = modelled(step.step_s);
    layout_energy(parts->cluster, &step, out);
    out->model_flops = model_flops(parts->model, parts->layout);
    out->mfu = out->model_flops / (step.step_s * peak_flops(&step));
    return STATUS_OK;
}

enum status layout_time(const struct cluster *cluster, const struct model *model,
                        const struct layout *layout, struct layout_prediction *out,
                        struct error *err)
{
    struct layout_parts parts;
    TRY(check_cluster(cluster, model, layout, err));
    layout_parts_fill(cluster, model, layout, NULL, &parts);
    return parts_time(&parts, out, err);
}

enum status layout_predict(const struct cluster *cluster, const struct model *model,
                           const struct layout *layout, struct layout_prediction *out,
                           struct error *err)
{
    struct layout_prediction prediction = {0};
    struct layout_parts parts;

    TRY(check_cluster(cluster, model, layout, err));
    layout_parts_fill(cluster, model, layout, NULL, &parts);
    TRY(parts_time(&parts, &prediction, err));
    parts_memory(&parts, &prediction);
    *out = prediction;
    return STATUS_OK;
}
