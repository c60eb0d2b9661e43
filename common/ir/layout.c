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
    if (layout->expert != 1)
        return error_set(err, STATUS_UNSUPPORTED,
                         "expert is %lld, but the model has no experts: must be 1",
                         (long long)layout->expert);
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
    return check_tokens(layout, model, err);
}

static enum status check_all(const struct layout *layout, const struct model *model,
                             struct error *err)
{
    TRY(check_choices(layout, err));
    TRY(check_sizes(layout, err));
    TRY(check_degrees(layout, err));
    TRY(check_zero(layout, err));
    TRY(check_batches(layout, err));
    return check_model(layout, model, err);
}

enum status layout_check(const struct layout *layout, const struct model *model, const char *where,
                         struct error *err)
{
    if (check_all(layout, model, err) != STATUS_OK)
        return error_prefix(err, "%s", where);
    return STATUS_OK;
}
