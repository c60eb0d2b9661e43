#include "ir/export.h"

#include "ir/export_ops.h"
#include <string.h>

static const struct export_ops *const targets[EXPORT_TARGET_COUNT] = {
    [EXPORT_MEGATRON] = &export_megatron,
    [EXPORT_DEEPSPEED] = &export_deepspeed,
    [EXPORT_TORCHTITAN] = &export_torchtitan,
    [EXPORT_NEMO] = &export_nemo,
};

const struct export_ops *export_ops_of(enum export_target target)
{
    return targets[target];
}

const char *export_target_name(enum export_target target)
{
    return targets[target]->name;
}

bool export_target_parse(const char *name, enum export_target *out)
{
    for (size_t i = 0; i < EXPORT_TARGET_COUNT; i++) {
        if (strcmp(targets[i]->name, name) == 0) {
            *out = (enum export_target)i;
            return true;
        }
    }
    return false;
}

void export_target_names(struct text *out)
{
    for (size_t i = 0; i < EXPORT_TARGET_COUNT; i++)
        text_printf(out, "%s%s", i > 0 ? ", " : "", targets[i]->name);
}

static enum status lacks(const struct export_ops *ops, const struct model *model, const char *what,
                         struct error *err)
{
    return error_set(err, STATUS_UNSUPPORTED,
                     "%s cannot be handed the model: it is of type %s, and temper writes no %s for "
                     "it",
                     ops->title, model_type_name(model), what);
}

enum status export_ops_check(const struct export_ops *ops, const struct plan *plan,
                             struct error *err)
{
    const struct model *model = &plan->model;
    if (model->experts > 0 && !ops->has_experts)
        return lacks(ops, model, "mixture of experts", err);
    if (model->bidirectional && !ops->has_encoders)
        return lacks(ops, model, "encoder", err);
    if (model->qkv_bias && !ops->has_qkv_bias)
        return lacks(ops, model, "biases of q, k and v", err);
    return ops->check(plan, err);
}

void export_note_gradients(const struct export_job *job, const char *why, struct text *notes)
{
    if (job->plan->gradient_reduction == GRADIENTS_BF16)
        text_printf(notes, "gradients are kept and summed in fp32, not in bf16: %s\n", why);
}

enum status export_check(enum export_target target, const struct plan *plan, struct error *err)
{
    return export_ops_check(targets[target], plan, err);
}

/* The targets' selective recomputation is that of the probabilities alone. */
static void note_norms(const struct export_job *job, struct text *notes)
{
    bool is_selective = false;

    for (size_t i = 0; i < job->plan->layer_count; i++)
        is_selective = is_selective || job->plan->layers[i].recompute == RECOMPUTE_SELECTIVE;
    if (is_selective)
        text_append(notes, "what the attention's norm puts out is kept, which the plan makes "
                           "again: a device may need more memory than predicted\n");
}

enum status export_write(enum export_target target, const struct plan *plan, struct text *file,
                         struct text *notes, struct error *err)
{
    struct export_job job;
    TRY(export_ops_check(targets[target], plan, err));
    TRY(export_job_of(targets[target], plan, &job, err));
    TRY(targets[target]->write(&job, file, notes, err));
    note_norms(&job, notes);
    TRY(text_check(file, err));
    return text_check(notes, err);
}
