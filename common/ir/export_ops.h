/* What a target of export.h can run and how it is written; not part of the public interface. The
 * next target is an impls/export_NAME.c with its `struct export_ops`, a row of export.c's array and
 * a section in docs/export.md with the names of its options in tests/ir/data. */
#ifndef TEMPER_IR_EXPORT_OPS_H
#define TEMPER_IR_EXPORT_OPS_H

#include "ir/export.h"

/* Which blocks are recomputed: one rule for all of them. A block is an attention and an mlp. */
enum export_recompute {
    EXPORT_FULL,          /* all of every block */
    EXPORT_FULL_FIRST,    /* all of the first `count` blocks of each virtual stage */
    EXPORT_FULL_EVERY,    /* all of each `count`-th block of a stage's own, counted from 1 */
    EXPORT_SELECTIVE_MLP, /* of every block the mlp, and the attention's probabilities */
    EXPORT_SELECTIVE,     /* of every block the attention's probabilities */
    EXPORT_KEEP,          /* nothing */
    EXPORT_RECOMPUTE_COUNT
};

/* A levelled plan, with what its layers have in common. */
struct export_job {
    const struct plan *plan;
    bool sequence_parallel;
    int zero_stage;
    enum precision precision; /* of all layers but the embedding */
    enum export_recompute recompute;
    int64_t recompute_count; /* of EXPORT_FULL_FIRST and EXPORT_FULL_EVERY */
    int64_t context; /* of the data-parallel ranks so many share a sequence; 1 but for a layout's */
    bool even_stages; /* every virtual stage has the same number of blocks */
};

/* Blocks on a virtual stage of a levelled plan. */
int64_t export_stage_blocks(const struct plan *plan, int virtual_stage);

struct export_ops {
    const char *name;  /* "megatron" */
    const char *title; /* "Megatron-LM", for messages */
    bool schedules[SCHEDULE_COUNT];
    bool only_even_stages;
    bool sequence_parallel[2]; /* off, on; with tensor parallelism */
    bool precisions[PRECISION_COUNT];
    bool recompute[EXPORT_RECOMPUTE_COUNT];
    bool context_parallel; /* can more than one rank share a sequence? */
    /* Can this plan's layers, shared by more than one data-parallel rank, run under the stage? */
    bool (*admits_zero)(const struct plan *plan, int zero_stage);
    enum status (*check)(const struct plan *plan, struct error *err);
    enum status (*write)(const struct export_job *job, struct text *file, struct text *notes,
                         struct error *err);
};

extern const struct export_ops export_megatron, export_deepspeed, export_torchtitan, export_nemo;

/* Blocks in numbers as equal as can be on every virtual stage, the embedding on the first, the head
 * on the last; returns how many layers moved. */
size_t export_cut_evenly(struct plan *plan);

const struct export_ops *export_ops_of(enum export_target target);
/* STATUS_UNSUPPORTED names the field that is not level, and how the target would run it. */
enum status export_job_of(const struct export_ops *ops, const struct plan *plan,
                          struct export_job *out, struct error *err);

#endif
