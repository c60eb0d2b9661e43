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

static enum status check_device(const struct cluster *cluster, const struct layout *layout,
                                struct error *err)
{
    const struct device_type *device = &cluster->groups[0].device;
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

static enum status check_cluster(const struct cluster *cluster, const struct layout *layout,
                                 struct error *err)
{
    const struct node_group *group = &cluster->groups[0];
    int64_t devices = group->nodes * group->node_devices;
    if (layout->devices > devices)
        return error_set(err, STATUS_INVALID,
                         "cluster '%s': the layout takes %lld devices, its first group has %lld",
                         cluster->name, (long long)layout->devices, (long long)devices);
    if (layout->devices > 1 && group->tier_count == 0)
        return error_set(
            err, STATUS_INVALID,
            "cluster '%s': its first group has no links, the layout takes %lld devices",
            cluster->name, (long long)layout->devices);
    return check_device(cluster, layout, err);
}

/* FLOPs of the step's products, backward twice forward, whatever is computed again. */
static double model_flops(const struct model *model, const struct layout *layout)
{
    const struct micro_batch_shape sequence = {1, model->seq_length, 1};
    double forward =
        (double)model->blocks * (layer_forward_flops(model, LAYER_ATTENTION, &sequence) +
                                 layer_forward_flops(model, LAYER_MLP, &sequence)) +
        layer_forward_flops(model, LAYER_HEAD, &sequence);
    return 3 * forward * (double)layout->global_batch;
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
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        out->phase_time_s[phase] = modelled(phase_s[phase]);
}

enum status layout_time(const struct cluster *cluster, const struct model *model,
                        const struct layout *layout, struct layout_prediction *out,
                        struct error *err)
{
    struct layout_step step;

    TRY(check_cluster(cluster, layout, err));
    layout_step(cluster, model, layout, &step);
    fill_phases(&step, out);
    /* Phases err alike: their deviations add up rather than cancel. */
    out->time_s = modelled(step.step_s);
    layout_energy(cluster, &step, out);
    out->model_flops = model_flops(model, layout);
    out->mfu = out->model_flops / (step.step_s * (double)layout->devices *
                                   step.share.device->peak_flops[layout->arithmetic]);
    return STATUS_OK;
}

enum status layout_predict(const struct cluster *cluster, const struct model *model,
                           const struct layout *layout, struct layout_prediction *out,
                           struct error *err)
{
    struct layout_prediction prediction = {0};

    TRY(layout_time(cluster, model, layout, &prediction, err));
    TRY(layout_memory(cluster, model, layout, &prediction, err));
    *out = prediction;
    return STATUS_OK;
}
