#include "ir/layout.h"

#include "ir/names.h"
#include <limits.h>

static const char *const frameworks[FRAMEWORK_COUNT] = {
    [FRAMEWORK_MEGATRON] = "megatron",
    [FRAMEWORK_DEEPSPEED] = "deepspeed",
    [FRAMEWORK_FSDP] = "fsdp",
};
const struct name_list framework_names = {frameworks, FRAMEWORK_COUNT};

/* The ZeRO stages that a framework has. */
static const struct {
    int least, most;
} zero_stages[FRAMEWORK_COUNT] = {
    [FRAMEWORK_MEGATRON] = {0, 1},
    [FRAMEWORK_DEEPSPEED] = {0, 3},
    [FRAMEWORK_FSDP] = {2, 3},
};

/* DeepSpeed's pipeline engine and NVIDIA's Megatron-LM have no other; zb-h1 is in a fork of the
 * latter. */
static const bool schedules[FRAMEWORK_COUNT][SCHEDULE_COUNT] = {
    [FRAMEWORK_MEGATRON] =
        {[SCHEDULE_1F1B] = true, [SCHEDULE_INTERLEAVED] = true, [SCHEDULE_ZB_H1] = true},
    [FRAMEWORK_DEEPSPEED] = {[SCHEDULE_1F1B] = true},
    [FRAMEWORK_FSDP] = {[SCHEDULE_GPIPE] = true,
                        [SCHEDULE_1F1B] = true,
                        [SCHEDULE_INTERLEAVED] = true,
                        [SCHEDULE_ZB_H1] = true},
};

bool framework_has_schedule(enum framework framework, enum schedule schedule)
{
    return schedules[framework][schedule];
}

/* Megatron: --num-distributed-optimizer-instances; DeepSpeed: mics_shard_size, of stage 3; FSDP: a
 * mesh of two dimensions. */
bool framework_has_part_shard(enum framework framework, int zero_stage)
{
    return framework == FRAMEWORK_DEEPSPEED ? zero_stage == 3 : zero_stage > 0;
}

/* Megatron: cpu_offloading of TransformerEngine's layers, without pipeline and recomputation;
 * DeepSpeed: cpu_checkpointing, which moves checkpoints; PyTorch's hooks on what is saved take
 * anything. */
bool layout_admits_activations_away(const struct layout *layout, enum recompute recompute)
{
    if (layout->schedule == SCHEDULE_ZB_H1)
        return false; /* late gradients of weights read activations on the device */
    switch (layout->framework) {
    case FRAMEWORK_MEGATRON:
        return layout->pipeline == 1 && recompute == RECOMPUTE_NONE;
    case FRAMEWORK_DEEPSPEED:
        return recompute == RECOMPUTE_FULL;
    default:
        return true;
    }
}

/* Megatron: --optimizer-cpu-offload, a distributed optimizer's; DeepSpeed: offload_optimizer, not
 * of the BF16_Optimizer that stage 1 has in bf16; FSDP: CPUOffloadPolicy. */
bool layout_admits_optimizer_away(const struct layout *layout)
{
    if (layout->framework == FRAMEWORK_DEEPSPEED && layout->arithmetic == ARITHMETIC_BF16)
        return layout->zero_stage >= 2;
    return layout->zero_stage >= 1;
}

bool layout_admits_unfused(const struct layout *layout)
{
    return layout->context == 1;
}

const char *framework_name(enum framework framework)
{
    return name_of(&framework_names, framework);
}

bool framework_parse(const char *name, enum framework *out)
{
    unsigned value;
    if (!name_parse(&framework_names, name, &value))
        return false;
    *out = (enum framework)value;
    return true;
}

int64_t layout_micro_batches(const struct layout *layout)
{
    return layout->global_batch / (layout->micro_batch * layout->data);
}

static bool is_32_bit(enum arithmetic arithmetic)
{
    return arithmetic == ARITHMETIC_FP32 || arithmetic == ARITHMETIC_TF32;
}

bool layout_admits_arithmetic(const struct layout *layout, enum arithmetic arithmetic)
{
    enum arithmetic own = layout->arithmetic;
    if (arithmetic == own)
        return true;
    if (arithmetic == ARITHMETIC_FP8)
        return own == ARITHMETIC_BF16 || own == ARITHMETIC_FP16;
    return is_32_bit(arithmetic) && is_32_bit(own);
}

struct block_mode layout_block_mode(const struct layout *layout, int64_t block)
{
    if (layout->own)
        return layout->own->modes[block];
    return (struct block_mode){layout->recompute, layout->arithmetic, layout->offload_activations};
}

int64_t layout_stage_blocks(const struct layout *layout, const struct model *model, int64_t stage)
{
    int64_t blocks = model->blocks, p = layout->pipeline;
    if (layout->own)
        return layout->own->stage_blocks[stage];
    if (p > 1 && blocks % p != 0 && (blocks + 2) % p == 0 && (blocks + 2) / p > 1) {
        bool is_end = stage == 0 || stage == p - 1;
        return (blocks + 2) / p - (is_end ? 1 : 0);
    }
    return blocks / p + (stage < blocks % p ? 1 : 0);
}

/* ---- checks: each returns with a message that does not yet say where ---- */

static enum status check_choices(const struct layout *layout, struct error *err)
{
    if ((unsigned)layout->framework >= FRAMEWORK_COUNT)
        return error_set(err, STATUS_INVALID, "%u is not a framework", (unsigned)layout->framework);
    if ((unsigned)layout->schedule >= SCHEDULE_COUNT)
        return error_set(err, STATUS_INVALID, "%u is not a schedule", (unsigned)layout->schedule);
    if ((unsigned)layout->recompute >= RECOMPUTE_COUNT)
        return error_set(err, STATUS_INVALID, "%u is not a recompute mode",
                         (unsigned)layout->recompute);
    if ((unsigned)layout->arithmetic >= ARITHMETIC_COUNT)
        return error_set(err, STATUS_INVALID, "%u is not an arithmetic",
                         (unsigned)layout->arithmetic);
    return STATUS_OK;
}

static enum status check_sizes(const struct layout *layout, struct error *err)
{
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {
        {"devices", layout->devices},
        {"pipeline", layout->pipeline},
        {"virtual_stages", layout->virtual_stages},
        {"data", layout->data},
        {"tensor", layout->tensor},
        {"context", layout->context},
        {"expert", layout->expert},
        {"shard", layout->shard},
        {"micro_batch", layout->micro_batch},
        {"global_batch", layout->global_batch},
    };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (sizes[i].value < 1 || sizes[i].value > INT_MAX)
            return error_set(err, STATUS_INVALID, "%s must be from 1 to %d, is %lld", sizes[i].name,
                             INT_MAX, (long long)sizes[i].value);
    }
    return STATUS_OK;
}

static enum status check_degrees(const struct layout *layout, struct error *err)
{
    int64_t rest = layout->devices;
    const int64_t degrees[] = {layout->pipeline, layout->data, layout->tensor, layout->context};
    for (size_t i = 0; i < sizeof(degrees) / sizeof(degrees[0]) && rest > 0; i++)
        rest = rest % degrees[i] == 0 ? rest / degrees[i] : 0;
    if (rest != 1)
        return error_set(err, STATUS_INVALID,
                         "pipeline %lld, data %lld, tensor %lld and context %lld do not multiply "
                         "to %lld devices",
                         (long long)layout->pipeline, (long long)layout->data,
                         (long long)layout->tensor, (long long)layout->context,
                         (long long)layout->devices);
    if (layout->sequence_parallel && layout->tensor == 1)
        return error_set(err, STATUS_INVALID, "sequence_parallel needs a tensor of 2 or more");
    return STATUS_OK;
}

bool framework_has_zero_stage(enum framework framework, int stage)
{
    return stage >= zero_stages[framework].least && stage <= zero_stages[framework].most;
}

static enum status check_zero(const struct layout *layout, struct error *err)
{
    int least = zero_stages[layout->framework].least, most = zero_stages[layout->framework].most;

    if (!framework_has_zero_stage(layout->framework, layout->zero_stage))
        return error_set(err, STATUS_INVALID, "zero_stage of %s must be from %d to %d, is %d",
                         framework_name(layout->framework), least, most, layout->zero_stage);
    if (layout->zero_stage == 0 && layout->shard != 1)
        return error_set(err, STATUS_INVALID, "shard must be 1 without ZeRO, is %lld",
                         (long long)layout->shard);
    if (layout->data * layout->context % layout->shard != 0)
        return error_set(
            err, STATUS_INVALID, "shard %lld does not divide data %lld times context %lld",
            (long long)layout->shard, (long long)layout->data, (long long)layout->context);
    return STATUS_OK;
}

static enum status check_batches(const struct layout *layout, struct error *err)
{
    int64_t together = layout->micro_batch * layout->data;

    if (layout->global_batch % together != 0)
        return error_set(err, STATUS_INVALID,
                         "global_batch %lld is no multiple of micro_batch %lld times data %lld",
                         (long long)layout->global_batch, (long long)layout->micro_batch,
                         (long long)layout->data);
    struct schedule_shape shape = {
        .kind = layout->schedule,
        .stages = (int)layout->pipeline,
        .chunks = (int)layout->virtual_stages,
        .micro_batches = layout_micro_batches(layout),
    };
    return schedule_check(&shape, err);
}

/* As Megatron-Core asks: experts of the data- and context-parallel devices, tokens divided where
 * weights are. Its replicas of an expert are fewer than those of other weights, and share them out
 * in as many parts as those do. */
static enum status check_experts(const struct layout *layout, const struct model *model,
                                 struct error *err)
{
    long long expert = layout->expert, replicas = layout->data * layout->context;

    if (model->experts == 0 && expert != 1)
        return error_set(err, STATUS_UNSUPPORTED,
                         "expert is %lld, but the model has no experts: must be 1", expert);
    if (model->experts == 0)
        return STATUS_OK;
    if (expert > 1 && layout->framework != FRAMEWORK_MEGATRON)
        return error_set(err, STATUS_UNSUPPORTED,
                         "expert is %lld: only framework megatron has expert parallelism here, %s "
                         "must have 1",
                         expert, framework_name(layout->framework));
    if (model->experts % expert != 0 || replicas % expert != 0)
        return error_set(err, STATUS_INVALID,
                         "expert %lld does not divide the model's %lld experts and data %lld times "
                         "context %lld",
                         expert, (long long)model->experts, (long long)layout->data,
                         (long long)layout->context);
    if (layout->zero_stage > 0 && layout->shard % expert != 0)
        return error_set(err, STATUS_INVALID,
                         "shard %lld is no multiple of expert %lld: an expert has as many replicas "
                         "as data times context divided by it",
                         (long long)layout->shard, expert);
    if (model->expert_ffn % layout->tensor != 0 || model->shared_ffn % layout->tensor != 0)
        return error_set(err, STATUS_INVALID,
                         "tensor %lld does not divide an expert's %lld columns and the shared "
                         "one's %lld",
                         (long long)layout->tensor, (long long)model->expert_ffn,
                         (long long)model->shared_ffn);
    if (layout->tensor > 1 && !layout->sequence_parallel)
        return error_set(err, STATUS_INVALID,
                         "experts under tensor %lld need sequence_parallel: without it each device "
                         "would send its group's tokens again",
                         (long long)layout->tensor);
    return STATUS_OK;
}

/* A context-parallel rank has two pieces of the sequence, one early and one late, so that causal
 * attention is the same work for all. */
static enum status check_tokens(const struct layout *layout, const struct model *model,
                                struct error *err)
{
    int64_t pieces = layout->context > 1 ? 2 * layout->context : 1;

    if (model->seq_length % pieces != 0)
        return error_set(err, STATUS_INVALID,
                         "context %lld cuts the sequence into %lld pieces, which do not divide its "
                         "%lld tokens",
                         (long long)layout->context, (long long)pieces,
                         (long long)model->seq_length);
    if (layout->sequence_parallel && model->seq_length / layout->context % layout->tensor != 0)
        return error_set(err, STATUS_INVALID,
                         "sequence_parallel: tensor %lld does not divide a rank's %lld tokens",
                         (long long)layout->tensor,
                         (long long)(model->seq_length / layout->context));
    return STATUS_OK;
}

static enum status check_model(const struct layout *layout, const struct model *model,
                               struct error *err)
{
    static const enum layer_kind kinds[] = {LAYER_ATTENTION, LAYER_MLP, LAYER_HEAD};

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct layer_part part = {
            .kind = kinds[i],
            .ways = (int)layout->tensor,
            .sequence_parallel = layout->sequence_parallel,
        };
        TRY(layer_part_check(model, &part, err));
    }
    if (layout->pipeline * layout->virtual_stages > model->blocks)
        return error_set(err, STATUS_INVALID,
                         "pipeline %lld with %lld virtual_stages is more than the model's %lld "
                         "blocks",
                         (long long)layout->pipeline, (long long)layout->virtual_stages,
                         (long long)model->blocks);
    if (layout->pipeline > LAYOUT_STAGES_MAX)
        return error_set(err, STATUS_UNSUPPORTED, "pipeline must be at most %d, is %lld",
                         LAYOUT_STAGES_MAX, (long long)layout->pipeline);
    TRY(check_experts(layout, model, err));
    return check_tokens(layout, model, err);
}

static enum status check_offload(const struct layout *layout, enum recompute recompute,
                                 struct error *err)
{
    static const char *const rules[FRAMEWORK_COUNT] = {
        [FRAMEWORK_MEGATRON] = "of pipeline 1 without recompute",
        [FRAMEWORK_DEEPSPEED] = "with recompute full",
        [FRAMEWORK_FSDP] = "under another schedule than zb-h1",
    };
    if (layout_admits_activations_away(layout, recompute))
        return STATUS_OK;
    return error_set(err, STATUS_INVALID,
                     "offload_activations: %s offloads what blocks keep only %s",
                     framework_name(layout->framework), rules[layout->framework]);
}

static enum status check_mode(const struct layout *layout, const struct block_mode *mode,
                              int64_t block, struct error *err)
{

    if ((unsigned)mode->recompute >= RECOMPUTE_COUNT)
        return error_set(err, STATUS_INVALID, "block %lld: %u is not a recompute mode",
                         (long long)block, (unsigned)mode->recompute);
    if (!layout_admits_arithmetic(layout, mode->arithmetic))
        return error_set(err, STATUS_INVALID,
                         "block %lld: its arithmetic must be the layout's, fp8 in a layout of "
                         "bf16 or fp16, or fp32 or tf32 in one of the other",
                         (long long)block);
    if (mode->offload && check_offload(layout, mode->recompute, err) != STATUS_OK)
        return error_prefix(err, "block %lld", (long long)block);
    return STATUS_OK;
}

/* Chunks of a stage are alike, so interleaved stages must be. */
static enum status check_own(const struct layout *layout, const struct model *model,
                             struct error *err)
{
    int64_t sum = 0;

    if (!layout->own)
        return STATUS_OK;
    for (int64_t block = 0; block < model->blocks; block++)
        TRY(check_mode(layout, &layout->own->modes[block], block, err));
    for (int64_t stage = 0; stage < layout->pipeline; stage++) {
        int64_t blocks = layout->own->stage_blocks[stage];
        if (blocks < 1 || blocks % layout->virtual_stages != 0)
            return error_set(err, STATUS_INVALID,
                             "stage %lld: its %lld blocks must be a positive multiple of the %lld "
                             "virtual_stages",
                             (long long)stage, (long long)blocks,
                             (long long)layout->virtual_stages);
        sum += blocks;
    }
    if (sum != model->blocks)
        return error_set(err, STATUS_INVALID, "the stages have %lld blocks, the model %lld",
                         (long long)sum, (long long)model->blocks);
    return STATUS_OK;
}

static enum status check_all(const struct layout *layout, const struct model *model,
                             struct error *err)
{
    TRY(check_choices(layout, err));
    TRY(check_sizes(layout, err));
    TRY(check_degrees(layout, err));
    TRY(check_zero(layout, err));
    TRY(check_batches(layout, err));
    TRY(check_model(layout, model, err));
    if (layout->offload_optimizer && !layout_admits_optimizer_away(layout))
        return error_set(err, STATUS_INVALID,
                         "offload_optimizer of %s needs a zero_stage of 1 or more, 2 or more of "
                         "deepspeed in bf16",
                         framework_name(layout->framework));
    if (layout->offload_activations && !layout->own)
        TRY(check_offload(layout, layout->recompute, err));
    return check_own(layout, model, err);
}

enum status layout_check(const struct layout *layout, const struct model *model, const char *where,
                         struct error *err)
{
    if (check_all(layout, model, err) != STATUS_OK)
        return error_prefix(err, "%s", where);
    return STATUS_OK;
}
