/* What the stages of a layout have: blocks by kind, tables, and the devices that they stand on.
 * Neighbouring stages that are alike stand in one entry. */
#ifndef TEMPER_COSTMODEL_STAGE_LIST_H
#define TEMPER_COSTMODEL_STAGE_LIST_H

#include "costmodel/layer_pass.h"

/* With or without experts; three modes of recompute; two arithmetics of a layout; offload. */
enum { BLOCK_KINDS_MAX = 2 * RECOMPUTE_COUNT * 2 * 2 };

struct stage_entry {
    int64_t first, count;           /* stages first .. first + count - 1 */
    size_t group;                   /* of the cluster's */
    int64_t blocks;                 /* of one stage */
    int64_t kinds[BLOCK_KINDS_MAX]; /* of them, of each of the list's kinds */
    bool has_embedding, has_head;
};

struct stage_list {
    struct block_kind kinds[BLOCK_KINDS_MAX]; /* those that occur */
    size_t kind_count;
    struct stage_entry entries[LAYOUT_STAGES_MAX]; /* [count], in the stages' order */
    size_t count;
};

/* The layout has passed layout_check. */
void stage_list(const struct model *model, const struct layout *layout, struct stage_list *out);

#endif
