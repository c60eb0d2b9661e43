#include "planner/layout_choice.h"

#include "planner/layouts.h"
#include "planner/pins.h"
#include <stdio.h>

static const char *const switch_words[] = {"off", "on"};
static const struct name_list switch_names = {switch_words, 2};

static const struct {
    const char *key;
    const struct name_list *names;
} choices[LAYOUT_CHOICE_COUNT] = {
    [LAYOUT_DATA] = {"data_parallel", NULL},
    [LAYOUT_TENSOR] = {"tensor_parallel", NULL},
    [LAYOUT_PIPELINE] = {"pipeline", NULL},
    [LAYOUT_CONTEXT] = {"context_parallel", NULL},
    [LAYOUT_EXPERT] = {"expert_parallel", NULL},
    [LAYOUT_VIRTUAL_STAGES] = {"virtual_stages", NULL},
    [LAYOUT_SEQUENCE] = {"sequence_parallel", &switch_names},
    [LAYOUT_ZERO] = {"zero_stage", NULL},
    [LAYOUT_SHARD] = {"shard", NULL},
    [LAYOUT_MICRO_BATCH] = {"micro_batch", NULL},
    [LAYOUT_MICRO_BATCHES] = {"micro_batches", NULL},
    [LAYOUT_RECOMPUTE] = {"recompute", &recompute_names},
    [LAYOUT_SCHEDULE] = {"schedule", &schedule_names},
    [LAYOUT_OFFLOAD] = {"offload", &offload_names},
    [LAYOUT_ATTENTION] = {"fused_attention", &switch_names},
    [LAYOUT_OVERLAP] = {"overlap", &switch_names},
    [LAYOUT_ARITHMETIC] = {"arithmetic", &arithmetic_names},
};

int64_t layout_choice_value(const struct layout *layout, enum layout_choice choice)
{
    const int64_t values[LAYOUT_CHOICE_COUNT] = {
        [LAYOUT_DATA] = layout->data,
        [LAYOUT_TENSOR] = layout->tensor,
        [LAYOUT_PIPELINE] = layout->pipeline,
        [LAYOUT_CONTEXT] = layout->context,
        [LAYOUT_EXPERT] = layout->expert,
        [LAYOUT_VIRTUAL_STAGES] = layout->virtual_stages,
        [LAYOUT_SEQUENCE] = layout->sequence_parallel,
        [LAYOUT_ZERO] = layout->zero_stage,
        [LAYOUT_SHARD] = layout->shard,
        [LAYOUT_MICRO_BATCH] = layout->micro_batch,
        [LAYOUT_MICRO_BATCHES] = layout_micro_batches(layout),
        [LAYOUT_RECOMPUTE] = layout->recompute,
        [LAYOUT_SCHEDULE] = layout->schedule,
        [LAYOUT_OFFLOAD] = (layout->offload_activations ? OFFLOAD_ACTIVATIONS : 0) |
                           (layout->offload_optimizer ? OFFLOAD_OPTIMIZER : 0),
        [LAYOUT_ATTENTION] = layout->fused_attention,
        [LAYOUT_OVERLAP] =
            layout->overlap_gradients || layout->overlap_parameters || layout->overlap_tensor,
        [LAYOUT_ARITHMETIC] = layout->arithmetic,
    };
    return values[choice];
}

bool layout_choice_is_plain(const struct layout *layout, enum layout_choice choice)
{
    switch (choice) {
    case LAYOUT_EXPERT:
        return layout->expert <= 1;
    case LAYOUT_SHARD:
        return layout->zero_stage == 0 || layout->shard == layout->data * layout->context;
    case LAYOUT_SCHEDULE:
        return layout->schedule ==
               (layout->virtual_stages > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B);
    case LAYOUT_OFFLOAD:
        return !layout->offload_activations && !layout->offload_optimizer;
    case LAYOUT_ATTENTION:
    case LAYOUT_OVERLAP:
        return layout_choice_value(layout, choice) != 0;
    case LAYOUT_ARITHMETIC: /* of all layouts as long as nobody named several */
        return true;
    default:
        return false;
    }
}

const char *layout_choice_key(enum layout_choice choice)
{
    return choices[choice].key;
}

const struct name_list *layout_choice_names(enum layout_choice choice)
{
    return choices[choice].names;
}

bool layout_choice_is_switch(enum layout_choice choice)
{
    return choices[choice].names == &switch_names;
}

const char *layout_choice_text(enum layout_choice choice, int64_t value,
                               char out[LAYOUT_CHOICE_BYTES])
{
    if (choices[choice].names)
        return name_of(choices[choice].names, (size_t)value);
    (void)snprintf(out, LAYOUT_CHOICE_BYTES, "%lld", (long long)value);
    return out;
}
