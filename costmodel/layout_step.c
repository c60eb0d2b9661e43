#include "costmodel/layout_step.h"

#include "costmodel/data_exchange.h"
#include "costmodel/device_ops.h"
#include <math.h>

/* Bytes an element that Adam moves: the gradient's norm (4), gradient, parameter and two moments
 * read and the last three written (28), the 16-bit copy (2). */
static const double adam_bytes = 34;

double stage_work_s(const struct stage_work *stage)
{
    return stage->pass_s[PASS_FORWARD] + stage->pass_s[PASS_BACKWARD] + stage->gather_s +
           stage->scatter_s;
}

/* ---- stages ---- */

/* Blocks divide evenly, or embedding and head count as one each (Megatron-DeepSpeed's partition by
 * type); else the first stages have one more. */
static void share_blocks(const struct model *model, const struct layout *layout,
                         struct stage_work stages[STAGE_MAKE_COUNT])
{
    int64_t blocks = model->blocks, p = layout->pipeline;
    bool tables_count = blocks % p != 0 && (blocks + 2) % p == 0;
    int64_t most = tables_count ? (blocks + 2) / p : (blocks + p - 1) / p;
    double middle = (double)most;
    double ends = tables_count ? middle - 1 : middle;

    if (p == 1) {
        stages[STAGE_FIRST] =
            (struct stage_work){.count = 1, .blocks = (double)blocks, .tables = 2};
        stages[STAGE_MIDDLE] = stages[STAGE_LAST] = (struct stage_work){0};
        return;
    }
    double last = tables_count ? ends : (double)blocks - middle * (double)(p - 1);
    if (last < 1 && !tables_count)
        last = (double)blocks / (double)p;
    stages[STAGE_FIRST] = (struct stage_work){.count = 1, .blocks = ends, .tables = 1};
    stages[STAGE_MIDDLE] = (struct stage_work){.count = (double)(p - 2), .blocks = middle};
    stages[STAGE_LAST] = (struct stage_work){.count = 1, .blocks = last, .tables = 1};
}

static void stage_passes(struct layout_step *step)
{
    struct pass_time block[PASS_COUNT], embedding[PASS_COUNT], head[PASS_COUNT];
    bool is_one = step->share.layout->pipeline == 1;
    double block_count = block_parameters(&step->share), table = table_parameters(&step->share);

    block_passes(&step->share, block);
    embedding_passes(&step->share, embedding);
    head_passes(&step->share, head);
    for (int make = 0; make < STAGE_MAKE_COUNT; make++) {
        struct stage_work *stage = &step->stages[make];
        double tables = is_one && step->share.model->tied_head ? 1 : stage->tables;
        stage->parameters = stage->blocks * block_count + tables * table;
        for (int pass = 0; pass < PASS_COUNT && stage->count > 0; pass++) {
            pass_add(&stage->pass[pass], &block[pass], stage->blocks);
            stage->pass_s[pass] = stage->blocks * pass_s(&block[pass]);
            if (make == STAGE_FIRST) {
                pass_add(&stage->pass[pass], &embedding[pass], 1);
                stage->pass_s[pass] += pass_s(&embedding[pass]);
            }
            if (make == STAGE_LAST || is_one) {
                pass_add(&stage->pass[pass], &head[pass], 1);
                stage->pass_s[pass] += pass_s(&head[pass]);
            }
        }
    }
}

/* ---- ZeRO 3, FSDP: every micro-batch ---- */

/* A block's parameters are gathered while the one before works, its gradients scattered while the
 * next one does; both share the links. The first gathering and the last scattering find nothing to
 * hide behind. FSDP of stage 2 keeps what the forward pass gathered. */
static void add_block_exchange(const struct data_exchange *exchange, struct layout_step *step)
{
    const struct layout *layout = step->share.layout;
    double block_count = block_parameters(&step->share);
    double block_gather_s = parameter_gather_s(exchange, block_count);
    double block_scatter_s = gradient_reduce_s(exchange, layout, block_count);
    bool gathers_twice = layout->zero_stage == 3;

    for (int make = 0; make < STAGE_MAKE_COUNT; make++) {
        struct stage_work *stage = &step->stages[make];
        if (stage->count == 0)
            continue;
        double units = stage->blocks + stage->tables * table_parameters(&step->share) / block_count;
        double gather_s = units * block_gather_s, scatter_s = units * block_scatter_s;
        double hides_s[PASS_COUNT];
        for (int pass = 0; pass < PASS_COUNT; pass++)
            hides_s[pass] = stage->pass_s[pass] * fmax(1 - 1 / units, 0);
        stage->gather_s =
            exposed_s(gather_s, layout->overlap_parameters ? hides_s[PASS_FORWARD] : 0);
        double again_s = gathers_twice ? gather_s : 0;
        if (layout->overlap_parameters)
            stage->gather_s += exposed_s(again_s, hides_s[PASS_BACKWARD]);
        else
            stage->gather_s += again_s;
        double left_s =
            layout->overlap_parameters ? hides_s[PASS_BACKWARD] - again_s : hides_s[PASS_BACKWARD];
        stage->scatter_s = exposed_s(scatter_s, layout->overlap_gradients ? fmax(left_s, 0) : 0);
    }
}

/* ---- once a step ---- */

/* Gradients of a stage are reduced in buckets while its last backward pass goes on, and gathered
 * parameters come while the first forward pass does: all but one layer's worth can hide. */
static void add_step_exchange(const struct data_exchange *exchange, struct layout_step *step)
{
    const struct layout *layout = step->share.layout;
    const struct stage_work *first = &step->stages[STAGE_FIRST];
    double reduce_s = gradient_reduce_s(exchange, layout, first->parameters);
    double gather_s = layout->zero_stage > 0 ? parameter_gather_s(exchange, first->parameters) : 0;
    double hidden = 1 - 1 / fmax(first->blocks, 1);

    step->reduce_s =
        exposed_s(reduce_s, layout->overlap_gradients ? hidden * first->pass_s[PASS_BACKWARD] : 0);
    step->gather_s =
        exposed_s(gather_s, layout->overlap_parameters ? hidden * first->pass_s[PASS_FORWARD] : 0);
}

/* The two copies of a tied table add up their gradients. */
static double tied_table_s(const struct cluster *cluster, const struct layout_step *step)
{
    const struct layout *layout = step->share.layout;
    if (layout->pipeline == 1 || !step->share.model->tied_head)
        return 0;
    const struct tier_group ends = {2, layout->devices - layout->devices / layout->pipeline};
    struct tier_ring ring = tier_ring(&cluster->groups[0], ends);
    double bytes = layout->framework == FRAMEWORK_DEEPSPEED ? 2 : 4;
    return ring_all_reduce_s(&ring, table_parameters(&step->share) * bytes);
}

static double optimizer_s(const struct data_exchange *exchange, const struct layout_step *step)
{
    const struct layout *layout = step->share.layout;
    double parameters =
        fmax(step->stages[STAGE_FIRST].parameters, step->stages[STAGE_MIDDLE].parameters);
    double owned = layout->zero_stage > 0 ? parameters / (double)exchange->shard.ways : parameters;
    double cleared = layout->zero_stage > 1 ? owned : parameters;
    return traffic_s(step->share.device, owned * adam_bytes + cleared * exchange->gradient_bytes);
}

/* ---- pipeline ---- */

/* Waits for messages, costmodel/pipeline.h's form: interleaving hides all but those of filling and
 * emptying, 1F1B waits for the way to the neighbour and back with all but every p-th micro-batch.
 */
static double transfers_s(const struct cluster *cluster, const struct layout_step *step)
{
    const struct layout *layout = step->share.layout;
    double p = (double)layout->pipeline, v = (double)layout->virtual_stages;
    double further = step->micro_batches - 1;
    if (layout->pipeline == 1)
        return 0;
    const struct tier_group pair = {2, layout->devices / layout->pipeline};
    struct tier_ring ring = tier_ring(&cluster->groups[0], pair);
    double bytes =
        step->share.tokens * (double)step->share.model->hidden * step->share.element_bytes;
    /* each of the t devices sends a part; without sequence parallelism they then put it together */
    double both_s = 2 * ring_message_s(&ring, bytes / (double)layout->tensor);
    if (!layout->sequence_parallel)
        both_s += 2 * ring_all_gather_s(&step->share.tensor, bytes);
    if (layout->schedule != SCHEDULE_1F1B)
        return (p * v - 1) * both_s;
    return (p - 1 + further - ceil(further / p)) * both_s;
}

static void add_pipeline(const struct cluster *cluster, struct layout_step *step)
{
    double sum_s = 0, longest_s = 0;
    for (int make = 0; make < STAGE_MAKE_COUNT; make++) {
        const struct stage_work *stage = &step->stages[make];
        if (stage->count == 0)
            continue;
        double work_s = stage_work_s(stage);
        sum_s += stage->count * work_s;
        if (work_s > longest_s) {
            longest_s = work_s;
            step->slowest = (enum stage_make)make;
        }
    }
    step->transfer_s = transfers_s(cluster, step);
    step->pipeline_s = step->micro_batches * longest_s +
                       (sum_s - longest_s) / (double)step->share.layout->virtual_stages +
                       step->transfer_s;
}

void layout_step(const struct cluster *cluster, const struct model *model,
                 const struct layout *layout, struct layout_step *out)
{
    const struct data_exchange exchange = data_exchange(cluster, layout);

    *out = (struct layout_step){
        .share = layout_share(cluster, model, layout),
        .micro_batches = (double)layout_micro_batches(layout),
    };
    share_blocks(model, layout, out->stages);
    stage_passes(out);
    bool every_pass = layout->zero_stage == 3 || layout->framework == FRAMEWORK_FSDP;
    if (every_pass)
        add_block_exchange(&exchange, out);
    else
        add_step_exchange(&exchange, out);
    add_pipeline(cluster, out);
    out->reduce_s += tied_table_s(cluster, out);
    out->optimizer_s = optimizer_s(&exchange, out);
    out->step_s = out->pipeline_s + out->reduce_s + out->gather_s + out->optimizer_s;
}
