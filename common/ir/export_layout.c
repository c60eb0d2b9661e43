/* A layout handed over: as a plan with the same strategy in every layer, and beside it what plans
 * do not have. */
#include "ir/export_ops.h"
#include <stdlib.h>

/* Of blocks in fp8 this is what the rest is in. */
static enum precision precision_of(const struct layout *layout)
{
    switch (layout->arithmetic) {
    case ARITHMETIC_BF16:
    case ARITHMETIC_FP8:
        return PRECISION_BF16;
    case ARITHMETIC_FP16:
        return PRECISION_FP16;
    default:
        return PRECISION_FP32;
    }
}

static enum status check_degrees(const struct export_ops *ops, const struct layout *layout,
                                 struct error *err)
{
    if (layout->context > 1 && !ops->context_parallel)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s has no context parallelism, the layout has %lld ranks a sequence: "
                         "plan with --pin cp=1",
                         ops->title, (long long)layout->context);
    if (layout->expert > 1 && !ops->expert_parallel)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the layout's expert parallelism %lld cannot be handed over to %s: plan "
                         "with --pin ep=1",
                         (long long)layout->expert, ops->title);
    return STATUS_OK;
}

/* The ranks that share a sequence also share gradients and ZeRO's state: they are data-parallel
 * ones in the plan, but for its count of micro-batches. Its layers are the caller's. */
static struct plan plan_without_layers(const struct model *model, const struct layout *layout)
{
    return (struct plan){
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
        .micro_batches = layout_micro_batches(layout),
        .layer_count = model_layer_count(model),
        .status = PLAN_PREDICTED,
    };
}

/* Chunk c of stage s is virtual stage c * stages + s: in this order blocks follow in the model. */
static void place_layers(const struct own_layout *own, struct plan *plan)
{
    const struct layout *layout = &own->layout;
    struct layer_strategy *at = &plan->layers[1];

    for (int64_t chunk = 0; chunk < layout->virtual_stages; chunk++) {
        for (int64_t stage = 0; stage < layout->pipeline; stage++) {
            int64_t layers = 2 * own_layout_chunk_blocks(own, stage, chunk);
            for (int64_t i = 0; i < layers; i++)
                (at++)->stage = (int)(chunk * layout->pipeline + stage);
        }
    }
    at->stage = (int)(layout->virtual_stages * layout->pipeline) - 1; /* the head */
}

static enum status plan_of(const struct model *model, const struct own_layout *own,
                           struct plan *out, struct error *err)
{
    const struct layout *layout = &own->layout;
    *out = plan_without_layers(model, layout);
    out->layers = calloc(out->layer_count, sizeof(*out->layers));
    if (out->layers == NULL)
        return error_memory(err, out->layer_count * sizeof(*out->layers), "a plan's layers");
    for (size_t i = 0; i < out->layer_count; i++)
        out->layers[i] = (struct layer_strategy){
            .tensor_parallel = (int)layout->tensor,
            .sequence_parallel = layout->sequence_parallel,
            .zero_stage = layout->zero_stage,
            .precision = precision_of(layout),
        };
    place_layers(own, out);
    return STATUS_OK;
}

int64_t export_planned_block(const struct export_job *job, int64_t block)
{
    const struct own_layout *own = job->layout;
    int64_t stages = own->blocks->stages, place = block, stage = 0, chunk = 0;

    while (place >= own_layout_chunk_blocks(own, stage, chunk)) {
        place -= own_layout_chunk_blocks(own, stage, chunk);
        stage = (stage + 1) % stages;
        chunk += stage == 0;
    }
    for (int64_t i = 0; i < stage; i++)
        place += own->blocks->stage_blocks[i];
    for (int64_t i = 0; i < chunk; i++)
        place += own_layout_chunk_blocks(own, stage, i);
    return place;
}

static bool has_fp8(const struct own_layout *own)
{
    for (int64_t i = 0; i < own->blocks->blocks; i++)
        if (own->blocks->modes[i].arithmetic == ARITHMETIC_FP8)
            return true;
    return false;
}

static struct export_job job_of(const struct plan *plan, const struct own_layout *own,
                                const struct layout_ways *ways)
{
    const struct layout *layout = &own->layout;
    int stages = plan->pipeline * plan->virtual_stages;
    struct export_job job = {
        .plan = plan,
        .sequence_parallel = layout->sequence_parallel,
        .zero_stage = layout->zero_stage,
        .precision = precision_of(layout),
        .recompute = ways->recompute,
        .recompute_count = ways->recompute_count,
        .even_stages = true,
        .layout = own,
        .expert = layout->expert,
        .context = layout->context,
        .shard = layout->zero_stage > 0 ? layout->shard : layout->data * layout->context,
        .optimizer_away = layout->offload_optimizer,
        .unfused = !layout->fused_attention,
        .serial = !layout->overlap_gradients && !layout->overlap_parameters,
        .fp8 = has_fp8(own),
        .first_16_bit = ways->first_16_bit,
        .last_16_bit = ways->last_16_bit,
        .offloaded = ways->offloaded,
    };
    for (int stage = 0; stage < stages; stage++)
        job.even_stages =
            job.even_stages && export_stage_blocks(plan, stage) * stages == plan->model.blocks;
    return job;
}

/* Stages of unlike devices: whoever starts the ranks has to put them there. */
static void note_groups(const struct own_layout *own, struct text *notes)
{
    const size_t *groups = own->blocks->stage_groups;
    int64_t stages = own->blocks->stages, first = 0;
    bool is_one = true;

    for (int64_t i = 1; i < stages; i++)
        is_one = is_one && groups[i] == groups[0];
    if (is_one)
        return;
    text_append(notes, "list the hosts in the order of the stages:");
    for (int64_t i = 1; i <= stages; i++) {
        if (i < stages && groups[i] == groups[first])
            continue;
        text_printf(notes, "%s stages %lld to %lld on node group %zu", first > 0 ? "," : "",
                    (long long)first, (long long)i - 1, groups[first]);
        first = i;
    }
    text_append(notes, " of the cluster\n");
}

enum status export_layout_check(enum export_target target, const struct model *model,
                                const struct layout *layout, struct error *err)
{
    const struct export_ops *ops = export_ops_of(target);
    const struct plan plan = plan_without_layers(model, layout);
    TRY(check_degrees(ops, layout, err));
    return export_ops_check(ops, &plan, err);
}

enum status export_layout(enum export_target target, const struct model *model,
                          const struct own_layout *layout, struct text *file, struct text *notes,
                          struct error *err)
{
    const struct export_ops *ops = export_ops_of(target);
    struct layout_ways ways;
    struct plan plan;

    TRY(export_layout_check(target, model, &layout->layout, err));
    TRY(layout_ways_of(ops, model, layout, &ways, err));
    enum status status = plan_of(model, layout, &plan, err);
    if (status == STATUS_OK) {
        struct export_job job = job_of(&plan, layout, &ways);
        status = ops->write(&job, file, notes, err);
    }
    plan_clear(&plan);
    TRY(status);
    note_groups(layout, notes);
    TRY(text_check(file, err));
    return text_check(notes, err);
}
