#include "costmodel/cost.h"
#include "ir/footprint.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>

static const char machine[] = "machine";

static enum status refuse_missing(const char *what, const char *subject, struct placement placement,
                                  struct error *err)
{
    return error_set(err, STATUS_INVALID,
                     "the profile has no %s of %s with %d rank%s of %d thread%s; measure it with: "
                     "temper profile --ranks %d --threads %d and the same model options",
                     what, subject, placement.ranks, placement.ranks == 1 ? "" : "s",
                     placement.threads, placement.threads == 1 ? "" : "s", placement.ranks,
                     placement.threads);
}

static bool is_absent(struct quantity quantity)
{
    return quantity.provenance == PROVENANCE_ABSENT;
}

/* A process that has used bf16 kernels holds more; where that was not measured, fp32's figure is
 * the nearest. */
static struct quantity process_bytes(const struct profile *profile, struct placement placement,
                                     bool bf16_copy)
{
    struct series_key key = {.subject = machine,
                             .metric = METRIC_PROCESS_BYTES,
                             .precision = bf16_copy ? PRECISION_BF16 : PRECISION_FP32,
                             .placement = placement};
    struct quantity bytes = profile_value(profile, &key);
    if (!is_absent(bytes) || !bf16_copy)
        return bytes;
    key.precision = PRECISION_FP32;
    bytes = profile_value(profile, &key);
    if (!is_absent(bytes))
        bytes.provenance = PROVENANCE_INTERPOLATED;
    return bytes;
}

static struct quantity machine_value(const struct profile *profile, struct placement placement,
                                     enum metric metric)
{
    const struct series_key key = {.subject = machine, .metric = metric, .placement = placement};
    return profile_value(profile, &key);
}

/* Joules of `seconds` of the host's working power: a product of two figures, so never itself
 * measured. */
static struct quantity energy_at(struct quantity watts, struct quantity seconds)
{
    struct quantity energy = quantity_scale(watts, seconds.value);
    if (is_absent(energy) || is_absent(seconds))
        return quantity_absent();
    energy.deviation = hypot(energy.deviation, watts.value * seconds.deviation);
    if (energy.provenance < PROVENANCE_INTERPOLATED)
        energy.provenance = PROVENANCE_INTERPOLATED;
    if (energy.provenance < seconds.provenance)
        energy.provenance = seconds.provenance;
    return energy;
}

struct quantity cost_all_reduce(const struct profile *profile, struct placement placement,
                                uint64_t bytes)
{
    const struct series_key key = {
        .subject = "all-reduce", .metric = METRIC_LINK_S, .placement = placement};
    return profile_at_bytes(profile, &key, (int64_t)bytes);
}

/* The part of the layer's all-reduce that backward compute does not hide; more than the whole where
 * it slows compute by more than it hides (ranks that share cores and memory with their own
 * messages). The embedding's gradients are final only when backward is over, so nothing is left to
 * hide theirs. */
static enum status cost_grad_reduce(const struct profile *profile, const struct layer_work *work,
                                    uint64_t bytes, struct layer_cost *out, struct error *err)
{
    struct placement placement = work->placement;
    out->grad_reduce_s = out->grad_reduce_j = (struct quantity){.value = 0};
    if (placement.ranks == 1)
        return STATUS_OK;
    struct quantity seconds = cost_all_reduce(profile, placement, bytes);
    if (is_absent(seconds))
        return refuse_missing("time", "all-reduce", placement, err);
    if (work->kind != LAYER_EMBEDDING) {
        struct quantity overlap = machine_value(profile, placement, METRIC_OVERLAP);
        if (is_absent(overlap))
            overlap = (struct quantity){.value = 0, .provenance = PROVENANCE_MODELLED};
        double whole = seconds.value;
        seconds = quantity_scale(seconds, 1 - overlap.value);
        seconds.deviation = hypot(seconds.deviation, whole * overlap.deviation);
        if (seconds.provenance < overlap.provenance)
            seconds.provenance = overlap.provenance;
    }
    out->grad_reduce_s = seconds;
    struct quantity watts = machine_value(profile, placement, METRIC_ACTIVE_W);
    out->grad_reduce_j = quantity_scale(energy_at(watts, seconds), 1.0 / placement.ranks);
    return STATUS_OK;
}

static void cost_bytes(const struct model *model, const struct layer_work *work,
                       struct layer_cost *out)
{
    const struct micro_batch_shape shape = {.sequences = work->micro_batch,
                                            .seq_length = model->seq_length,
                                            .threads = work->placement.threads};
    uint64_t count = layer_flat_count(model, work->kind);
    out->saved_bytes = footprint_saved_bytes(model, work->kind, work->mode, &shape);
    out->scratch_bytes = footprint_scratch_bytes(model, work->kind, work->mode, &shape);
    out->parameter_bytes = count * sizeof(float);
    if (work->bf16_copy)
        out->parameter_bytes += count * precision_bytes(PRECISION_BF16);
    out->gradient_bytes = count * sizeof(float);
    out->optimizer_bytes = 2 * count * sizeof(float);
}

/* Forward, backward and optimizer, time and energy. False: a time was not measured. */
static bool cost_compute(const struct profile *profile, const struct layer_work *work,
                         const char *layer_key, struct layer_cost *out)
{
    const struct {
        enum metric metric;
        struct quantity *out;
    } per_micro_batch[] = {
        {METRIC_FORWARD_S, &out->forward_s},
        {METRIC_BACKWARD_S, &out->backward_s},
        {METRIC_FORWARD_J, &out->forward_j},
        {METRIC_BACKWARD_J, &out->backward_j},
    };
    struct series_key key = {.subject = layer_key,
                             .precision = work->mode.precision,
                             .recompute = work->mode.recompute,
                             .placement = work->placement};
    for (size_t i = 0; i < sizeof(per_micro_batch) / sizeof(*per_micro_batch); i++) {
        key.metric = per_micro_batch[i].metric;
        *per_micro_batch[i].out = profile_at_micro_batch(profile, &key, work->micro_batch);
    }
    key.precision = work->bf16_copy ? PRECISION_BF16 : PRECISION_FP32;
    key.recompute = RECOMPUTE_NONE;
    key.metric = METRIC_OPTIMIZER_S;
    out->optimizer_s = profile_value(profile, &key);
    key.metric = METRIC_OPTIMIZER_J;
    out->optimizer_j = profile_value(profile, &key);
    return !is_absent(out->forward_s) && !is_absent(out->backward_s) &&
           !is_absent(out->optimizer_s);
}

enum status cost_layer(const struct profile *profile, const struct model *model,
                       const struct layer_work *work, struct layer_cost *out, struct error *err)
{
    assert(layer_admits_precision(work->kind, work->mode.precision));
    assert(layer_admits_recompute(work->kind, work->mode.recompute));
    char layer[LAYER_KEY_BYTES], subject[LAYER_KEY_BYTES + 64];
    struct layer_cost cost = {0};
    layer_key(model, work->kind, layer);
    if (!cost_compute(profile, work, layer, &cost)) {
        (void)snprintf(subject, sizeof(subject), "'%s' in %s, recompute %s%s", layer,
                       precision_name(work->mode.precision), recompute_name(work->mode.recompute),
                       work->bf16_copy ? ", optimizer with bf16 copies" : "");
        return refuse_missing("times", subject, work->placement, err);
    }
    cost_bytes(model, work, &cost);
    TRY(cost_grad_reduce(profile, work, cost.gradient_bytes, &cost, err));
    *out = cost;
    return STATUS_OK;
}

enum status cost_step(const struct profile *profile, struct placement placement, bool bf16_copy,
                      struct step_cost *out, struct error *err)
{
    struct step_cost cost = {
        .other_s = machine_value(profile, placement, METRIC_STEP_OVERHEAD_S),
        .process_bytes = process_bytes(profile, placement, bf16_copy),
        .idle_watts = machine_value(profile, placement, METRIC_IDLE_W),
        .active_watts = machine_value(profile, placement, METRIC_ACTIVE_W),
    };
    if (is_absent(cost.other_s))
        return refuse_missing("step overhead", "the machine", placement, err);
    if (is_absent(cost.process_bytes))
        return refuse_missing("process memory", "the machine", placement, err);
    cost.other_j = energy_at(cost.active_watts, cost.other_s);
    *out = cost;
    return STATUS_OK;
}
