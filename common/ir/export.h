/* Handing a plan over to the programs that people train with. The targets' options and what each of
 * them cannot express are in docs/export.md.
 *
 * temper gives every layer a strategy of its own; the targets have one for all layers. A plan is
 * therefore levelled first, field by field, into one that the target can run: that is a plan like
 * any other, which whoever has a profile can predict again, to see what the levelling costs. What a
 * target computes differently (another norm, another precision) is refused, never levelled. */
#ifndef TEMPER_IR_EXPORT_H
#define TEMPER_IR_EXPORT_H

#include "base/error.h"
#include "base/text.h"
#include "ir/own_layout.h"
#include "ir/plan.h"

enum export_target {
    EXPORT_MEGATRON,   /* Megatron-LM: command-line arguments, one a line */
    EXPORT_DEEPSPEED,  /* DeepSpeed: ds_config.json */
    EXPORT_TORCHTITAN, /* torchtitan: job config, TOML */
    EXPORT_NEMO,       /* NeMo 1: Hydra overrides, one a line */
    EXPORT_TARGET_COUNT
};
const char *export_target_name(enum export_target target); /* "megatron", ... */
bool export_target_parse(const char *name, enum export_target *out);
void export_target_names(struct text *out); /* "megatron, deepspeed, torchtitan, nemo" */

/* What a target has one value of, in the order in which it is levelled: each field relies on those
 * before it. */
enum export_field {
    EXPORT_TENSOR,    /* tensor-parallel degree; smaller ones become data parallelism */
    EXPORT_SCHEDULE,  /* and its virtual stages */
    EXPORT_STAGES,    /* stages are cut between blocks, some targets' into equal numbers */
    EXPORT_SEQUENCE,  /* sequence parallelism */
    EXPORT_PRECISION, /* embedding aside, which temper computes in fp32 only */
    EXPORT_ZERO,      /* ZeRO stage */
    EXPORT_RECOMPUTE,
    EXPORT_FIELD_COUNT
};
const char *export_field_name(enum export_field field); /* "tensor_parallel", ... */

/* STATUS_UNSUPPORTED when the target trains no such model, naming what differs. */
enum status export_check(enum export_target target, const struct plan *plan, struct error *err);

enum { EXPORT_TEXT_BYTES = 160 };

/* One way of running a field. */
struct export_way {
    bool exists;    /* false: there are no more ways, the plan is as it was */
    size_t changed; /* layers (of the schedule: plans) that run otherwise than planned; 0: none */
    char text[EXPORT_TEXT_BYTES]; /* what is run: "zero_stage 1 in every layer" */
};

/* Level one field of a valid plan in the way-th way, 0, 1, ..., from the one that needs the least
 * memory. Where the target can run the field as planned, that is among the ways. The result may
 * break a relation (plan_validate says which) and its prediction is still the old one's.
 * STATUS_UNSUPPORTED when there is no way, naming the pin that would help. */
enum status export_level(enum export_target target, enum export_field field, size_t way,
                         struct plan *plan, struct export_way *out, struct error *err);

/* The target's file, and what cannot stand in it: one sentence a line of `notes`. Every field of
 * the plan has been levelled, else STATUS_UNSUPPORTED names the field. */
enum status export_write(enum export_target target, const struct plan *plan, struct text *file,
                         struct text *notes, struct error *err);

/* ---- the same of a layout ---- */

/* What a target has its own way of, in the order in which it is levelled. */
enum handover_field {
    HANDOVER_SCHEDULE,
    HANDOVER_STAGES,
    HANDOVER_SEQUENCE,
    HANDOVER_ARITHMETIC, /* of blocks; a target may be slower than the plan, never less exact */
    HANDOVER_ATTENTION,  /* fused or not */
    HANDOVER_RECOMPUTE,
    HANDOVER_OFFLOAD_ACTIVATIONS,
    HANDOVER_OFFLOAD_OPTIMIZER,
    HANDOVER_ZERO, /* the stage, who shares the state, and the software that does it */
    HANDOVER_FIELD_COUNT
};
const char *handover_field_name(enum handover_field field); /* "schedule", ... */

/* Before levelling: STATUS_UNSUPPORTED when the target has no such model, or not the layout's
 * degrees; names the pin that would help. */
enum status export_layout_check(enum export_target target, const struct model *model,
                                const struct layout *layout, struct error *err);

/* Which ways of a field are asked for. */
struct handover_choice {
    enum handover_field field;
    bool all; /* false: where the target can run the field as planned that is the only way */
};

/* As export_level, of a layout that passes layout_check. `out->changed` counts blocks. */
enum status export_layout_level(enum export_target target, const struct handover_choice *choice,
                                size_t way, const struct model *model, struct own_layout *layout,
                                struct export_way *out, struct error *err);

/* As export_write: every field has been levelled, else STATUS_UNSUPPORTED names the field. */
enum status export_layout(enum export_target target, const struct model *model,
                          const struct own_layout *layout, struct text *file, struct text *notes,
                          struct error *err);

#endif
