#include "ir/plan_only.h"

static const char *const names[PLAN_ONLY_COUNT] = {
    [PLAN_ONLY_CONTEXT] = "context_parallel", [PLAN_ONLY_EXPERT] = "expert_parallel",
    [PLAN_ONLY_SCHEDULE] = "schedule",        [PLAN_ONLY_OFFLOAD] = "offload",
    [PLAN_ONLY_ARITHMETIC] = "arithmetic",    [PLAN_ONLY_SHARD] = "shard",
};
const struct name_list plan_only_names = {names, PLAN_ONLY_COUNT};

bool arithmetic_is_plan_only(enum arithmetic arithmetic)
{
    return arithmetic == ARITHMETIC_TF32 || arithmetic == ARITHMETIC_FP8;
}

static unsigned bit(bool is_chosen, enum plan_only choice)
{
    return is_chosen ? 1U << choice : 0;
}

static unsigned of_blocks(const struct block_plan *own, int64_t blocks)
{
    unsigned choices = 0;
    for (int64_t i = 0; i < blocks; i++) {
        const struct block_mode *mode = &own->modes[i];
        choices |= bit(mode->offload, PLAN_ONLY_OFFLOAD);
        choices |= bit(arithmetic_is_plan_only(mode->arithmetic), PLAN_ONLY_ARITHMETIC);
    }
    return choices;
}

unsigned plan_only_choices(const struct layout *layout, const struct model *model)
{
    bool offloads = layout->offload_activations || layout->offload_optimizer;
    bool is_hybrid = layout->zero_stage > 0 && layout->shard != layout->data * layout->context;
    unsigned choices = bit(layout->context > 1, PLAN_ONLY_CONTEXT) |
                       bit(layout->expert > 1, PLAN_ONLY_EXPERT) |
                       bit(layout->schedule >= SCHEDULE_RUN_COUNT, PLAN_ONLY_SCHEDULE) |
                       bit(offloads, PLAN_ONLY_OFFLOAD) |
                       bit(arithmetic_is_plan_only(layout->arithmetic), PLAN_ONLY_ARITHMETIC) |
                       bit(is_hybrid, PLAN_ONLY_SHARD);
    return layout->own != NULL ? choices | of_blocks(layout->own, model->blocks) : choices;
}
