#include "costmodel/layout_step.h"

#include "costmodel/device_ops.h"
#include "costmodel/host_exchange.h"
#include "costmodel/layer_bytes.h"
#include "costmodel/pipeline.h"
#include <math.h>
#include <string.h>

/* Bytes an element that Adam moves: the gradient's norm (4), gradient, parameter and two moments
 * read and the last three written (28); and the copy that layouts of 16 bit multiply with. */
static const double adam_bytes = 32, copy_bytes = 2;

double stage_work_s(const struct stage_work *stage)
{
    return stage->pass_s[PASS_FORWARD] + stage->pass_s[PASS_BACKWARD] + stage->gather_s +
           stage->scatter_s + stage->host_s;
}

/* ---- stages ---- */

/* A micro-batch's way to the next stage and its gradient's way back. Each of the t devices sends a
 * part; without sequence parallelism they then put it together. */
static double message_s(const struct node_group *group, const struct layout_share *share)
{
    const struct layout *layout = share->layout;
    const struct tier_group pair = {2, layout->devices / layout->pipeline};
    if (layout->pipeline == 1)
        return 0;
    struct tier_ring ring = tier_ring(group, pair);
    double bytes = share->tokens * (double)share->model->hidden * share->element_bytes;
    double both_s = 2 * ring_message_s(&ring, bytes / (double)layout->tensor);
    if (!layout->sequence_parallel)
        both_s += 2 * ring_all_gather_s(&share->tensor, bytes);
    return both_s;
}

void stage_prices_fill(struct layer_prices *layers, const struct layout *layout,
                       const struct block_kind *kinds, size_t kind_count, struct stage_prices *out)
{
    const struct node_group *group = layers->group;
    struct block_prices spare;

    out->layout = layout;
    out->share = layers->share;
    out->share.layout = layout;
    out->exchange = out->expert_exchange = data_exchange(group, layout);
    if (layout->expert > 1)
        out->expert_exchange = expert_exchange(group, layout);
    out->kind_count = kind_count;
    for (size_t i = 0; i < kind_count; i++) {
        const struct block_prices *block = layer_prices_passes(layers, &kinds[i], &spare);
        memcpy(out->kinds[i], block->pass, sizeof(block->pass));
        out->parameters[i] = block->parameters;
        out->experts[i] = block->experts;
        out->away_bytes[i] = kinds[i].mode.offload ? block->bytes.kept : 0;
    }
    out->message_s = message_s(group, &out->share);
    layer_prices_tables(layers);
    memcpy(out->embedding, layers->embedding, sizeof(out->embedding));
    memcpy(out->head, layers->head, sizeof(out->head));
}

static void add_layers(struct stage_work *stage, const struct pass_time of[PASS_COUNT],
                       double count)
{
    for (int pass = 0; pass < PASS_COUNT; pass++) {
        pass_add(&stage->pass[pass], &of[pass], count);
        stage->pass_s[pass] += count * pass_s(&of[pass]);
    }
}

static void add_passes(const struct stage_prices *prices, const struct stage_entry *entry,
                       struct stage_work *stage)
{
    bool has_both = entry->has_embedding && entry->has_head;

    for (size_t i = 0; i < prices->kind_count; i++) {
        double count = (double)entry->kinds[i];
        stage->matrices += count * prices->parameters[i];
        stage->experts += count * prices->experts[i];
        stage->away_bytes += count * prices->away_bytes[i];
        stage->weights_s += count * prices->kinds[i][PASS_BACKWARD].weight_s;
        if (entry->kinds[i] > 0)
            add_layers(stage, prices->kinds[i], count);
    }
    if (entry->has_embedding)
        add_layers(stage, prices->embedding, 1);
    if (entry->has_head)
        add_layers(stage, prices->head, 1);
    double tables = has_both && prices->share.model->tied_head ? 1 : stage->tables;
    stage->parameters = stage->matrices + tables * table_parameters(&prices->share);
}

/* A block's parameters are gathered while the one before works, its gradients scattered while the
 * next one does; both share the links. The first gathering and the last scattering find nothing to
 * hide behind. FSDP of stage 2 keeps what the forward pass gathered. */
static void add_block_exchange(const struct stage_prices *prices, struct stage_work *stage)
{
    const struct layout *layout = prices->layout;
    double block_count = stage->matrices / stage->blocks;
    double units = stage->blocks + stage->tables * table_parameters(&prices->share) / block_count;
    double gather_s = units * parameter_gather_s(&prices->exchange, block_count);
    double scatter_s = units * gradient_reduce_s(&prices->exchange, layout, block_count);
    double again_s = layout->zero_stage == 3 ? gather_s : 0;
    double hides_s[PASS_COUNT];

    for (int pass = 0; pass < PASS_COUNT; pass++)
        hides_s[pass] = stage->pass_s[pass] * fmax(1 - 1 / units, 0);
    stage->gather_s = exposed_s(gather_s, layout->overlap_parameters ? hides_s[PASS_FORWARD] : 0);
    if (layout->overlap_parameters)
        stage->gather_s += exposed_s(again_s, hides_s[PASS_BACKWARD]);
    else
        stage->gather_s += again_s;
    double left_s =
        layout->overlap_parameters ? hides_s[PASS_BACKWARD] - again_s : hides_s[PASS_BACKWARD];
    stage->scatter_s = exposed_s(scatter_s, layout->overlap_gradients ? fmax(left_s, 0) : 0);
}

/* Gradients of a stage are reduced in buckets while its last backward pass goes on, under zb-h1
 * while the last gradients of weights are computed, and gathered parameters come while the first
 * forward pass does: all but one layer's worth can hide. */
static void add_step_exchange(const struct stage_prices *prices, struct stage_work *stage)
{
    const struct layout *layout = prices->layout;
    double others = stage->parameters - stage->experts;
    double reduce_s = gradient_reduce_s(&prices->exchange, layout, others) +
                      gradient_reduce_s(&prices->expert_exchange, layout, stage->experts);
    double renew_s = layout->zero_stage > 0
                         ? parameter_gather_s(&prices->exchange, others) +
                               parameter_gather_s(&prices->expert_exchange, stage->experts)
                         : 0;
    double hidden = 1 - 1 / stage->blocks;
    double last_s =
        layout->schedule == SCHEDULE_ZB_H1 ? stage->weights_s : stage->pass_s[PASS_BACKWARD];
    double backward_s = layout->overlap_gradients ? hidden * last_s : 0;
    double forward_s = layout->overlap_parameters ? hidden * stage->pass_s[PASS_FORWARD] : 0;

    stage->reduce_s = exposed_s(reduce_s, backward_s);
    stage->renew_s = exposed_s(renew_s, forward_s);
}

/* Parameters whose optimizer state a device owns. */
static double owned_parameters(const struct stage_prices *prices, const struct stage_work *stage)
{
    if (prices->layout->zero_stage == 0)
        return stage->parameters;
    return (stage->parameters - stage->experts) / (double)prices->exchange.shard.ways +
           stage->experts / (double)prices->expert_exchange.shard.ways;
}

/* Activations leave block by block: the last one's way there, and the first one's way back, find
 * nothing to hide behind. */
static void add_host_waits(const struct stage_prices *prices, struct stage_work *stage)
{
    struct host_load load = {.away_bytes = stage->away_bytes,
                             .owned = owned_parameters(prices, stage)};
    for (int pass = 0; pass < PASS_COUNT; pass++)
        load.hides_s[pass] = stage->pass_s[pass] * (1 - 1 / stage->blocks);
    stage->host_s = host_wait_s(&prices->share, &load);
}

static double optimizer_s(const struct stage_prices *prices, const struct stage_work *stage)
{
    const struct layout *layout = prices->layout;
    double owned = owned_parameters(prices, stage);
    bool has_copy = prices->share.element_bytes == copy_bytes;
    double moved = adam_bytes + (has_copy ? copy_bytes : 0);
    double cleared = layout->zero_stage > 1 ? owned : stage->parameters;
    if (layout->offload_optimizer)
        return host_update_s(&prices->share, owned);
    return traffic_s(prices->share.device,
                     owned * moved + cleared * prices->exchange.gradient_bytes);
}

void stage_work_fill(const struct stage_prices *prices, const struct stage_entry *entry,
                     struct stage_work *out)
{
    const struct layout *layout = prices->layout;

    *out = (struct stage_work){
        .count = (double)entry->count,
        .group = entry->group,
        .blocks = (double)entry->blocks,
        .tables = entry->has_embedding + entry->has_head,
        .message_s = prices->message_s,
    };
    add_passes(prices, entry, out);
    if (out->away_bytes > 0 || layout->offload_optimizer)
        add_host_waits(prices, out);
    if (layout->zero_stage == 3 || layout->framework == FRAMEWORK_FSDP)
        add_block_exchange(prices, out);
    else
        add_step_exchange(prices, out);
    out->optimizer_s = optimizer_s(prices, out);
}

static void fill_stages(const struct layout_parts *parts, struct layout_step *step)
{
    const struct stage_list *list = &parts->stages;

    step->stage_count = list->count;
    for (size_t i = 0; i < list->count; i++) {
        size_t group = list->entries[i].group;
        /* stages of a group are neighbours */
        if (i == 0 || group != list->entries[i - 1].group)
            stage_prices_fill(parts->layers[group], step->layout, list->kinds, list->kind_count,
                              &step->prices[group]);
        stage_work_fill(&step->prices[group], &list->entries[i], &step->stages[i]);
    }
}

/* ---- once a step ---- */

/* The two copies of a tied table add up their gradients. */
static double tied_table_s(const struct cluster *cluster, const struct layout_step *step)
{
    const struct layout *layout = step->layout;
    const struct stage_work *first = &step->stages[0];
    const struct layout_share *share = &step->prices[first->group].share;
    if (layout->pipeline == 1 || !share->model->tied_head)
        return 0;
    const struct tier_group ends = {2, layout->devices - layout->devices / layout->pipeline};
    struct tier_ring ring = tier_ring(&cluster->groups[first->group], ends);
    double bytes = step->prices[first->group].exchange.gradient_bytes;
    return ring_all_reduce_s(&ring, table_parameters(share) * bytes);
}

/* The step waits for the stage that has most left of each. */
static void add_exchanges(const struct cluster *cluster, struct layout_step *step)
{
    step->reduce_s = step->gather_s = step->optimizer_s = 0;
    for (size_t i = 0; i < step->stage_count; i++) {
        const struct stage_work *stage = &step->stages[i];
        step->reduce_s = fmax(step->reduce_s, stage->reduce_s);
        step->gather_s = fmax(step->gather_s, stage->renew_s);
        step->optimizer_s = fmax(step->optimizer_s, stage->optimizer_s);
    }
    step->reduce_s += tied_table_s(cluster, step);
}

/* ---- pipeline ---- */

/* Waits for messages, costmodel/pipeline.h's form: interleaving hides all but those of filling and
 * emptying, 1F1B waits for the way to the neighbour and back with all but every p-th micro-batch,
 * and what zb-h1 waits besides is its stages' (stage_span). The slowest of the ways stands for all.
 */
static double transfers_s(const struct layout_step *step)
{
    const struct layout *layout = step->layout;
    double p = (double)layout->pipeline, v = (double)layout->virtual_stages;
    double further = step->micro_batches - 1, both_s = 0;
    for (size_t i = 0; i < step->stage_count; i++)
        both_s = fmax(both_s, step->prices[step->stages[i].group].message_s);
    if (layout->schedule != SCHEDULE_1F1B)
        return (p * v - 1) * both_s;
    return (p - 1 + further - ceil(further / p)) * both_s;
}

static struct stage_span split_span(const struct layout *layout, const struct stage_work *stage)
{
    int64_t stages = layout->pipeline, micro_batches = layout_micro_batches(layout);
    double forward_s = stage->pass_s[PASS_FORWARD];
    const struct split_pass pass = {forward_s, stage_work_s(stage) - forward_s - stage->weights_s,
                                    stage->weights_s};
    return (struct stage_span){
        .fill_s = split_fill_s(&pass, stages, micro_batches),
        .repeat_s = split_repeat_s(&pass, stages, micro_batches) +
                    waits_s(stages, micro_batches, stage->message_s, stage->weights_s),
    };
}

struct stage_span stage_span(const struct layout *layout, const struct stage_work *stage)
{
    double work_s = stage_work_s(stage);
    double fill_s = work_s / (double)layout->virtual_stages;
    if (layout->schedule == SCHEDULE_ZB_H1)
        return split_span(layout, stage);
    return (struct stage_span){fill_s, (double)layout_micro_batches(layout) * work_s - fill_s};
}

static void add_pipeline(struct layout_step *step)
{
    double fill_s = 0, repeat_s = 0;
    for (size_t i = 0; i < step->stage_count; i++) {
        struct stage_span span = stage_span(step->layout, &step->stages[i]);
        fill_s += step->stages[i].count * span.fill_s;
        if (i == 0 || span.repeat_s > repeat_s) {
            repeat_s = span.repeat_s;
            step->slowest = i;
        }
    }
    step->transfer_s = transfers_s(step);
    step->pipeline_s = fill_s + repeat_s + step->transfer_s;
}

void layout_step_join(const struct cluster *cluster, struct layout_step *step)
{
    step->micro_batches = (double)layout_micro_batches(step->layout);
    add_exchanges(cluster, step);
    add_pipeline(step);
    step->step_s = step->pipeline_s + step->reduce_s + step->gather_s + step->optimizer_s;
}

void layout_step(const struct layout_parts *parts, struct layout_step *out)
{
    out->layout = parts->layout;
    fill_stages(parts, out);
    layout_step_join(parts->cluster, out);
}
