/* A layout to change block by block: its block plan is its own, whether it had one or not. */
#ifndef TEMPER_IR_OWN_LAYOUT_H
#define TEMPER_IR_OWN_LAYOUT_H

#include "ir/layout.h"
#include "ir/model.h"

/* Where a block of the block plan runs. Blocks of a stage stand together in the plan, chunk after
 * chunk, also where the chunks lie apart in the model. */
struct block_place {
    int64_t stage, chunk;
    int64_t in_stage, in_chunk; /* its number there, from 0 */
};

struct own_blocks {
    struct block_plan plan;     /* of the arrays below */
    struct block_mode *modes;   /* [blocks], owned */
    int64_t *stage_blocks;      /* [stages], owned */
    size_t *stage_groups;       /* [stages], owned */
    struct block_place *places; /* [blocks], owned */
    int64_t blocks, stages;
};

struct own_layout {
    struct layout layout;      /* layout.own: &blocks->plan, or NULL where nothing needs it */
    struct own_blocks *blocks; /* owned */
};

/* `from` has passed layout_check. Free with own_layout_free; memory is the only thing that can run
 * out. */
enum status own_layout_open(struct own_layout *out, const struct layout *from,
                            const struct model *model, struct error *err);
void own_layout_free(struct own_layout *own);

/* After any change of `layout` or of `blocks`: places, and whether a block plan is needed. Where
 * all blocks do the same, the layout's own fields say what. */
void own_layout_settle(struct own_layout *own, const struct model *model);
/* Stages as those of a layout without block plan. */
void own_layout_cut_evenly(struct own_layout *own, const struct model *model);

/* Blocks of a chunk of a stage. Where they do not divide, the chunk with the embedding and the one
 * with the head have less. */
int64_t own_layout_chunk_blocks(const struct own_layout *own, int64_t stage, int64_t chunk);

#endif
