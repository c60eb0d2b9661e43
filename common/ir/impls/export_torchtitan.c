/* torchtitan: job config (TOML). Names: torchtitan/config/job_config.py, see docs/export.md. A
 * model's sizes are no options there: they are a flavor that the program has or has to be given. */
#include "ir/export_ops.h"
#include "ir/mesh.h"

/* FSDP2 that gathers parameters once a step is ZeRO 2, once a pass ZeRO 3; DDP goes alone. */
static bool admits_zero(const struct plan *plan, int zero_stage)
{
    return zero_stage >= 2 ||
           (zero_stage == 0 && plan->pipeline == 1 && plan->tensor_parallel == 1);
}

/* What torchtitan's llama3 is; anything else would train another model. */
static enum status check(const struct plan *plan, struct error *err)
{
    const struct model *model = &plan->model;

    if (model->family != MODEL_LLAMA)
        return error_set(err, STATUS_UNSUPPORTED,
                         "torchtitan has no model of the family %s (learned positions, LayerNorm): "
                         "it takes llama models",
                         model_family_name(model->family));
    if (model->tied_head)
        return error_set(err, STATUS_UNSUPPORTED,
                         "torchtitan's llama3 has an output matrix of its own, this model's is the "
                         "token embedding (tied_head)");
    if (model->heads * model->head_dim != model->hidden)
        return error_set(err, STATUS_UNSUPPORTED,
                         "torchtitan's heads are hidden / heads = %g wide, this model's head_dim "
                         "is %lld",
                         (double)model->hidden / (double)model->heads, (long long)model->head_dim);
    return STATUS_OK;
}

/* The flavors of torchtitan/models/llama3/__init__.py; their vocabulary is the tokenizer's. */
static const char *known_flavor(const struct model *model)
{
    static const struct {
        const char *name;
        int64_t blocks, hidden, heads, kv_heads, ffn;
    } flavors[] = {
        {"8B", 32, 4096, 32, 8, 14336},
        {"70B", 80, 8192, 64, 8, 28672},
        {"405B", 126, 16384, 128, 8, 53248},
    };
    for (size_t i = 0; i < sizeof(flavors) / sizeof(flavors[0]); i++) {
        if (flavors[i].blocks == model->blocks && flavors[i].hidden == model->hidden &&
            flavors[i].heads == model->heads && flavors[i].kv_heads == model->kv_heads &&
            flavors[i].ffn == model->ffn && model->rope_theta == 5e5)
            return flavors[i].name;
    }
    return NULL;
}

/* A string of TOML: quotes, backslashes and what is not printable stay out of the name. */
static void append_name(const char *name, struct text *file)
{
    for (; *name != '\0'; name++) {
        bool is_plain = *name >= ' ' && *name <= '~' && *name != '"' && *name != '\\';
        text_append_bytes(file, is_plain ? name : "-", 1);
    }
}

static void write_model(const struct export_job *job, struct text *file, struct text *notes)
{
    const struct model *model = &job->plan->model;
    const char *flavor = known_flavor(model);

    text_printf(file,
                "# llama3: dim=%lld n_layers=%lld n_heads=%lld n_kv_heads=%lld ffn=%lld "
                "vocab_size=%lld norm_eps=%.10g rope_theta=%.10g\n[model]\nname = \"llama3\"\n"
                "flavor = \"",
                (long long)model->hidden, (long long)model->blocks, (long long)model->heads,
                (long long)model->kv_heads, (long long)model->ffn, (long long)model->vocab,
                model->norm_epsilon, model->rope_theta);
    append_name(flavor != NULL ? flavor : model->name, file);
    text_printf(file, "\"\n%s\n", job->fp8 ? "converters = [\"float8\"]\n" : "");
    if (flavor == NULL)
        text_append(notes,
                    "torchtitan has no flavor of these sizes: give its llama3 one named as in the "
                    "file, with the sizes of the file's first line\n");
}

static void write_training(const struct export_job *job, struct text *file)
{
    const struct plan *plan = job->plan;
    /* a pipeline cuts the local batch into micro-batches, else it is accumulated */
    int64_t local = plan->micro_batch * (plan->pipeline > 1 ? plan->micro_batches : 1);

    text_printf(file, "[training]\nlocal_batch_size = %lld\nglobal_batch_size = %lld\n",
                (long long)local, (long long)plan->global_batch);
    text_printf(file, "seq_len = %lld\n", (long long)plan->model.seq_length);
    if (job->optimizer_away)
        text_append(file, "enable_cpu_offload = true\n");
    text_printf(file, "mixed_precision_param = \"%s\"\nmixed_precision_reduce = \"float32\"\n\n",
                job->precision == PRECISION_BF16 ? "bfloat16" : "float32");
}

static void write_stage(const struct plan *plan, int stage, struct text *file)
{
    size_t first, end;
    const char *comma = "";

    mesh_chunk_layers(plan, stage % plan->pipeline, stage / plan->pipeline, &first, &end);
    text_append(file, "  [");
    for (size_t i = first; i < end; i++) {
        struct layer layer = model_layer(&plan->model, i);
        if (layer.kind == LAYER_EMBEDDING)
            text_printf(file, "%s\"tok_embeddings\"", comma);
        else if (layer.kind == LAYER_ATTENTION)
            text_printf(file, "%s\"layers.%lld\"", comma, (long long)layer.block);
        else if (layer.kind == LAYER_HEAD)
            text_printf(file, "%s\"norm\", \"output\"", comma);
        comma = ", ";
    }
    text_append(file, "],\n");
}

static void write_pipeline(const struct plan *plan, struct text *file)
{
    static const char *const schedules[SCHEDULE_COUNT] = {
        [SCHEDULE_GPIPE] = "GPipe",
        [SCHEDULE_1F1B] = "1F1B",
        [SCHEDULE_INTERLEAVED] = "Interleaved1F1B",
    };
    text_printf(file, "pipeline_parallel_degree = %d\n", plan->pipeline);
    if (plan->pipeline == 1)
        return;
    text_printf(file, "pipeline_parallel_schedule = \"%s\"\n", schedules[plan->schedule]);
    text_printf(file, "pipeline_parallel_microbatch_size = %lld\n", (long long)plan->micro_batch);
    text_append(file, "module_fqns_per_model_part = [\n");
    for (int stage = 0; stage < plan->pipeline * plan->virtual_stages; stage++)
        write_stage(plan, stage, file);
    text_append(file, "]\n");
}

static void write_parallelism(const struct export_job *job, struct text *file)
{
    const struct plan *plan = job->plan;
    bool shards = job->zero_stage >= 2;
    int64_t data = plan->data_parallel / job->context;
    int64_t part = shards ? job->shard / job->context : 1;

    text_printf(file, "[parallelism]\ndata_parallel_replicate_degree = %lld\n",
                (long long)(data / part));
    text_printf(file, "data_parallel_shard_degree = %lld\n", (long long)part);
    if (shards)
        text_printf(file, "fsdp_reshard_after_forward = \"%s\"\n",
                    job->zero_stage == 3 ? "always" : "never");
    text_printf(file, "tensor_parallel_degree = %d\n", plan->tensor_parallel);
    if (job->context > 1)
        text_printf(file, "context_parallel_degree = %lld\n", (long long)job->context);
    write_pipeline(plan, file);
}

static void write_recompute(const struct export_job *job, struct text *file)
{
    text_append(file, "\n[activation_checkpoint]\n");
    if (job->recompute == EXPORT_FULL)
        text_append(file, "mode = \"full\"\n");
    else if (job->recompute == EXPORT_SELECTIVE && job->layout != NULL)
        text_append(file, "mode = \"selective\"\nselective_ac_option = \"op\"\n");
    else if (job->recompute == EXPORT_FULL_EVERY)
        text_printf(file, "mode = \"selective\"\nselective_ac_option = \"%lld\"\n",
                    (long long)job->recompute_count);
    else
        text_append(file, "mode = \"none\"\n");
}

/* Names of modules that stay in bf16; one is left out whose name has any of them in it. */
static void write_fp8(const struct export_job *job, struct text *file)
{
    const struct own_blocks *blocks = job->layout->blocks;

    text_append(file, "\n[float8]\nrecipe_name = \"tensorwise\"\n"
                      "enable_fsdp_float8_all_gather = false\nfilter_fqns = [\"output\"");
    for (int64_t block = 0; block < blocks->blocks; block++)
        if (blocks->modes[export_planned_block(job, block)].arithmetic != ARITHMETIC_FP8)
            text_printf(file, ", \"layers.%lld.\"", (long long)block);
    text_append(file, "]\n");
}

/* Without data parallelism to wrap them in, its shared or staged layers stay in fp32. */
static enum status check_precision(const struct export_job *job, struct error *err)
{
    const struct plan *plan = job->plan;

    if (job->precision == PRECISION_FP32 || plan->data_parallel > 1 ||
        (plan->tensor_parallel == 1 && plan->pipeline == 1))
        return STATUS_OK;
    return error_set(err, STATUS_UNSUPPORTED,
                     "torchtitan computes tensor- and pipeline-parallel layers in %s only under "
                     "data parallelism: plan with --pin dp=2 or more, or --pin precision=fp32",
                     precision_name(job->precision));
}

static enum status write_all(const struct export_job *job, struct text *file, struct text *notes,
                             struct error *err)
{
    TRY(check_precision(job, err));
    write_model(job, file, notes);
    write_training(job, file);
    write_parallelism(job, file);
    write_recompute(job, file);
    if (job->fp8)
        write_fp8(job, file);
    text_printf(notes,
                "start it on %d devices; data, tokenizer, learning rate and checkpoints are yours "
                "to add\n",
                job->plan->ranks);
    export_note_gradients(job, "mixed_precision_reduce has float32 alone", notes);
    if (job->serial)
        text_append(notes, "it hides communication behind compute, which the plan does not: a step "
                           "may be shorter than predicted\n");
    return STATUS_OK;
}

/* Its attention (scaled_dot_product_attention) keeps no probabilities: what temper calls selective
 * is its "none". */
const struct export_ops export_torchtitan = {
    .name = "torchtitan",
    .title = "torchtitan",
    .schedules = {true, true, true},
    .sequence_parallel = {[true] = true},
    .precisions = {[PRECISION_FP32] = true, [PRECISION_BF16] = true},
    .recompute = {[EXPORT_FULL] = true, [EXPORT_FULL_EVERY] = true, [EXPORT_SELECTIVE] = true},
    .context_parallel = true,
    .framework = FRAMEWORK_FSDP,
    .fp8 = EXPORT_FP8_ANY,
    .shards_sequences = true,
    .part_shard = {[2] = true, [3] = true},
    .optimizer_away = true,
    .admits_zero = admits_zero,
    .check = check,
    .write = write_all,
};
