/* Memory of the device that holds most: state of the parameters by framework, activations of the
 * micro-batches in flight, what layers and collectives need while they work, and what lies outside
 * the allocator. docs/layout-memory.md has the equations and their sources. */
#include "costmodel/layout_memory.h"

#include "costmodel/host_exchange.h"
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
static const double one_sided_95 = 1.6448536269514722;

static const double fp32_bytes = 4;

/* ---- stages ---- */

struct stage {
    int64_t first, last; /* of its entry: the first has most micro-batches in flight */
    double blocks;
    double tables;       /* vocab x hidden matrices that a device of it holds */
    double matrices;     /* elements of its blocks' matrices on one device */
    double fp8_matrices; /* of them, of blocks that multiply in fp8 */
    double experts;      /* of them, of experts */
    double shapes;       /* of a block's, counting matrices of one shape once, at most */
    double parameters;   /* elements: blocks, tables, vectors */
    double kept;         /* bytes that its blocks keep of a micro-batch on the device */
    double away;         /* and on the host */
    double buffers;      /* bytes on their way there and back, at most */
    double late;         /* bytes that its blocks keep for gradients of weights under zb-h1 */
    double working;      /* bytes that a block holds while it works, at most */
    bool is_last;
};

/* Biases and norms of a block. */
static double block_vectors(const struct layout_share *share)
{
    double hidden = (double)share->model->hidden;
    if (share->model->family == MODEL_LLAMA)
        return 2 * hidden + (share->model->qkv_bias ? share->context + 2 * share->kv : 0);
    return 6 * hidden + share->context + 2 * share->kv + share->ffn;
}

static void add_blocks(const struct stage_bytes *bytes, const struct stage_entry *entry,
                       struct stage *stage)
{
    for (size_t i = 0; i < bytes->kind_count; i++) {
        double count = (double)entry->kinds[i];
        if (entry->kinds[i] == 0)
            continue;
        stage->matrices += count * bytes->matrices[i];
        if (bytes->kinds[i].mode.arithmetic == ARITHMETIC_FP8)
            stage->fp8_matrices += count * bytes->matrices[i];
        double experts = bytes->kinds[i].has_experts ? expert_parameters(&bytes->share) : 0;
        stage->experts += count * experts;
        double alike = experts > 0 ? experts - experts / bytes->share.experts.local : 0;
        stage->shapes = fmax(stage->shapes, bytes->matrices[i] - alike);
        if (bytes->kinds[i].mode.offload) {
            stage->away += count * bytes->blocks[i].kept;
            /* one block's go while the next one's come to be */
            stage->buffers = fmax(stage->buffers, fmin(count, 2) * bytes->blocks[i].kept);
        } else {
            stage->kept += count * bytes->blocks[i].kept;
        }
        stage->late += count * bytes->late[i];
        stage->working = fmax(stage->working, bytes->blocks[i].working);
    }
}

/* Beside the table: positions; of an encoder segments and a norm. */
static double embedding_vectors(const struct model *model)
{
    if (model->family == MODEL_LLAMA)
        return 0;
    int64_t rows = model->positions + (model->bidirectional ? model->segments + 2 : 0);
    return (double)rows * (double)model->hidden;
}

/* Beside the table: the norm; of an encoder its dense layer and the decoder's bias. */
static double head_vectors(const struct layout_share *share)
{
    double hidden = (double)share->model->hidden;
    double norm = share->model->family == MODEL_GPT2 ? 2 * hidden : hidden;
    return share->model->bidirectional ? norm + hidden * hidden + hidden + share->vocab : norm;
}

static struct stage stage_of(const struct stage_bytes *bytes, const struct stage_entry *entry)
{
    const struct layout_share *share = &bytes->share;
    const struct model *model = share->model;
    struct stage stage = {.first = entry->first,
                          .last = entry->first + entry->count - 1,
                          .blocks = (double)entry->blocks,
                          .is_last = entry->has_head};
    double vectors = stage.blocks * block_vectors(share);

    add_blocks(bytes, entry, &stage);
    if (entry->has_embedding) {
        stage.tables += 1;
        vectors += embedding_vectors(model);
    }
    if (entry->has_head) {
        /* the head of a tied model needs a table of its own on another stage than the embedding */
        stage.tables += model->tied_head && entry->has_embedding ? 0 : 1;
        vectors += head_vectors(share);
    }
    stage.parameters = stage.matrices + stage.tables * table_parameters(share) + vectors;
    return stage;
}

/* ---- state ---- */

/* Rajbhandari et al. 2020, with fp32 gradients where the framework sums in fp32. */
static struct state_bytes whole_state_bytes(const struct layout_share *share, double shard)
{
    const struct layout *layout = share->layout;
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

/* On the host instead: the optimizer's; DeepSpeed's gradients of stages that divide them, where
 * only a bucket is on its way; all of FSDP's. */
static struct state_bytes state_bytes(const struct layout_share *share, double shard)
{
    const struct layout *layout = share->layout;
    struct state_bytes bytes = whole_state_bytes(share, shard);
    if (!layout->offload_optimizer)
        return bytes;
    bytes.optimizer = 0;
    if (layout->framework == FRAMEWORK_FSDP)
        return (struct state_bytes){0};
    if (layout->framework == FRAMEWORK_DEEPSPEED && layout->zero_stage >= 2)
        bytes.gradients = 0;
    return bytes;
}

/* ---- activations ---- */

/* Passes of a chunk of this stage whose backward pass is not over, at most. Chunks have their most
 * at different times: interleaved it is what the warm-up begins with and one more (Narayanan et al.
 * 2021: 1 + (p - 1) / (p v) times p v on the first stage). */
static double chunks_in_flight(const struct layout *layout, int64_t stage)
{
    int64_t passes = layout_micro_batches(layout) * layout->virtual_stages;
    int64_t behind = layout->pipeline - 1 - stage, warm_up = passes;
    if (layout->schedule == SCHEDULE_1F1B || layout->schedule == SCHEDULE_ZB_H1)
        warm_up = behind;
    else if (layout->schedule == SCHEDULE_INTERLEAVED)
        warm_up = 2 * behind + (layout->virtual_stages - 1) * layout->pipeline;
    return fmin((double)passes, (double)(warm_up + 1));
}

/* zb-h1: of p micro-batches that are not over, p - i are between their forward and their backward
 * pass on stage i, and i wait for their gradients of weights; one more of these and one less of
 * those before it does the next. */
static double split_bytes(const struct layout *layout, const struct stage *stage, int64_t index)
{
    double m = (double)layout_micro_batches(layout);
    double ahead = (double)(layout->pipeline - index), behind = (double)index;
    double waiting, passing;
    if (stage->late > stage->kept) {
        waiting = fmin(m, behind + 1);
        passing = fmin(m - waiting, ahead - 1);
    } else {
        passing = fmin(m, ahead);
        waiting = fmin(m - passing, behind);
    }
    return passing * stage->kept + waiting * stage->late;
}

static double activation_bytes(const struct stage_bytes *of, const struct stage *stage)
{
    const struct layout_share *share = &of->share;
    const struct layout *layout = share->layout;
    double chunks = chunks_in_flight(layout, stage->first);
    double bytes = chunks * stage->kept / (double)layout->virtual_stages;
    if (layout->schedule == SCHEDULE_ZB_H1)
        bytes =
            fmax(split_bytes(layout, stage, stage->first), split_bytes(layout, stage, stage->last));
    bytes += stage->buffers;
    if (stage->is_last)
        bytes += of->head.kept;
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
    if (share->layout->fused_attention)
        bytes += share->element_bytes * stage->shapes;
    return bytes + 2 * stage->fp8_matrices;
}

/* ZeRO's optimizer step copies its share of the gradients to fp32 by way of one flat tensor; with
 * replicas, one bucket is reduced and one gathered at a time. */
static double deepspeed_fp16_bytes(const struct layout_share *share, const struct stage *stage)
{
    const struct layout *layout = share->layout;
    double e = share->element_bytes, bucket = fmin(bucket_elements, stage->parameters);
    double owned = stage->parameters / (layout->zero_stage >= 1 ? (double)layout->shard : 1);
    double bytes = layout->offload_optimizer ? 0 : (e + fp32_bytes) * owned;
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
        gathered = 2 * share->element_bytes * stage->matrices / stage->blocks;
    double bytes = pipeline.working + gathered;
    if (share->element_bytes == fp32_bytes)
        return (struct scratch){.bytes = bytes};
    if (layout->arithmetic == ARITHMETIC_BF16 && !layout->offload_optimizer) {
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
    double block = stage->matrices / stage->blocks + block_vectors(share);
    double reduced = (e + 2 * fp32_bytes) * block;
    if (share->layout->pipeline > 1)
        return (e + fp32_bytes) * stage->parameters + reduced;
    if (share->layout->zero_stage == 2)
        return e * stage->parameters + reduced;
    return e * (stage->tables * table_parameters(share) + 2 * block) + reduced;
}

static struct scratch scratch_of(const struct stage_bytes *of, const struct stage *stage,
                                 double activations)
{
    const struct layout_share *share = &of->share;
    struct pipeline_bytes pipeline = {activations, stage->working};
    if (stage->is_last)
        pipeline.working = fmax(pipeline.working, of->head.working);
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
    if (layout->zero_stage > 0 && layout->shard < layout->data * layout->context)
        communicators += 1; /* those that share state, beside those that hold the same part of it */
    if (layout->pipeline > 1)
        communicators += is_deepspeed ? 4 : 1;
    if (layout->devices > 1)
        communicators += is_deepspeed ? 2 : 1;
    return context_bytes + communicators * channels * channel_paths * channel_bytes;
}

/* ---- all of it ---- */

void stage_bytes_fill(struct layer_prices *layers, const struct layout *layout,
                      const struct block_kind *kinds, size_t kind_count, struct stage_bytes *out)
{
    double shard = (double)layout->shard, expert = (double)layout->expert;
    struct block_prices spare;

    out->share = layers->share;
    out->share.layout = layout;
    out->state = state_bytes(&out->share, shard);
    out->expert_state = state_bytes(&out->share, fmax(shard / expert, 1));
    out->head = layers->head_bytes;
    out->process = process_bytes(layout);
    out->kinds = kinds;
    out->kind_count = kind_count;
    for (size_t i = 0; i < kind_count; i++) {
        const struct block_prices *block = layer_prices_block(layers, &kinds[i], &spare);
        out->blocks[i] = block->bytes;
        out->matrices[i] = block->parameters;
        out->late[i] = block->late_bytes;
    }
}

static double owned_parameters(const struct layout_share *share, const struct stage *stage)
{
    double shard = (double)share->layout->shard, expert = (double)share->layout->expert;
    return (stage->parameters - stage->experts) / shard + stage->experts / fmax(shard / expert, 1);
}

static double host_bytes(const struct layout_share *share, const struct stage *stage)
{
    const struct layout *layout = share->layout;
    if (stage->away == 0 && !layout->offload_optimizer)
        return 0;
    double chunks = chunks_in_flight(layout, stage->first) / (double)layout->virtual_stages;
    return chunks * stage->away + host_state_bytes(layout) * owned_parameters(share, stage);
}

void stage_memory_fill(const struct stage_bytes *bytes, const struct stage_entry *entry,
                       struct stage_memory *out)
{
    const struct layout_share *share = &bytes->share;
    const struct state_bytes *state = &bytes->state, *expert_state = &bytes->expert_state;
    const struct stage stage = stage_of(bytes, entry);
    double others = stage.parameters - stage.experts;
    double activations = activation_bytes(bytes, &stage);
    struct scratch scratch = scratch_of(bytes, &stage, activations);

    *out = (struct stage_memory){
        .terms = {[MEMORY_PARAMETERS] =
                      state->parameters * others + expert_state->parameters * stage.experts,
                  [MEMORY_GRADIENTS] =
                      state->gradients * others + expert_state->gradients * stage.experts,
                  [MEMORY_OPTIMIZER] =
                      state->optimizer * others + expert_state->optimizer * stage.experts,
                  [MEMORY_ACTIVATIONS] = activations,
                  [MEMORY_SCRATCH] = scratch.bytes,
                  [MEMORY_PROCESS] = bytes->process},
        .cached = scratch.cached,
        .device_bytes = (double)share->device->memory_bytes,
        .host_bytes = host_bytes(share, &stage),
        .host_memory_bytes = (double)share->device->host_memory_bytes,
    };
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        out->sum += out->terms[term];
}

double stage_memory_deviation(const struct stage_memory *memory)
{
    double variance = 0;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        double deviation = deviations[term] * memory->terms[term];
        variance += deviation * deviation;
    }
    return sqrt(variance);
}

/* One stage may hold most, and another one most of what it cannot give back; fullest is what leaves
 * its device least. */
static struct stage_memory fullest_stage(const struct layout_parts *parts)
{
    const struct stage_list *list = &parts->stages;
    struct stage_bytes bytes;
    struct stage_memory fullest = {.sum = 0};
    double needed = 0, host_bytes = 0, host_memory_bytes = 0;

    for (size_t i = 0; i < list->count; i++) {
        const struct stage_entry *entry = &list->entries[i];
        struct stage_memory memory;
        if (i == 0 || entry->group != entry[-1].group)
            stage_bytes_fill(parts->layers[entry->group], parts->layout, list->kinds,
                             list->kind_count, &bytes);
        stage_memory_fill(&bytes, entry, &memory);
        double spare = memory.device_bytes - memory.sum;
        if (i == 0 || spare < fullest.device_bytes - fullest.sum)
            fullest = memory;
        double needs = memory.sum - memory.cached - memory.device_bytes;
        needed = i == 0 ? needs : fmax(needed, needs);
        if (i == 0 ||
            memory.host_memory_bytes - memory.host_bytes < host_memory_bytes - host_bytes) {
            host_bytes = memory.host_bytes;
            host_memory_bytes = memory.host_memory_bytes;
        }
    }
    fullest.host_bytes = host_bytes;
    fullest.host_memory_bytes = host_memory_bytes;
    fullest.cached = fmax(fullest.sum - fullest.device_bytes - needed, 0);
    return fullest;
}

void parts_memory(const struct layout_parts *parts, struct layout_prediction *out)
{
    struct stage_memory memory = fullest_stage(parts);

    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        out->memory_term_bytes[term] = (struct quantity){
            memory.terms[term], deviations[term] * memory.terms[term], PROVENANCE_MODELLED};
    out->memory_bytes =
        (struct quantity){memory.sum, stage_memory_deviation(&memory), PROVENANCE_MODELLED};
    out->cached_bytes = memory.cached;
    out->device_bytes = memory.device_bytes;
    out->host_bytes = memory.host_bytes;
    out->host_memory_bytes = memory.host_memory_bytes;
}

enum status layout_memory(const struct cluster *cluster, const struct model *model,
                          const struct layout *layout, struct layout_prediction *out,
                          struct error *err)
{
    struct layout_parts parts;

    (void)err; /* nothing can fail once layout_check has passed */
    layout_parts_fill(cluster, model, layout, NULL, &parts);
    parts_memory(&parts, out);
    return STATUS_OK;
}

bool layout_fits_at(const struct layout_prediction *prediction, double margin)
{
    const struct quantity *bytes = &prediction->memory_bytes;
    return bytes->value - prediction->cached_bytes + margin * bytes->deviation <=
               prediction->device_bytes &&
           prediction->host_bytes <= prediction->host_memory_bytes;
}

bool layout_fits(const struct layout_prediction *prediction)
{
    return layout_fits_at(prediction, one_sided_95);
}
