/* What the blocks of a layout do where they are not alike, and which of them each stage has.
 * Megatron-LM says this with --recompute-num-layers, --decoder-first-pipeline-num-layers and
 * --first-last-layers-bf16, in parts; torchtitan with a list of its own. */
#ifndef TEMPER_IR_BLOCK_PLAN_H
#define TEMPER_IR_BLOCK_PLAN_H

#include "ir/cluster.h"
#include "ir/layer.h"

struct jout;
struct layout;
struct model;
struct text;

struct block_mode {
    enum recompute recompute;
    enum arithmetic arithmetic; /* of its products: see layout_admits_arithmetic */
    bool offload;               /* what it keeps for the backward pass waits in the host's memory */
};

/* All borrowed. */
struct block_plan {
    const struct block_mode *modes; /* [model->blocks] */
    const int64_t *stage_blocks;    /* [pipeline], each >= 1; they sum to model->blocks */
    const size_t *stage_groups;     /* [pipeline]: node groups of the cluster; NULL: the first */
};

/* Of any layout that passes layout_check: the member "stages" of the open object, one object a
 * stage, with its modes as runs of neighbouring blocks that do the same (docs/cluster-plan.md). */
void block_plan_write(const struct layout *layout, const struct model *model, struct jout *out);
/* The same in words, a line a stage: "stage 0: blocks 0-11 (12), recompute full 0-2". Neighbours
 * that are alike share one: "stages 4-30: blocks 40-120 (3 each), no recompute". */
void block_plan_text(const struct layout *layout, const struct model *model, struct text *out);

#endif
