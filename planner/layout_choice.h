/* What a layout chooses, one value each: for tables, and to hold a layout against those that choose
 * otherwise. */
#ifndef TEMPER_PLANNER_LAYOUT_CHOICE_H
#define TEMPER_PLANNER_LAYOUT_CHOICE_H

#include "ir/layout.h"
#include "ir/names.h"

enum layout_choice {
    LAYOUT_DATA,
    LAYOUT_TENSOR,
    LAYOUT_PIPELINE,
    LAYOUT_CONTEXT,
    LAYOUT_EXPERT,
    LAYOUT_VIRTUAL_STAGES,
    LAYOUT_SEQUENCE,
    LAYOUT_ZERO,
    LAYOUT_SHARD,
    LAYOUT_MICRO_BATCH,
    LAYOUT_MICRO_BATCHES,
    LAYOUT_RECOMPUTE, /* of a layout whose blocks differ: what the others do */
    LAYOUT_SCHEDULE,
    LAYOUT_OFFLOAD,    /* bits of enum layout_offload */
    LAYOUT_ATTENTION,  /* 1: fused */
    LAYOUT_OVERLAP,    /* 1: of communication with compute */
    LAYOUT_ARITHMETIC, /* what blocks may differ from: see layout_admits_arithmetic */
    LAYOUT_CHOICE_COUNT
};

int64_t layout_choice_value(const struct layout *layout, enum layout_choice choice);
/* Does it have the value that stands for "nothing of the kind"? */
bool layout_choice_is_plain(const struct layout *layout, enum layout_choice choice);
/* "data_parallel", "recompute", ... */
const char *layout_choice_key(enum layout_choice choice);
/* The names of its values; NULL: numbers. What is switched has "off" and "on". */
const struct name_list *layout_choice_names(enum layout_choice choice);
bool layout_choice_is_switch(enum layout_choice choice); /* 0 or 1 */
enum { LAYOUT_CHOICE_BYTES = 32 };
const char *layout_choice_text(enum layout_choice choice, int64_t value,
                               char out[LAYOUT_CHOICE_BYTES]);

#endif
