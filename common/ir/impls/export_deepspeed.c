/* DeepSpeed: ds_config.json. The model, how its layers are cut into stages and which of them are
 * recomputed is the training script's in DeepSpeed, so that is told in notes. Names:
 * docs/_pages/config-json.md and the AutoTP tutorial, see docs/export.md. */
#include "base/json.h"
#include "ir/export_ops.h"

/* Its pipeline engine takes ZeRO 0 and 1, its tensor parallelism (AutoTP) 0 to 2. */
static bool admits_zero(const struct plan *plan, int zero_stage)
{
    if (plan->pipeline > 1)
        return zero_stage <= 1;
    return plan->tensor_parallel == 1 || zero_stage <= 2;
}

static enum status check(const struct plan *plan, struct error *err)
{
    if (plan->pipeline > 1 && plan->tensor_parallel > 1)
        return error_set(err, STATUS_UNSUPPORTED,
                         "DeepSpeed's pipelines and its tensor parallelism do not go together: "
                         "plan with --pin pp=1 or --pin tp=1");
    return STATUS_OK;
}

static void write_zero(const struct export_job *job, struct jout *out)
{
    jout_begin_object(out, "zero_optimization");
    jout_int(out, "stage", job->zero_stage);
    if (job->zero_stage > 0) {
        jout_bool(out, "overlap_comm", !job->serial);
        jout_bool(out, "reduce_scatter", true);
        jout_bool(out, "contiguous_gradients", true);
    }
    if (job->shard < job->plan->data_parallel)
        jout_int(out, "mics_shard_size", job->shard);
    if (job->optimizer_away) {
        jout_begin_object(out, "offload_optimizer");
        jout_string(out, "device", "cpu");
        jout_bool(out, "pin_memory", true);
        jout_end(out);
    }
    jout_end(out);
}

/* Of what the script recomputes by deepspeed.checkpointing. */
static void write_checkpoints(const struct export_job *job, struct jout *out)
{
    if (job->offloaded == 0)
        return;
    jout_begin_object(out, "activation_checkpointing");
    jout_bool(out, "partition_activations", true);
    jout_bool(out, "cpu_checkpointing", true);
    jout_end(out);
}

static void write_precision(const struct export_job *job, struct jout *out)
{
    jout_begin_object(out, "bf16");
    jout_bool(out, "enabled", job->precision == PRECISION_BF16);
    jout_end(out);
    jout_begin_object(out, "fp16");
    jout_bool(out, "enabled", job->precision == PRECISION_FP16);
    if (job->precision == PRECISION_FP16)
        jout_int(out, "loss_scale", 0); /* dynamic */
    jout_end(out);
}

static void write_model_notes(const struct model *model, struct text *notes)
{
    text_printf(notes,
                "the script builds the model: %s, blocks %lld, hidden %lld, heads %lld, key/value "
                "heads %lld, ffn %lld, vocab %lld, %lld tokens a sequence, %s head\n",
                model_family_name(model->family), (long long)model->blocks,
                (long long)model->hidden, (long long)model->heads, (long long)model->kv_heads,
                (long long)model->ffn, (long long)model->vocab, (long long)model->seq_length,
                model->tied_head ? "tied" : "untied");
}

static void write_cut(const struct export_job *job, struct text *notes)
{
    const struct plan *plan = job->plan;
    bool has_ends = !job->even_stages && (plan->model.blocks + 2) % plan->pipeline == 0;
    text_printf(notes,
                "the script cuts it: PipelineModule(num_stages=%d, "
                "partition_method='type:REGEX') with a REGEX of the blocks' class%s, ",
                plan->pipeline, has_ends ? " and of the embedding's and the head's" : "");
    if (job->even_stages)
        text_printf(notes, "%lld blocks on each stage", (long long)export_stage_blocks(plan, 0));
    for (int stage = 0; stage < plan->pipeline && !job->even_stages; stage++)
        text_printf(notes, "%s%lld", stage > 0 ? ", " : "stages of ",
                    (long long)export_stage_blocks(plan, stage));
    text_printf(notes, "%s, the embedding with the first, the head with the last\n",
                job->even_stages ? "" : " blocks");
}

/* "blocks 0-3, 8" whose layout has this mode; a PipelineModule knows them by their class. */
static void write_own_recompute(const struct export_job *job, struct text *notes)
{
    const struct own_blocks *blocks = job->layout->blocks;
    const char *before = "the script recomputes blocks ";

    for (int64_t first = 0; first < blocks->blocks; first++) {
        int64_t end = first;
        while (end < blocks->blocks && blocks->modes[end].recompute == RECOMPUTE_FULL)
            end++;
        if (end == first)
            continue;
        text_printf(notes, end - first > 1 ? "%s%lld-%lld" : "%s%lld", before, (long long)first,
                    (long long)end - 1);
        before = ", ";
        first = end;
    }
    text_append(notes, " and no others: deepspeed.checkpointing.checkpoint() around them, in a "
                       "PipelineModule activation_checkpoint_interval=1 and checkpointable_layers "
                       "with a class that only they have\n");
}

static void write_notes(const struct export_job *job, struct text *notes)
{
    const struct plan *plan = job->plan;

    write_model_notes(&plan->model, notes);
    text_printf(notes, "start it on %d devices\n", plan->ranks);
    if (plan->pipeline > 1)
        write_cut(job, notes);
    if (job->shard < plan->data_parallel)
        text_append(notes, "the script builds the model under deepspeed.zero.MiCS_Init\n");
    if (job->recompute == EXPORT_OWN)
        write_own_recompute(job, notes);
    if (job->recompute == EXPORT_FULL)
        text_append(notes, "the script recomputes every block: gradient_checkpointing_enable() of "
                           "a Hugging Face model, activation_checkpoint_interval=1 of a "
                           "PipelineModule\n");
    if (job->offloaded > 0)
        text_append(notes, "the script recomputes by deepspeed.checkpointing, whose checkpoints go "
                           "to the host\n");
    if (job->unfused)
        text_append(notes, "the script's attention is not fused: attn_implementation='eager' of a "
                           "Hugging Face model\n");
    if (job->unfused && job->recompute == EXPORT_SELECTIVE)
        text_append(notes, "the script recomputes its probabilities: "
                           "deepspeed.checkpointing.checkpoint() around them\n");
    else if (job->recompute == EXPORT_SELECTIVE)
        text_append(notes, "the script's attention is to keep no probabilities: a fused one such "
                           "as FlashAttention\n");
    if (job->precision == PRECISION_BF16 && job->plan->gradient_reduction == GRADIENTS_BF16)
        text_append(notes, "gradients of norms and biases are in bf16, too\n");
    else
        export_note_gradients(job, "none of its layers is in bf16", notes);
}

static enum status write_all(const struct export_job *job, struct text *file, struct text *notes,
                             struct error *err)
{
    const struct plan *plan = job->plan;
    struct jout *out = jout_new();

    jout_int(out, "train_batch_size", plan->global_batch);
    jout_int(out, "train_micro_batch_size_per_gpu", plan->micro_batch);
    jout_int(out, "gradient_accumulation_steps", plan->micro_batches);
    write_zero(job, out);
    write_precision(job, out);
    if (plan->gradient_reduction == GRADIENTS_BF16 && job->precision == PRECISION_BF16) {
        jout_string(out, "communication_data_type", "bf16");
        jout_begin_object(out, "data_types");
        jout_string(out, "grad_accum_dtype", "bf16");
        jout_end(out);
    }
    write_checkpoints(job, out);
    if (plan->tensor_parallel > 1) {
        jout_begin_object(out, "tensor_parallel");
        jout_int(out, "autotp_size", plan->tensor_parallel);
        jout_end(out);
    }
    TRY(jout_finish(out, 2, file, err));
    text_append(file, "\n");
    write_notes(job, notes);
    return STATUS_OK;
}

const struct export_ops export_deepspeed = {
    .name = "deepspeed",
    .title = "DeepSpeed",
    .schedules = {[SCHEDULE_1F1B] = true},
    .only_even_stages = true,
    .sequence_parallel = {[false] = true},
    .precisions = {true, true, true},
    .recompute = {[EXPORT_FULL] = true, [EXPORT_SELECTIVE] = true, [EXPORT_KEEP] = true},
    .has_experts = true, /* the script has the model */
    .has_qkv_bias = true,
    .has_encoders = true,
    .part_shard = {[3] = true},
    .optimizer_away = true,
    .framework = FRAMEWORK_DEEPSPEED,
    .balances_stages = true,
    .own_recompute = true,
    .unfused_attention = true,
    .offload = EXPORT_OFFLOAD_CHECKPOINTS,
    .admits_zero = admits_zero,
    .check = check,
    .write = write_all,
};
