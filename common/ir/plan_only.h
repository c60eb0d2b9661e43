/* What a layout chooses that can be planned but not yet run: `temper run` has no code for it. */
#ifndef TEMPER_IR_PLAN_ONLY_H
#define TEMPER_IR_PLAN_ONLY_H

#include "ir/layout.h"
#include "ir/names.h"

/* In the order of plan_only_names. */
enum plan_only {
    PLAN_ONLY_CONTEXT,    /* a sequence over several devices */
    PLAN_ONLY_EXPERT,     /* experts over several devices */
    PLAN_ONLY_SCHEDULE,   /* other than gpipe, 1f1b and interleaved */
    PLAN_ONLY_OFFLOAD,    /* activations or optimizer on the host */
    PLAN_ONLY_ARITHMETIC, /* tf32, fp8 */
    PLAN_ONLY_SHARD,      /* ZeRO's state over some of the replicas */
    PLAN_ONLY_COUNT
};

/* "context_parallel", "expert_parallel", "schedule", "offload", "arithmetic", "shard" */
extern const struct name_list plan_only_names;

enum { PLAN_ONLY_ALL = (1 << PLAN_ONLY_COUNT) - 1 };

/* Bit 1 << choice of each; 0: `temper run` could execute it. Of the model, ask
 * model_check_executable. */
unsigned plan_only_choices(const struct layout *layout, const struct model *model);
bool arithmetic_is_plan_only(enum arithmetic arithmetic);

#endif
