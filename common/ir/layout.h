/* One split of a training step that all layers share, as published runs and launch scripts give it:
 * Megatron-LM's, DeepSpeed's and torchtitan's degrees in one struct. What only some of them have
 * (context and expert parallelism, fused kernels) is in it, so not all of it can be executed. */
#ifndef TEMPER_IR_LAYOUT_H
#define TEMPER_IR_LAYOUT_H

#include "ir/cluster.h"
#include "ir/layer.h"
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
    bool fused_attention;     /* no s x s matrix in memory */
    bool fused_cross_entropy; /* no fp32 copy of the logits */
    bool gradients_16_bit;    /* Megatron's are summed and sent in 16 bit, not in fp32 */
    bool overlap_gradients, overlap_parameters, overlap_tensor; /* with compute */
};

int64_t layout_micro_batches(const struct layout *layout);
/* Every relation between the fields, and with the model; messages name `where`. */
enum status layout_check(const struct layout *layout, const struct model *model, const char *where,
                         struct error *err);

#endif
