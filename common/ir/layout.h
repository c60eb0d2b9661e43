/* One split of a training step that all layers share, as published runs and launch scripts give it:
 * Megatron-LM's, DeepSpeed's and torchtitan's degrees in one struct. What only some of them have
 * (context and expert parallelism, fused kernels) is in it, so not all of it can be executed. */
#ifndef TEMPER_IR_LAYOUT_H
#define TEMPER_IR_LAYOUT_H

#include "ir/block_plan.h"
#include "ir/schedule.h"

/* What the software does, as far as time and memory depend on it. */
enum framework {
    FRAMEWORK_MEGATRON,  /* fp32 gradients beside 16-bit weights; distributed optimizer is ZeRO 1 */
    FRAMEWORK_DEEPSPEED, /* Megatron-DeepSpeed: 16-bit gradients, ZeRO 1 to 3 */
    FRAMEWORK_FSDP,      /* PyTorch FSDP: fp32 weights sharded, gathered in 16 bit by block */
    FRAMEWORK_COUNT
};
const char *framework_name(enum framework framework); /* "megatron", "deepspeed", "fsdp" */
bool framework_parse(const char *name, enum framework *out);
bool framework_has_zero_stage(enum framework framework, int stage);
/* What each can do beside; option names and sources: docs/layout-model.md, "What software offers".
 */
bool framework_has_schedule(enum framework framework, enum schedule schedule);
/* ZeRO's state divided over some of the replicas only (HSDP, MiCS). */
bool framework_has_part_shard(enum framework framework, int zero_stage);

/* The kernels of what lies between the products, by whose code they are. */
enum elementwise {
    ELEMENTWISE_FUSED,   /* one for several operations */
    ELEMENTWISE_HF_GPT2, /* Hugging Face's models in PyTorch as it is: one for each operation */
    ELEMENTWISE_HF_BERT,
    ELEMENTWISE_HF_BLOOM
};

struct layout {
    enum framework framework;
    int64_t devices; /* pipeline * data * tensor * context */
    int64_t pipeline, virtual_stages, data, tensor, context, expert; /* each >= 1 */
    enum schedule schedule;
    bool sequence_parallel;
    int zero_stage;
    int64_t shard;        /* devices that ZeRO's state is divided over; divides data * context */
    int64_t micro_batch;  /* sequences of a replica */
    int64_t global_batch; /* sequences; micro_batch * data * micro-batches */
    enum recompute recompute;
    enum arithmetic arithmetic;
    enum elementwise elementwise;
    bool fused_attention;     /* no s x s matrix in memory */
    bool fused_cross_entropy; /* no fp32 copy of the logits */
    bool gradients_16_bit;    /* Megatron's are summed and sent in 16 bit, not in fp32 */
    bool overlap_gradients, overlap_parameters, overlap_tensor; /* with compute */
    bool offload_activations; /* what blocks keep for their backward pass waits on the host */
    bool offload_optimizer;   /* the host keeps the optimizer's state and does its step */
    /* Where the blocks differ; NULL: all are as the fields above say, shared out evenly. Borrowed.
     */
    const struct block_plan *own;
};

enum { LAYOUT_STAGES_MAX = 512 };

int64_t layout_micro_batches(const struct layout *layout);
/* Does its framework offload what blocks of that mode keep, and the optimizer, with such degrees?
 */
bool layout_admits_activations_away(const struct layout *layout, enum recompute recompute);
bool layout_admits_optimizer_away(const struct layout *layout);
/* Of a block: the layout's own; where that stores 32 bit fp32 and tf32, where it is bf16 or fp16
 * fp8. Both of 16 bit in one layout would need gradients scaled in two ways. */
bool layout_admits_arithmetic(const struct layout *layout, enum arithmetic arithmetic);
/* A ring of devices adds up softmaxes of pieces, for which it takes the sums that fused kernels
 * return. */
bool layout_admits_unfused(const struct layout *layout);
struct block_mode layout_block_mode(const struct layout *layout, int64_t block);
/* The blocks of a stage. Without a block plan: evenly, or with embedding and head counting as a
 * block each where that comes out even (Megatron-DeepSpeed's partition by type); else the first
 * stages have one more. */
int64_t layout_stage_blocks(const struct layout *layout, const struct model *model, int64_t stage);
/* Every relation between the fields, and with the model; messages name `where`. */
enum status layout_check(const struct layout *layout, const struct model *model, const char *where,
                         struct error *err);

#endif
