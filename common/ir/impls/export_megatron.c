/* Megatron-LM: arguments of pretrain_gpt.py, one option a line. Names and their conditions:
 * megatron/training/arguments.py, see docs/export.md. */
#include "ir/export_ops.h"
#include <math.h>

/* Its distributed optimizer is ZeRO 1; 2 and 3 are Megatron-FSDP's, which knows no pipeline. */
static bool admits_zero(const struct plan *plan, int zero_stage)
{
    return zero_stage <= 1 || plan->pipeline == 1;
}

static enum status check(const struct plan *plan, struct error *err)
{
    const struct model *model = &plan->model;

    if (model->family == MODEL_LLAMA && model->rope_theta != floor(model->rope_theta))
        return error_set(err, STATUS_UNSUPPORTED,
                         "Megatron-LM's --rotary-base is an integer, the model's rope_theta is %g",
                         model->rope_theta);
    if (model->shared_ffn > 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "Megatron-LM's shared expert has no gate, the model's (%s) has one",
                         model_type_name(model));
    return STATUS_OK;
}

/* A block with experts ends each run of moe_every; Megatron's own numbers let it begin one. */
static void write_expert_blocks(const struct model *model, struct text *file)
{
    long long every = model->moe_every, runs = model_expert_blocks(model);
    long long rest = model->blocks - every * runs;
    if (every == 1)
        return;
    text_printf(file, "--moe-layer-freq ([0]*%lld+[1]*1)*%lld", every - 1, runs);
    if (rest > 0)
        text_printf(file, "+[0]*%lld", rest);
    text_append(file, "\n");
}

static void write_experts(const struct model *model, struct text *file)
{
    text_printf(file, "--num-experts %lld\n--moe-router-topk %lld\n", (long long)model->experts,
                (long long)model->experts_per_token);
    text_printf(file, "--moe-ffn-hidden-size %lld\n", (long long)model->expert_ffn);
    write_expert_blocks(model, file);
    text_append(file, "--moe-token-dispatcher-type alltoall\n--moe-grouped-gemm\n"
                      "--moe-router-load-balancing-type aux_loss\n");
}

static void write_model(const struct model *model, struct text *file)
{
    bool is_llama = model->family == MODEL_LLAMA;

    text_printf(file, "--num-layers %lld\n", (long long)model->blocks);
    text_printf(file, "--hidden-size %lld\n", (long long)model->hidden);
    text_printf(file, "--ffn-hidden-size %lld\n", (long long)model->ffn);
    text_printf(file, "--num-attention-heads %lld\n", (long long)model->heads);
    text_printf(file, "--kv-channels %lld\n", (long long)model->head_dim);
    if (model->kv_heads != model->heads)
        text_printf(file, "--group-query-attention\n--num-query-groups %lld\n",
                    (long long)model->kv_heads);
    text_printf(file, "--seq-length %lld\n", (long long)model->seq_length);
    text_printf(file, "--max-position-embeddings %lld\n", (long long)model->positions);
    text_printf(file, "--vocab-size %lld\n--make-vocab-size-divisible-by 1\n",
                (long long)model->vocab);
    text_printf(file, "--norm-epsilon %.10g\n", model->norm_epsilon);
    text_append(file, is_llama ? "--normalization RMSNorm\n" : "--normalization LayerNorm\n");
    if (is_llama)
        text_printf(file, "--position-embedding-type rope\n--rotary-base %.0f\n",
                    model->rope_theta);
    else
        text_append(file, "--position-embedding-type learned_absolute\n");
    if (is_llama)
        text_append(file, "--swiglu\n--disable-bias-linear\n");
    if (model->qkv_bias)
        text_append(file, "--add-qkv-bias\n");
    if (model->experts > 0)
        write_experts(model, file);
    if (!model->tied_head)
        text_append(file, "--untie-embeddings-and-output-weights\n");
    /* temper has no dropout, Megatron-LM has 0.1 unless told */
    text_append(file, "--attention-dropout 0\n--hidden-dropout 0\n");
}

/* Do all stages but the first and the last have the same number of blocks? Stages without chunks.
 */
static bool write_ends(const struct plan *plan, struct text *file)
{
    int last = plan->pipeline - 1;
    int64_t middle = plan->pipeline > 2 ? export_stage_blocks(plan, 1) : 0;

    for (int stage = 1; stage < last; stage++)
        if (export_stage_blocks(plan, stage) != middle)
            return false;
    text_printf(file, "--decoder-first-pipeline-num-layers %lld\n",
                (long long)export_stage_blocks(plan, 0));
    text_printf(file, "--decoder-last-pipeline-num-layers %lld\n",
                (long long)export_stage_blocks(plan, last));
    return true;
}

/* "Ett|ttt|ttL": a letter a layer, stages apart by bars, chunk by chunk. */
static void write_layout(const struct plan *plan, struct text *file)
{
    int stages = plan->pipeline * plan->virtual_stages;

    text_append(file, "--pipeline-model-parallel-layout E");
    for (int stage = 0; stage < stages; stage++) {
        int64_t blocks = export_stage_blocks(plan, stage);
        if (stage > 0)
            text_append(file, "|");
        for (int64_t block = 0; block < blocks; block++)
            text_append(file, "t");
    }
    text_append(file, "L\n");
}

static void write_stages(const struct export_job *job, struct text *file)
{
    const struct plan *plan = job->plan;
    if (job->even_stages && plan->virtual_stages > 1)
        text_printf(file, "--num-layers-per-virtual-pipeline-stage %lld\n",
                    (long long)export_stage_blocks(plan, 0));
    if (job->even_stages || (plan->virtual_stages == 1 && write_ends(plan, file)))
        return;
    write_layout(plan, file);
}

static void write_split(const struct export_job *job, struct text *file)
{
    const struct plan *plan = job->plan;

    text_printf(file, "--micro-batch-size %lld\n", (long long)plan->micro_batch);
    text_printf(file, "--global-batch-size %lld\n", (long long)plan->global_batch);
    text_printf(file, "--tensor-model-parallel-size %d\n", plan->tensor_parallel);
    text_printf(file, "--pipeline-model-parallel-size %d\n", plan->pipeline);
    if (job->context > 1)
        text_printf(file, "--context-parallel-size %lld\n", (long long)job->context);
    if (job->expert > 1)
        text_printf(file, "--expert-model-parallel-size %lld\n", (long long)job->expert);
    write_stages(job, file);
    if (job->sequence_parallel)
        text_append(file, "--sequence-parallel\n");
}

static void write_data_parallel(const struct export_job *job, struct text *file)
{
    if (job->plan->data_parallel == 1)
        return;
    if (job->zero_stage >= 1)
        text_append(file, "--use-distributed-optimizer\n");
    if (job->shard < job->plan->data_parallel)
        text_printf(file, "--num-distributed-optimizer-instances %lld\n",
                    (long long)(job->plan->data_parallel / job->shard));
    if (job->zero_stage >= 2)
        text_printf(file,
                    "--use-megatron-fsdp\n--data-parallel-sharding-strategy %s\n"
                    "--ckpt-format fsdp_dtensor\n",
                    job->zero_stage == 2 ? "optim_grads" : "optim_grads_params");
    if (!job->serial)
        text_append(file, "--overlap-grad-reduce\n");
    if (!job->serial && job->zero_stage >= 1)
        text_append(file, "--overlap-param-gather\n");
}

/* Never of all layers: the last is needed again at once. */
static void write_offload(const struct export_job *job, struct text *file)
{
    int64_t most = job->plan->model.blocks - 1;
    if (job->offloaded > 0)
        text_printf(file, "--cpu-offloading-num-layers %lld\n",
                    (long long)(job->offloaded < most ? job->offloaded : most));
    if (job->optimizer_away)
        text_append(file, "--optimizer-cpu-offload\n--optimizer-offload-fraction 1.0\n"
                          "--use-precision-aware-optimizer\n--overlap-cpu-optimizer-d2h-h2d\n");
}

/* Scales of the tensor at hand: those of earlier steps ("delayed") do not go with layers in bf16.
 */
static void write_fp8(const struct export_job *job, struct text *file)
{
    text_append(file, "--fp8-format hybrid\n--fp8-recipe tensorwise\n");
    if (job->first_16_bit + job->last_16_bit > 0)
        text_printf(file,
                    "--first-last-layers-bf16\n--num-layers-at-start-in-bf16 %lld\n"
                    "--num-layers-at-end-in-bf16 %lld\n",
                    (long long)job->first_16_bit, (long long)job->last_16_bit);
}

static bool reduces_in_bf16(const struct export_job *job)
{
    if (job->precision != PRECISION_BF16)
        return false;
    if (job->layout != NULL)
        return job->layout->layout.gradients_16_bit;
    return job->plan->gradient_reduction == GRADIENTS_BF16;
}

static void write_compute(const struct export_job *job, struct text *file)
{
    if (job->precision == PRECISION_BF16)
        text_append(file, "--bf16\n");
    if (job->precision == PRECISION_FP16)
        text_append(file, "--fp16\n");
    if (reduces_in_bf16(job))
        text_append(file, "--grad-reduce-in-bf16\n");
    if (job->unfused)
        text_append(file, "--attention-backend unfused\n");
    if (job->fp8)
        write_fp8(job, file);
    switch (job->recompute) {
    case EXPORT_FULL:
        text_append(file, "--recompute-granularity full\n--recompute-method uniform\n"
                          "--recompute-num-layers 1\n");
        break;
    case EXPORT_FULL_FIRST:
        text_printf(file,
                    "--recompute-granularity full\n--recompute-method block\n"
                    "--recompute-num-layers %lld\n",
                    (long long)job->recompute_count);
        break;
    case EXPORT_SELECTIVE_MLP:
        text_append(file, "--recompute-granularity selective\n--recompute-modules core_attn mlp\n");
        break;
    case EXPORT_SELECTIVE:
        text_append(file, "--recompute-granularity selective\n");
        break;
    default:
        break;
    }
}

static enum status write_all(const struct export_job *job, struct text *file, struct text *notes,
                             struct error *err)
{
    const struct plan *plan = job->plan;

    (void)err;
    write_model(&plan->model, file);
    write_split(job, file);
    write_data_parallel(job, file);
    write_offload(job, file);
    write_compute(job, file);
    text_printf(notes,
                "start pretrain_gpt.py on %d devices with these arguments and those of your "
                "data, tokenizer, learning rate and checkpoints\n",
                plan->ranks);
    if (!reduces_in_bf16(job))
        export_note_gradients(job, "--grad-reduce-in-bf16 goes with --bf16 only", notes);
    else if (job->layout == NULL)
        text_append(notes,
                    "--grad-reduce-in-bf16 keeps gradients of norms and biases in bf16, too\n");
    if (plan->model.experts > 0)
        text_append(notes, "routing is predicted as balanced: what keeps it so is yours to set, "
                           "--moe-aux-loss-coeff or --moe-expert-capacity-factor\n");
    if (job->zero_stage >= 2 && plan->data_parallel > 1)
        text_append(notes, "Megatron-FSDP needs CUDA_DEVICE_MAX_CONNECTIONS to be other than 1\n");
    else if (plan->tensor_parallel > 1)
        text_append(notes, "tensor parallelism needs CUDA_DEVICE_MAX_CONNECTIONS=1 in the "
                           "environment on devices before Blackwell\n");
    return STATUS_OK;
}

const struct export_ops export_megatron = {
    .name = "megatron",
    .title = "Megatron-LM",
    .schedules = {[SCHEDULE_1F1B] = true, [SCHEDULE_INTERLEAVED] = true},
    .sequence_parallel = {true, true},
    .precisions = {true, true, true},
    .recompute = {[EXPORT_FULL] = true,
                  [EXPORT_FULL_FIRST] = true,
                  [EXPORT_SELECTIVE_MLP] = true,
                  [EXPORT_SELECTIVE] = true,
                  [EXPORT_KEEP] = true},
    .context_parallel = true,
    .expert_parallel = true,
    .unfused_attention = true,
    .part_shard = {[1] = true},
    .optimizer_away = true,
    .has_experts = true,
    .has_qkv_bias = true,
    .framework = FRAMEWORK_MEGATRON,
    .fp8 = EXPORT_FP8_INNER,
    .offload = EXPORT_OFFLOAD_FIRST,
    .admits_zero = admits_zero,
    .check = check,
    .write = write_all,
};
