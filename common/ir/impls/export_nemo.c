/* NeMo 1: Hydra overrides of megatron_gpt_pretraining.py, KEY=VALUE, one a line. Names:
 * examples/nlp/language_modeling/conf/megatron_llama_config.yaml, see docs/export.md. */
#include "ir/export_ops.h"
#include <math.h>

/* Megatron Core's distributed optimizer is ZeRO 1; Apex's shards optimizer state and gradients. */
static bool admits_zero(const struct plan *plan, int zero_stage)
{
    (void)plan;
    return zero_stage <= 2;
}

static enum status check(const struct plan *plan, struct error *err)
{
    const struct model *model = &plan->model;

    if (model->family == MODEL_LLAMA && model->rope_theta != floor(model->rope_theta))
        return error_set(err, STATUS_UNSUPPORTED,
                         "NeMo's model.rotary_base is an integer, the model's rope_theta is %g",
                         model->rope_theta);
    if (model->experts > 0 && (model->shared_ffn > 0 || model->moe_every > 1))
        return error_set(err, STATUS_UNSUPPORTED,
                         "NeMo's experts are in every block and have no shared one beside them, "
                         "the model's (%s) are not so",
                         model_type_name(model));
    return STATUS_OK;
}

static const char *truth(bool value)
{
    return value ? "True" : "False";
}

static void write_model(const struct model *model, struct text *file)
{
    bool is_llama = model->family == MODEL_LLAMA;

    text_printf(file, "model.mcore_gpt=True\nmodel.num_layers=%lld\n", (long long)model->blocks);
    text_printf(file, "model.hidden_size=%lld\n", (long long)model->hidden);
    text_printf(file, "model.ffn_hidden_size=%lld\n",
                (long long)(model->experts > 0 ? model->expert_ffn : model->ffn));
    text_printf(file, "model.num_attention_heads=%lld\n", (long long)model->heads);
    text_printf(file, "model.kv_channels=%lld\n", (long long)model->head_dim);
    if (model->kv_heads != model->heads)
        text_printf(file, "model.num_query_groups=%lld\n", (long long)model->kv_heads);
    text_printf(file, "model.encoder_seq_length=%lld\n", (long long)model->seq_length);
    text_printf(file, "model.max_position_embeddings=%lld\n", (long long)model->positions);
    text_append(file, "model.make_vocab_size_divisible_by=1\n");
    text_printf(file, "model.normalization=%s\n", is_llama ? "rmsnorm" : "layernorm");
    text_printf(file, "model.layernorm_epsilon=%.10g\n", model->norm_epsilon);
    text_printf(file, "model.activation=%s\n", is_llama ? "fast-swiglu" : "gelu");
    text_printf(file, "model.bias=%s\n", truth(!is_llama));
    text_printf(file, "model.position_embedding_type=%s\n", is_llama ? "rope" : "learned_absolute");
    /* a key that the example's file lacks: ++ sets it whether it is there or not */
    if (is_llama)
        text_printf(file, "++model.rotary_base=%.0f\n", model->rope_theta);
    text_printf(file, "model.share_embeddings_and_output_weights=%s\n", truth(model->tied_head));
    text_append(file, "model.hidden_dropout=0\nmodel.attention_dropout=0\nmodel.ffn_dropout=0\n");
}

/* Keys that the example's file lacks; ++ sets one whether it is there or not. */
static void write_experts(const struct export_job *job, struct text *file)
{
    const struct model *model = &job->plan->model;
    text_printf(file, "++model.num_moe_experts=%lld\n++model.moe_router_topk=%lld\n",
                (long long)model->experts, (long long)model->experts_per_token);
    text_printf(file, "++model.expert_model_parallel_size=%lld\n", (long long)job->expert);
}

static void write_split(const struct export_job *job, struct text *file)
{
    static const char *const optimizers[] = {"fused_adam", "mcore_distributed_optim",
                                             "distributed_fused_adam"};
    const struct plan *plan = job->plan;

    text_printf(file, "model.micro_batch_size=%lld\n", (long long)plan->micro_batch);
    text_printf(file, "model.global_batch_size=%lld\n", (long long)plan->global_batch);
    text_printf(file, "model.tensor_model_parallel_size=%d\n", plan->tensor_parallel);
    text_printf(file, "model.pipeline_model_parallel_size=%d\n", plan->pipeline);
    if (plan->virtual_stages > 1)
        text_printf(file, "model.virtual_pipeline_model_parallel_size=%d\n", plan->virtual_stages);
    text_printf(file, "model.sequence_parallel=%s\n", truth(job->sequence_parallel));
    if (job->context > 1)
        text_printf(file, "++model.context_parallel_size=%lld\n", (long long)job->context);
    if (plan->model.experts > 0)
        write_experts(job, file);
    text_printf(file, "model.optim.name=%s\n",
                optimizers[plan->data_parallel > 1 ? job->zero_stage : 0]);
}

static void write_compute(const struct export_job *job, struct text *file)
{
    static const char *const precisions[PRECISION_COUNT] = {
        [PRECISION_FP32] = "32",
        [PRECISION_BF16] = "bf16-mixed",
        [PRECISION_FP16] = "16-mixed",
    };
    text_printf(file, "trainer.precision=%s\n", precisions[job->precision]);
    text_printf(file, "model.megatron_amp_O2=%s\n", truth(job->precision == PRECISION_BF16));
    if (job->fp8)
        text_append(file, "model.transformer_engine=True\nmodel.fp8=True\nmodel.fp8_hybrid=True\n");
    if (job->recompute == EXPORT_FULL)
        text_append(file, "model.activations_checkpoint_granularity=full\n"
                          "model.activations_checkpoint_method=uniform\n"
                          "model.activations_checkpoint_num_layers=1\n");
    else if (job->recompute == EXPORT_FULL_FIRST)
        text_printf(file,
                    "model.activations_checkpoint_granularity=full\n"
                    "model.activations_checkpoint_method=block\n"
                    "model.activations_checkpoint_num_layers=%lld\n",
                    (long long)job->recompute_count);
    else if (job->recompute == EXPORT_SELECTIVE)
        text_append(file, "model.activations_checkpoint_granularity=selective\n");
}

static enum status write_all(const struct export_job *job, struct text *file, struct text *notes,
                             struct error *err)
{
    const struct plan *plan = job->plan;

    (void)err;
    write_model(&plan->model, file);
    write_split(job, file);
    write_compute(job, file);
    text_printf(notes,
                "start megatron_gpt_pretraining.py with these overrides and with trainer.num_nodes "
                "times trainer.devices = %d, your data, tokenizer and learning rate\n",
                plan->ranks);
    export_note_gradients(job, "its bf16-mixed keeps them in fp32", notes);
    if (job->unfused)
        text_append(notes, "attention that is not fused needs NVTE_FLASH_ATTN=0 and "
                           "NVTE_FUSED_ATTN=0 in the environment\n");
    text_printf(notes,
                "the tokenizer sets the size of the vocabulary: the plan is for %lld tokens\n",
                (long long)plan->model.vocab);
    return STATUS_OK;
}

const struct export_ops export_nemo = {
    .name = "nemo",
    .title = "NeMo",
    .schedules = {[SCHEDULE_1F1B] = true, [SCHEDULE_INTERLEAVED] = true},
    .only_even_stages = true,
    .sequence_parallel = {true, true},
    .precisions = {true, true, true},
    .recompute = {[EXPORT_FULL] = true,
                  [EXPORT_FULL_FIRST] = true,
                  [EXPORT_SELECTIVE] = true,
                  [EXPORT_KEEP] = true},
    .context_parallel = true,
    .expert_parallel = true,
    .unfused_attention = true,
    .has_experts = true,
    .framework = FRAMEWORK_MEGATRON,
    .fp8 = EXPORT_FP8_ALL,
    .admits_zero = admits_zero,
    .check = check,
    .write = write_all,
};
