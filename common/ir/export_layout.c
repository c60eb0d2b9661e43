/* A layout handed over: as the plan that has the same strategy in every layer. */
#include "ir/export_ops.h"
#include <stdlib.h>

static enum status precision_of(enum arithmetic arithmetic, enum precision *out, struct error *err)
{
    switch (arithmetic) {
    case ARITHMETIC_FP32:
        *out = PRECISION_FP32;
        return STATUS_OK;
    case ARITHMETIC_BF16:
        *out = PRECISION_BF16;
        return STATUS_OK;
    case ARITHMETIC_FP16:
        *out = PRECISION_FP16;
        return STATUS_OK;
    default:
        return error_set(err, STATUS_UNSUPPORTED,
                         "a layout in %s cannot be handed over: it has to be in bf16, fp16 or fp32",
                         arithmetic_name(arithmetic));
    }
}

static enum status check_layout(const struct export_ops *ops, const struct layout *layout,
                                struct error *err)
{
    if (layout->context > 1 && !ops->context_parallel)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s has no context parallelism, the layout has %lld ranks a sequence: it "
                         "has to be 1",
                         ops->title, (long long)layout->context);
    if (layout->expert > 1)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the layout's expert parallelism %lld cannot be handed over: it has to be "
                         "1",
                         (long long)layout->expert);
    if (layout->zero_stage > 0 && layout->shard != layout->data * layout->context)
        return error_set(err, STATUS_UNSUPPORTED,
                         "a layout whose ZeRO state is shared by %lld of %lld data-parallel "
                         "devices cannot be handed over: it has to be all of them",
                         (long long)layout->shard, (long long)(layout->data * layout->context));
    return STATUS_OK;
}

/* Fused attention keeps no probabilities, whether they are said to be recomputed or not. */
static enum recompute recompute_of(const struct export_ops *ops, const struct layout *layout)
{
    bool is_same = layout->fused_attention && layout->recompute == RECOMPUTE_NONE;
    return is_same && !ops->recompute[EXPORT_KEEP] ? RECOMPUTE_SELECTIVE : layout->recompute;
}

/* The ranks that share a sequence also share gradients and ZeRO's state: they are data-parallel
 * ones in the plan, but for its count of micro-batches. */
static enum status plan_of(const struct export_ops *ops, const struct model *model,
                           const struct layout *layout, struct plan *out, struct error *err)
{
    struct layer_strategy strategy = {
        .tensor_parallel = (int)layout->tensor,
        .sequence_parallel = layout->sequence_parallel,
        .zero_stage = layout->zero_stage,
    };
    *out = (struct plan){
        .model = *model,
        .ranks = (int)layout->devices,
        .data_parallel = (int)(layout->data * layout->context),
        .tensor_parallel = (int)layout->tensor,
        .pipeline = (int)layout->pipeline,
        .virtual_stages = (int)layout->virtual_stages,
        .schedule = layout->schedule,
        .threads = 1,
        .global_batch = layout->global_batch,
        .micro_batch = layout->micro_batch,
        .micro_batches = layout->global_batch / (layout->micro_batch * layout->data),
        .layer_count = model_layer_count(model),
        .status = PLAN_PREDICTED,
    };
    TRY(precision_of(layout->arithmetic, &strategy.precision, err));
    out->layers = calloc(out->layer_count, sizeof(*out->layers));
    if (out->layers == NULL)
        return error_memory(err, out->layer_count * sizeof(*out->layers), "a plan's layers");
    for (size_t i = 0; i < out->layer_count; i++) {
        enum layer_kind kind = model_layer(model, i).kind;
        enum recompute recompute = recompute_of(ops, layout);
        out->layers[i] = strategy;
        if (layer_admits_recompute(kind, recompute))
            out->layers[i].recompute = recompute;
    }
    export_cut_evenly(out);
    return STATUS_OK;
}

enum status export_layout(enum export_target target, const struct model *model,
                          const struct layout *layout, struct text *file, struct text *notes,
                          struct error *err)
{
    const struct export_ops *ops = export_ops_of(target);
    struct plan plan;
    struct export_job job;

    TRY(check_layout(ops, layout, err));
    enum status status = plan_of(ops, model, layout, &plan, err);
    if (status == STATUS_OK)
        status = ops->check(&plan, err);
    if (status == STATUS_OK)
        status = export_job_of(ops, &plan, &job, err);
    if (status == STATUS_OK) {
        job.context = layout->context;
        status = ops->write(&job, file, notes, err);
    }
    plan_clear(&plan);
    TRY(status);
    TRY(text_check(file, err));
    return text_check(notes, err);
}
