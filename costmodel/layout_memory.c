/* Memory of the device that holds most: state of the parameters by framework, activations of the
 * micro-batches in flight, what layers and collectives need while they work, and what lies outside
 * the allocator. docs/layout-memory.md has the equations and their sources. */
#include "costmodel/layout_cost.h"

#include "costmodel/layer_bytes.h"
#include <math.h>

/* Of the context that the driver and its libraries take on a device (BigScience's measurements of
 * A100s name 1.3 GB). */
static const double context_bytes = 1.3e9;

/* NCCL gives each channel of a communicator a buffer for each of its three protocols: Simple 4 MiB,
 * LL 512 threads x 8 lines x 8 steps x 16 B, LL128 640 threads x 120 words x 8 steps x 8 B; to
 * receive in a ring and in a tree. 24 channels is what it opens between devices of one node. */
static const double channel_bytes = 4194304.0 + 524288.0 + 4915200.0;
static const double channels = 24, channel_paths = 2;

/* cuBLAS workspaces: TransformerEngine's, and those of the threads that run forward and backward
 * passes. */
static const double workspace_bytes = 3 * 33554432.0;

/* DeepSpeed's defaults of reduce_bucket_size and allgather_bucket_size. */
static const double bucket_elements = 5e8;

/* One standard deviation, as a share: of tensors that are counted one by one, but for when exactly
 * each is freed; of buffers; and of what no program tells. State is exact. */
static const double deviations[MEMORY_TERM_COUNT] = {
    [MEMORY_ACTIVATIONS] = 0.02,
    [MEMORY_SCRATCH] = 0.05,
    [MEMORY_PROCESS] = 0.1,
};
/* Of a normal distribution: 95 of 100 are below. */
static const double one_sided_95 = 1.645;

static const double fp32_bytes = 4;

/* ---- stages ---- */

struct stage {
    int index;
    double blocks;
    double tables;     /* vocab x hidden matrices that a device of it holds */
    double matrices;   /* elements of its blocks' matrices on one device */
    double parameters; /* elements: blocks, tables, vectors */
    bool is_last;
};

/* Biases and norms of a block. */
static double block_vectors(const struct layout_share *share)
{
    double hidden = (double)share->model->hidden;
    if (share->model->family == MODEL_LLAMA)
        return 2 * hidden;
    return 6 * hidden + share->context + 2 * share->kv + share->ffn;
}

/* As docs/layout-model.md shares them out: evenly, or embedding and head count as one block each,
 * else the first stages have one more. */
static double stage_blocks(const struct layout_share *share, int64_t stage)
{
    int64_t blocks = share->model->blocks, p = share->layout->pipeline;
    int64_t most = (blocks + p - 1) / p;
    if (p > 1 && blocks % p != 0 && (blocks + 2) % p == 0) {
        most = (blocks + 2) / p;
        return (double)(stage == 0 || stage == p - 1 ? most - 1 : most);
    }
    int64_t before = stage * most;
    int64_t rest = blocks > before ? blocks - before : 0;
    return (double)(rest < most ? rest : most);
}

static struct stage stage_of(const struct layout_share *share, int64_t index)
{
    const struct model *model = share->model;
    int64_t last = share->layout->pipeline - 1;
    struct stage stage = {
        .index = (int)index, .blocks = stage_blocks(share, index), .is_last = index == last};
    double vectors = stage.blocks * block_vectors(share);

    if (index == 0) {
        stage.tables += 1;
        if (model->family == MODEL_GPT2)
            vectors += (double)(model->positions * model->hidden);
    }
    if (stage.is_last) {
        /* the head of a tied model needs a table of its own on another stage than the embedding */
        stage.tables += model->tied_head && last == 0 ? 0 : 1;
        vectors += (double)model->hidden * (model->family == MODEL_GPT2 ? 2 : 1);
    }
    stage.matrices = stage.blocks * block_parameters(share);
    stage.parameters = stage.matrices + stage.tables * table_parameters(share) + vectors;
    return stage;
}

/* ---- state: bytes of a parameter on one device ---- */

struct state_bytes {
    double parameters, gradients, optimizer;
};

/* Rajbhandari et al. 2020, with fp32 gradients where the framework sums in fp32. */
static struct state_bytes state_bytes(const struct layout_share *share)
{
    const struct layout *layout = share->layout;
    double shard = (double)layout->shard;
    struct state_bytes bytes = {share->element_bytes, share->element_bytes, 8};

    if (layout->framework == FRAMEWORK_FSDP)
        return (struct state_bytes){fp32_bytes / shard, fp32_bytes / shard, 8 / shard};
    if (share->element_bytes < fp32_bytes)
        bytes.optimizer += fp32_bytes; /* master weights */
    if (layout->framework == FRAMEWORK_MEGATRON && !layout->gradients_16_bit)
        bytes.gradients = fp32_bytes;
    /* BF16_Optimizer sums in fp32 what backward passes leave in 16 bit. */
    if (layout->framework == FRAMEWORK_DEEPSPEED && layout->arithmetic == ARITHMETIC_BF16)
        bytes.gradients += fp32_bytes;
    if (layout->zero_stage >= 1)
        bytes.optimizer /= shard;
    if (layout->zero_stage >= 2)
        bytes.gradients /= shard;
    if (layout->zero_stage >= 3)
        bytes.parameters /= shard;
    return bytes;
}

/* ---- activations ---- */

/* Passes of a chunk of this stage whose backward pass is not over, at most. Chunks have their most
 * at different times: interleaved it is what the warm-up begins with and one more (Narayanan et al.
 * 2021: 1 + (p - 1) / (p v) times p v on the first stage). */
static double chunks_in_flight(const struct layout *layout, int stage)
{
    int64_t passes = layout_micro_batches(layout) * layout->virtual_stages;
    int64_t behind = layout->pipeline - 1 - stage, warm_up = passes;
    if (layout->schedule == SCHEDULE_1F1B)
        warm_up = behind;
    else if (layout->schedule == SCHEDULE_INTERLEAVED)
        warm_up = 2 * behind + (layout->virtual_stages - 1) * layout->pipeline;
    return fmin((double)passes, (double)(warm_up + 1));
}

static double activation_bytes(const struct layout_share *share, const struct stage *stage)
{
    const struct layout *layout = share->layout;
    double chunks = chunks_in_flight(layout, stage->index);
    double chunk_blocks = stage->blocks / (double)layout->virtual_stages;
    double bytes = chunks * chunk_blocks * block_bytes(share).kept;
    if (stage->is_last)
        bytes += head_bytes(share).kept;
    /* DeepSpeed keeps a stage's output until its gradient is there; Megatron frees it once sent. */
    if (layout->framework == FRAMEWORK_DEEPSPEED && layout->pipeline > 1)
        bytes += chunks * stream_bytes(share);
    return bytes;
}

/* ---- scratch ---- */

struct scratch {
    double bytes;
    double cached; /* of them: what the allocator can give back */
};

/* What forward and backward passes hold that the optimizer's step does not need. */
struct pipeline_bytes {
    double activations, working;
};

/* TransformerEngine hands autograd a placeholder for each weight's gradient, which it keeps: one
 * for each shape in 16 bit, that is for each of a block's matrices. In fp8 it also keeps weights
 * and their transposes in 8 bit for the micro-batches of a step. */
static double megatron_bytes(const struct layout_share *share, const struct stage *stage)
{
    double bytes = workspace_bytes;
    if (share->layout->fused_attention && stage->blocks > 0)
        bytes += share->element_bytes * block_parameters(share);
    if (share->layout->arithmetic == ARITHMETIC_FP8)
        bytes += 2 * stage->matrices;
    return bytes;
}

/* ZeRO's optimizer step copies its share of the gradients to fp32 by way of one flat tensor; with
 * replicas, one bucket is reduced and one gathered at a time. */
static double deepspeed_fp16_bytes(const struct layout_share *share, const struct stage *stage)
{
    const struct layout *layout = share->layout;
    double e = share->element_bytes, bucket = fmin(bucket_elements, stage->parameters);
    double owned = stage->parameters / (layout->zero_stage >= 1 ? (double)layout->shard : 1);
    double bytes = (e + fp32_bytes) * owned;
    if (layout->data * layout->context > 1)
        bytes += 2 * e * bucket;
    return bytes;
}

/* BF16_Optimizer converts gradients to fp32 tensor by tensor, and reduces a bucket at a time. */
static double deepspeed_bf16_bytes(const struct layout_share *share, const struct stage *stage)
{
    double largest = stage->tables > 0 ? table_parameters(share) : 0;
    return fp32_bytes * fmin(fmax(bucket_elements, largest), stage->parameters);
}

/* The larger of what the pipeline needs and what the optimizer's step needs after it: pieces that
 * activations leave are too small for the step's flat tensors, so the allocator holds both. With
 * BF16_Optimizer, which works beside the pipeline, it holds the weights as they were before they
 * were copied into one flat tensor. */
static struct scratch deepspeed_scratch(const struct layout_share *share, const struct stage *stage,
                                        struct pipeline_bytes pipeline)
{
    const struct layout *layout = share->layout;
    double gathered = 0; /* by ZeRO 3: the block at work and the next one */
    if (layout->zero_stage == 3)
        gathered = 2 * share->element_bytes * block_parameters(share);
    double bytes = pipeline.working + gathered;
    if (share->element_bytes == fp32_bytes)
        return (struct scratch){.bytes = bytes};
    if (layout->arithmetic == ARITHMETIC_BF16) {
        double copied = share->element_bytes * stage->parameters;
        return (struct scratch){.bytes = bytes + deepspeed_bf16_bytes(share, stage) + copied,
                                .cached = copied};
    }
    double step = deepspeed_fp16_bytes(share, stage);
    return (struct scratch){.bytes = bytes + step,
                            .cached = fmin(step, bytes + pipeline.activations)};
}

/* Gathered: the tables, which stay for the step, the block at work and the next one; or all of the
 * stage where it is not sharded again after the forward pass (stage 2, and pipelines, which also
 * keep fp32 sums of the gradients until the last micro-batch). A block's gradient in 16 bit, and in
 * fp32 those of two blocks on their way to the devices that own them. */
static double fsdp_bytes(const struct layout_share *share, const struct stage *stage)
{
    double e = share->element_bytes;
    double block = block_parameters(share) + block_vectors(share);
    double reduced = (e + 2 * fp32_bytes) * block;
    if (share->layout->pipeline > 1)
        return (e + fp32_bytes) * stage->parameters + reduced;
    if (share->layout->zero_stage == 2)
        return e * stage->parameters + reduced;
    return e * (stage->tables * table_parameters(share) + 2 * block) + reduced;
}

static struct scratch scratch_of(const struct layout_share *share, const struct stage *stage,
                                 double activations)
{
    struct pipeline_bytes pipeline = {activations, block_bytes(share).working};
    if (stage->is_last)
        pipeline.working = fmax(pipeline.working, head_bytes(share).working);
    switch (share->layout->framework) {
    case FRAMEWORK_DEEPSPEED:
        return deepspeed_scratch(share, stage, pipeline);
    case FRAMEWORK_MEGATRON:
        return (struct scratch){.bytes = pipeline.working + megatron_bytes(share, stage)};
    default:
        return (struct scratch){.bytes = pipeline.working + fsdp_bytes(share, stage)};
    }
}

/* ---- process ---- */

/* A communicator each of the tensor-parallel group, of the replicas, of the pipeline, of all.
 * DeepSpeed has groups of its own beside Megatron's: two of the replicas, one with each neighbour
 * in the pipeline, one each for its loss and its tied tables, one of a whole replica. */
static double process_bytes(const struct layout *layout)
{
    bool is_deepspeed = layout->framework == FRAMEWORK_DEEPSPEED;
    int communicators = 0;
    if (layout->tensor > 1)
        communicators += 1;
    if (layout->data * layout->context > 1)
        communicators += is_deepspeed ? 2 : 1;
    if (layout->pipeline > 1)
        communicators += is_deepspeed ? 4 : 1;
    if (layout->devices > 1)
        communicators += is_deepspeed ? 2 : 1;
    return context_bytes + communicators * channels * channel_paths * channel_bytes;
}

/* ---- all of it ---- */

struct stage_memory {
    double terms[MEMORY_TERM_COUNT];
    double sum, cached;
};

static struct stage_memory stage_memory(const struct layout_share *share, int64_t index)
{
    struct stage stage = stage_of(share, index);
    struct state_bytes state = state_bytes(share);
    double activations = activation_bytes(share, &stage);
    struct scratch scratch = scratch_of(share, &stage, activations);
    struct stage_memory memory = {
        .terms = {[MEMORY_PARAMETERS] = state.parameters * stage.parameters,
                  [MEMORY_GRADIENTS] = state.gradients * stage.parameters,
                  [MEMORY_OPTIMIZER] = state.optimizer * stage.parameters,
                  [MEMORY_ACTIVATIONS] = activations,
                  [MEMORY_SCRATCH] = scratch.bytes,
                  [MEMORY_PROCESS] = process_bytes(share->layout)},
        .cached = scratch.cached,
    };
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        memory.sum += memory.terms[term];
    return memory;
}

/* The second stage has one micro-batch less in flight than the first and no table, but may have
 * a block more; those between it and the last hold less than it does. One stage may hold most, and
 * another one most of what it cannot give back. */
static struct stage_memory fullest_stage(const struct layout_share *share)
{
    int64_t last = share->layout->pipeline - 1;
    const int64_t candidates[] = {last > 0 ? 1 : 0, last};
    struct stage_memory fullest = stage_memory(share, 0);
    double needed = fullest.sum - fullest.cached;

    for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
        struct stage_memory memory = stage_memory(share, candidates[i]);
        if (memory.sum > fullest.sum)
            fullest = memory;
        needed = fmax(needed, memory.sum - memory.cached);
    }
    fullest.cached = fmax(fullest.sum - needed, 0);
    return fullest;
}

enum status layout_memory(const struct cluster *cluster, const struct model *model,
                          const struct layout *layout, struct layout_prediction *out,
                          struct error *err)
{
    struct layout_share share = layout_share(cluster, model, layout);
    struct stage_memory memory = fullest_stage(&share);

    (void)err; /* nothing can fail once layout_check has passed */
    out->memory_bytes = (struct quantity){.provenance = PROVENANCE_MODELLED};
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        out->memory_term_bytes[term] = (struct quantity){
            memory.terms[term], deviations[term] * memory.terms[term], PROVENANCE_MODELLED};
        out->memory_bytes = quantity_add(out->memory_bytes, out->memory_term_bytes[term]);
    }
    out->cached_bytes = memory.cached;
    return STATUS_OK;
}

bool layout_fits(const struct cluster *cluster, const struct layout_prediction *prediction)
{
    const struct quantity *bytes = &prediction->memory_bytes;
    return bytes->value - prediction->cached_bytes + one_sided_95 * bytes->deviation <=
           (double)cluster->groups[0].device.memory_bytes;
}
