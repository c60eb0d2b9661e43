/* What a target of export.h can run and how it is written; not part of the public interface. The
 * next target is an impls/export_NAME.c with its `struct export_ops`, a row of export.c's array and
 * a section in docs/export.md with the names of its options in tests/ir/data. */
#ifndef TEMPER_IR_EXPORT_OPS_H
#define TEMPER_IR_EXPORT_OPS_H

#include "ir/export.h"
#include "ir/own_layout.h"

/* Which blocks are recomputed: one rule for all of them. A block is an attention and an mlp. */
enum export_recompute {
    EXPORT_FULL,          /* all of every block */
    EXPORT_FULL_FIRST,    /* all of the first `count` blocks of each virtual stage */
    EXPORT_FULL_EVERY,    /* all of each `count`-th block of a stage's own, counted from 1 */
    EXPORT_KEEP,          /* nothing */
    EXPORT_SELECTIVE_MLP, /* of every block the mlp, and the attention's probabilities */
    EXPORT_SELECTIVE,     /* of every block the attention's probabilities */
    EXPORT_RECOMPUTE_COUNT,
    EXPORT_OWN = EXPORT_RECOMPUTE_COUNT /* each as its layout says; no rule, and of layouts only */
};

/* Which blocks of a layout multiply in fp8: the others do in bf16. */
enum export_fp8 {
    EXPORT_FP8_NONE,
    EXPORT_FP8_ALL,   /* all or none */
    EXPORT_FP8_INNER, /* all but some at either end of the model */
    EXPORT_FP8_ANY
};

/* Of which blocks of a layout what they keep for the backward pass waits on the host. */
enum export_offload {
    EXPORT_OFFLOAD_NONE,
    EXPORT_OFFLOAD_FIRST,      /* the first */
    EXPORT_OFFLOAD_CHECKPOINTS /* all that are recomputed, or none */
};

/* A levelled plan, with what its layers have in common. */
struct export_job {
    const struct plan *plan;
    bool sequence_parallel;
    int zero_stage;
    enum precision precision; /* of all layers but the embedding */
    enum export_recompute recompute;
    int64_t recompute_count; /* of EXPORT_FULL_FIRST and EXPORT_FULL_EVERY */
    bool even_stages;        /* every virtual stage has the same number of blocks */
    /* Of a layout alone. */
    const struct own_layout *layout;
    int64_t expert;                    /* devices that share the experts */
    int64_t context;                   /* data-parallel ranks that share a sequence */
    int64_t shard;                     /* data-parallel ranks that share ZeRO's state; all */
    bool optimizer_away;               /* on the host */
    bool unfused;                      /* attention has its s x s matrix in memory */
    bool serial;                       /* communication does not overlap with compute */
    bool fp8;                          /* of some blocks */
    int64_t first_16_bit, last_16_bit; /* of EXPORT_FP8_INNER: blocks in bf16 at either end */
    int64_t offloaded;                 /* blocks whose activations wait on the host */
};

/* Blocks on a virtual stage of a levelled plan. */
int64_t export_stage_blocks(const struct plan *plan, int virtual_stage);

/* Of a job with a layout: which block of its block plan is this one of the model's? */
int64_t export_planned_block(const struct export_job *job, int64_t block);

/* Where gradients of the plan are in bf16 and the target's in fp32: says so. */
void export_note_gradients(const struct export_job *job, const char *why, struct text *notes);

struct export_ops {
    const char *name;  /* "megatron" */
    const char *title; /* "Megatron-LM", for messages */
    bool schedules[SCHEDULE_COUNT];
    bool only_even_stages;
    bool sequence_parallel[2]; /* off, on; with tensor parallelism */
    bool precisions[PRECISION_COUNT];
    bool recompute[EXPORT_RECOMPUTE_COUNT];
    bool context_parallel; /* can more than one rank share a sequence? */
    bool expert_parallel;  /* and its experts? */
    /* Of layouts. */
    enum framework framework; /* whose time and memory the target has */
    bool balances_stages;     /* no others than layout_stage_blocks's of a uniform layout */
    bool own_recompute;       /* each block its own */
    bool unfused_attention;   /* can it keep the s x s matrix in memory? */
    enum export_fp8 fp8;
    enum export_offload offload;
    bool optimizer_away;   /* can it be on the host? */
    bool part_shard[4];    /* by ZeRO stage: its state over some of the data-parallel ranks */
    bool shards_sequences; /* and those of a sequence are among the same ones */
    /* Beside gpt2's and llama's dense decoders: experts, biases of q, k and v, encoders. */
    bool has_experts, has_qkv_bias, has_encoders;
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

/* Does the target have such a model, and run a plan of it? */
enum status export_ops_check(const struct export_ops *ops, const struct plan *plan,
                             struct error *err);
const struct export_ops *export_ops_of(enum export_target target);

/* How a levelled layout's fields are run. */
struct layout_ways {
    enum export_recompute recompute;
    int64_t recompute_count;
    int64_t first_16_bit, last_16_bit; /* of EXPORT_FP8_INNER with some blocks in fp8 */
    int64_t offloaded;                 /* blocks */
};
/* STATUS_UNSUPPORTED names the field that is not level, and how the target would run it. */
enum status layout_ways_of(const struct export_ops *ops, const struct model *model,
                           const struct own_layout *layout, struct layout_ways *out,
                           struct error *err);
/* STATUS_UNSUPPORTED names the field that is not level, and how the target would run it. */
enum status export_job_of(const struct export_ops *ops, const struct plan *plan,
                          struct export_job *out, struct error *err);

#endif
