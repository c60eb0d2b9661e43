#include "planner/shape.h"

#include "base/stats.h"
#include "costmodel/layout_energy.h"
#include "costmodel/predict.h"
#include "planner/stage_quickest.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- kinds and classes ---- */

static const struct block_pin *pin_of(const struct layout_pins *pins, int64_t block)
{
    for (size_t i = 0; i < pins->block_count; i++)
        if (block >= pins->blocks[i].first && block <= pins->blocks[i].last)
            return &pins->blocks[i];
    return NULL;
}

static bool admits(int pinned, int value)
{
    return pinned < 0 || pinned == value;
}

static bool mode_is_admitted(const struct tailor_request *request, int64_t block,
                             const struct block_mode *mode)
{
    const struct layout_pins *pins = &request->layouts->pins;
    const struct block_pin *own = pin_of(pins, block);
    int recompute = own && own->recompute >= 0 ? own->recompute : pins->recompute;
    int arithmetic = own ? own->arithmetic : -1;
    return admits(recompute, (int)mode->recompute) && admits(arithmetic, (int)mode->arithmetic);
}

/* Of fp32 and tf32 the slower one is for blocks that are pinned to it. */
static bool is_beaten(const struct tailor_request *request, int64_t block,
                      enum arithmetic arithmetic)
{
    const struct block_pin *own = pin_of(&request->layouts->pins, block);
    const struct layout layout = {.arithmetic = ARITHMETIC_FP32};
    if ((own && own->arithmetic >= 0) || !layout_admits_arithmetic(&layout, arithmetic))
        return false;
    for (size_t i = 0; i < request->arithmetics.count; i++) {
        enum arithmetic other = request->arithmetics.items[i];
        if (layout_admits_arithmetic(&layout, other) &&
            cluster_is_slower_in(request->layouts->cluster, arithmetic, other))
            return true;
    }
    return false;
}

/* Every device that stages stand on multiplies in it. */
static bool has_arithmetic(const struct shape *shape, enum arithmetic arithmetic)
{
    const struct cluster *cluster = shape->request->layouts->cluster;
    for (int64_t stage = 0; stage < shape->layout.pipeline; stage++)
        if (!(cluster->groups[shape->stage_groups[stage]].device.peak_flops[arithmetic] > 0))
            return false;
    return true;
}

/* What is recomputed stands first, as Megatron-LM's --recompute-method block has it. */
static size_t kinds_away_or_not(const struct shape *shape, int64_t block, bool away,
                                struct block_kind *out)
{
    static const enum recompute order[] = {RECOMPUTE_FULL, RECOMPUTE_SELECTIVE, RECOMPUTE_NONE};
    const struct tailor_request *request = shape->request;
    bool has_experts = model_block_has_experts(request->layouts->model, block);
    size_t count = 0;

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        if (away && !layout_admits_activations_away(&shape->layout, order[i]))
            continue;
        for (size_t j = 0; j < request->arithmetics.count; j++) {
            const struct block_mode mode = {order[i], request->arithmetics.items[j], away};
            if (layout_admits_arithmetic(&shape->layout, mode.arithmetic) &&
                !is_beaten(request, block, mode.arithmetic) &&
                mode_is_admitted(request, block, &mode) && has_arithmetic(shape, mode.arithmetic))
                out[count++] = (struct block_kind){has_experts, mode};
        }
    }
    return count;
}

/* In a shape with offload all blocks that keep anything send it to the host, or each chooses
 * (request.blocks_offload), unless they are pinned in so many ways that kinds would run out; what
 * is kept on the host stands first, as Megatron-LM's --cpu-offloading-num-layers has it. */
static size_t admitted_kinds(const struct shape *shape, int64_t block,
                             struct block_kind out[BLOCK_KINDS_MAX])
{
    const struct layout_pins *pins = &shape->request->layouts->pins;
    size_t count = 0;
    if (shape->layout.offload_activations)
        count = kinds_away_or_not(shape, block, true, out);
    bool chooses = shape->request->blocks_offload && pins->offload < 0;
    bool all_go = shape->layout.offload_activations && !chooses;
    bool has_none = count == 0 && pins->offload < 0;
    if (has_none || (!all_go && (count == 0 || pins->block_count == 0)))
        count += kinds_away_or_not(shape, block, false, out + count);
    return count;
}

static bool same_mode(const struct block_mode *a, const struct block_mode *b)
{
    return a->recompute == b->recompute && a->arithmetic == b->arithmetic &&
           a->offload == b->offload;
}

static bool is_class(const struct shape *shape, const struct block_class *class,
                     const struct block_kind *kinds, size_t count)
{
    size_t matched = 0;
    for (size_t kind = 0; kind < shape->kind_count; kind++) {
        if ((class->admitted >> kind & 1) == 0)
            continue;
        if (matched == count || !same_mode(&shape->kinds[kind].mode, &kinds[matched].mode))
            return false;
        matched++;
    }
    return matched == count && class->has_experts == kinds[0].has_experts;
}

static size_t twin_of(const struct shape *shape, const struct block_kind *kind)
{
    size_t twin = 0;
    while (twin < shape->kind_count && (shape->kinds[twin].has_experts != kind->has_experts ||
                                        !same_mode(&shape->kinds[twin].mode, &kind->mode)))
        twin++;
    return twin;
}

static enum status add_class(struct shape *shape, const struct block_kind *kinds, size_t count,
                             struct error *err)
{
    struct block_class class = {.has_experts = kinds[0].has_experts};
    if (shape->class_count == BLOCK_CLASSES_MAX || shape->kind_count + count > BLOCK_KINDS_MAX)
        return error_set(err, STATUS_UNSUPPORTED,
                         "blocks are pinned in more than %zu different ways; pin fewer",
                         shape->class_count);
    for (size_t i = 0; i < count; i++) {
        class.admitted |= 1u << shape->kind_count;
        shape->kinds[shape->kind_count] = kinds[i];
        shape->twins[shape->kind_count] = twin_of(shape, &kinds[i]);
        shape->kind_count++;
    }
    shape->classes[shape->class_count++] = class;
    shape->is_mixed = shape->is_mixed || class.has_experts != shape->classes[0].has_experts;
    return STATUS_OK;
}

/* STATUS_INVALID: pins leave a block no mode. */
static enum status classify_item(struct shape *shape, size_t item, struct error *err)
{
    struct block_kind kinds[BLOCK_KINDS_MAX];
    size_t count = admitted_kinds(shape, (int64_t)item * shape->item_blocks, kinds), class = 0;
    if (count == 0)
        return error_set(err, STATUS_INVALID,
                         "block %zu: the pins leave it no mode of recompute and arithmetic",
                         item * shape->item_blocks);
    while (class < shape->class_count && !is_class(shape, &shape->classes[class], kinds, count))
        class ++;
    if (class == shape->class_count)
        TRY(add_class(shape, kinds, count, err));
    shape->item_classes[item] = (unsigned char)class;
    return STATUS_OK;
}

/* All that a block's modes depend on. */
static bool admits_alike(const struct shape *shape, size_t a, size_t b)
{
    const struct layouts_request *layouts = shape->request->layouts;
    int64_t block_a = (int64_t)a * shape->item_blocks, block_b = (int64_t)b * shape->item_blocks;
    return pin_of(&layouts->pins, block_a) == pin_of(&layouts->pins, block_b) &&
           model_block_has_experts(layouts->model, block_a) ==
               model_block_has_experts(layouts->model, block_b);
}

/* Most blocks are as the one before, or, where every second one has experts, as the one before
 * that. */
static enum status classify(struct shape *shape, struct error *err)
{
    for (size_t item = 0; item < shape->items; item++) {
        size_t back = 1;
        while (back <= 2 && back <= item && !admits_alike(shape, item, item - back))
            back++;
        if (back <= 2 && back <= item)
            shape->item_classes[item] = shape->item_classes[item - back];
        else
            TRY(classify_item(shape, item, err));
    }
    return STATUS_OK;
}

/* ---- prices ---- */

/* Elements of a block's matrices, but for those that other experts have alike. */
static double least_matrices(const struct stage_bytes *bytes, size_t kind)
{
    if (!bytes->kinds[kind].has_experts)
        return bytes->matrices[kind];
    double experts = expert_parameters(&bytes->share);
    return bytes->matrices[kind] - experts + experts / bytes->share.experts.local;
}

/* Of kinds with experts and without, one without and of as few matrices as either has of its own.
 */
static void fill_lean_bytes(struct shape *shape, size_t group)
{
    const struct stage_bytes *bytes = &shape->bytes[group];
    struct stage_bytes *lean = &shape->lean_bytes[group];
    struct block_kind kind = shape->kinds[0];

    *lean = *bytes;
    lean->kinds = &shape->lean_kind;
    lean->kind_count = 1;
    if (shape->is_mixed)
        lean->matrices[0] = least_matrices(bytes, 0);
    for (size_t i = 1; i < shape->kind_count; i++) {
        lean->blocks[0].kept = fmin(lean->blocks[0].kept, bytes->blocks[i].kept);
        lean->blocks[0].working = fmin(lean->blocks[0].working, bytes->blocks[i].working);
        lean->late[0] = fmin(lean->late[0], bytes->late[i]);
        if (shape->is_mixed)
            lean->matrices[0] = fmin(lean->matrices[0], least_matrices(bytes, i));
        if (shape->kinds[i].mode.arithmetic != ARITHMETIC_FP8)
            kind.mode.arithmetic = shape->kinds[i].mode.arithmetic;
        kind.mode.offload = kind.mode.offload || shape->kinds[i].mode.offload;
    }
    if (kind.mode.offload) /* of blocks of two kinds, buffers are of one of each */
        lean->blocks[0].kept /= 2;
    kind.has_experts = kind.has_experts && !shape->is_mixed;
    shape->lean_kind = kind;
}

static void price_group(struct shape *shape, size_t group)
{
    const struct layouts_request *request = shape->request->layouts;
    const struct node_group *of = &request->cluster->groups[group];
    struct stage_prices *prices = &shape->space->step.prices[group];
    struct layer_prices layers;

    layer_prices_start(of, request->model, &shape->layout, &layers);
    stage_prices_fill(&layers, &shape->layout, shape->kinds, shape->kind_count, prices);
    stage_bytes_fill(&layers, &shape->layout, shape->kinds, shape->kind_count,
                     &shape->bytes[group]);
    kind_measures_fill(prices, &shape->bytes[group], shape->prices.joule > 0,
                       &shape->measures[group]);
    fill_lean_bytes(shape, group);
    shape->least_device_bytes = fmin(shape->least_device_bytes, (double)of->device.memory_bytes);
    shape->most_device_bytes = fmax(shape->most_device_bytes, (double)of->device.memory_bytes);
}

/* ---- energy ---- */

/* Joules of a stage's devices in a step of so many seconds. */
static double stage_joules(struct shape *shape, const struct stage_work *work, double step_s)
{
    struct layout_step *step = &shape->space->step;
    struct layout_prediction prediction = {.time_s = {.value = step_s}};

    step->stages[0] = *work;
    step->stages[0].count = 1;
    step->stage_count = 1;
    step->reduce_s = work->reduce_s;
    step->gather_s = work->renew_s;
    step->optimizer_s = work->optimizer_s;
    layout_energy(shape->request->layouts->cluster, step, &prediction);
    return prediction.energy_j.value;
}

/* Of a stage that waits. */
static double rest_watts(struct shape *shape, size_t group)
{
    const struct stage_work nothing = {.group = group};
    return stage_joules(shape, &nothing, 1);
}

double stage_once_s(const struct stage_work *work)
{
    return work->reduce_s + work->renew_s + work->optimizer_s;
}

double shape_busy_joules(struct shape *shape, const struct stage_work *work)
{
    double long_s = shape->space->step.micro_batches * stage_work_s(work) + stage_once_s(work);
    return stage_joules(shape, work, long_s) - rest_watts(shape, work->group) * long_s;
}

/* Watts that all devices draw whatever they do. */
static double idle_watts(struct shape *shape)
{
    double watts = 0;
    for (int64_t stage = 0; stage < shape->layout.pipeline; stage++)
        watts += rest_watts(shape, shape->stage_groups[stage]);
    return watts;
}

/* ---- extremes of all modes and groups ---- */

static double extreme(bool slowest, double a, double b)
{
    return slowest ? fmax(a, b) : fmin(a, b);
}

static void merge_passes(const struct pass_time from[PASS_COUNT], bool slowest,
                         struct pass_time into[PASS_COUNT])
{
    const struct pass_time *other = &from[PASS_BACKWARD], *own = &into[PASS_BACKWARD];
    double forward_s = extreme(slowest, pass_s(&from[PASS_FORWARD]), pass_s(&into[PASS_FORWARD]));
    double weight_s = extreme(slowest, other->weight_s, own->weight_s);
    double inputs_s =
        extreme(slowest, pass_s(other) - other->weight_s, pass_s(own) - own->weight_s);
    into[PASS_FORWARD] = (struct pass_time){.product_s = forward_s};
    into[PASS_BACKWARD] =
        (struct pass_time){.product_s = inputs_s + weight_s, .weight_s = weight_s};
}

static void merge_rings(const struct data_exchange *from, struct data_exchange *into)
{
    into->shard.latency_s = fmin(into->shard.latency_s, from->shard.latency_s);
    into->shard.bytes_s = fmax(into->shard.bytes_s, from->shard.bytes_s);
    into->replicas.latency_s = fmin(into->replicas.latency_s, from->replicas.latency_s);
    into->replicas.bytes_s = fmax(into->replicas.bytes_s, from->replicas.bytes_s);
}

size_t class_first_kind(const struct block_class *class)
{
    size_t kind = 0;
    while ((class->admitted >> kind & 1) == 0)
        kind++;
    return kind;
}

/* A class stands at its first kind, which takes the extreme of its modes. */
static void merge_kinds(const struct shape *shape, const struct stage_prices *from, bool slowest,
                        struct stage_prices *into)
{
    for (size_t class = 0; class < shape->class_count; class ++) {
        size_t first = class_first_kind(&shape->classes[class]);
        for (size_t kind = 0; kind < shape->kind_count; kind++) {
            if ((shape->classes[class].admitted >> kind & 1) == 0)
                continue;
            merge_passes(from->kinds[kind], slowest, into->kinds[first]);
            into->away_bytes[first] = fmin(into->away_bytes[first], from->away_bytes[kind]);
        }
    }
}

/* On every group that stages stand on; the host and the optimizer of `group`. */
static void merge_groups(const struct shape *shape, size_t group, bool slowest,
                         struct stage_prices *out)
{
    *out = shape->space->step.prices[group];
    for (int64_t stage = 0; stage < shape->layout.pipeline; stage++) {
        size_t other = shape->stage_groups[stage];
        const struct stage_prices *from = &shape->space->step.prices[other];
        if (stage > 0 && other == shape->stage_groups[stage - 1])
            continue;
        merge_kinds(shape, from, slowest, out);
        merge_passes(from->embedding, slowest, out->embedding);
        merge_passes(from->head, slowest, out->head);
        merge_rings(&from->exchange, &out->exchange);
        merge_rings(&from->expert_exchange, &out->expert_exchange);
        out->message_s = fmin(out->message_s, from->message_s);
    }
}

/* ---- the shape's own bound ---- */

static struct stage_work scaled(const struct stage_work *work, double by)
{
    struct stage_work out = *work;
    for (int pass = 0; pass < PASS_COUNT; pass++) {
        out.pass[pass] = (struct pass_time){0};
        pass_add(&out.pass[pass], &work->pass[pass], by);
        out.pass_s[pass] *= by;
    }
    out.gather_s *= by;
    out.scatter_s *= by;
    out.host_s *= by;
    out.weights_s *= by;
    out.reduce_s *= by;
    out.renew_s *= by;
    out.optimizer_s *= by;
    return out;
}

/* The whole model as one stage. Exposed communication is no more for a whole than for the sum of
 * its parts, and the mean of the stages no more than the largest. */
static struct stage_work whole_model(const struct shape *shape, size_t group, bool slowest)
{
    struct stage_entry entry = {.count = 1,
                                .group = group,
                                .blocks = shape->request->layouts->model->blocks,
                                .has_embedding = true,
                                .has_head = true};
    struct stage_prices prices;
    struct stage_work work;
    merge_groups(shape, group, slowest, &prices);
    for (size_t item = 0; item < shape->items; item++)
        entry.kinds[class_first_kind(&shape->classes[shape->item_classes[item]])] +=
            shape->item_blocks;
    stage_work_fill(&prices, &entry, &work);
    return work;
}

bool shape_waits_for_host(const struct shape *shape)
{
    bool does = shape->layout.offload_optimizer;
    for (size_t kind = 0; kind < shape->kind_count; kind++)
        does = does || shape->kinds[kind].mode.offload;
    return does;
}

/* Likewise what is exchanged once a step, where a stage's micro-batch counts for less than one in
 * the time to fill the pipeline. */
static bool hides_more_than_it_adds(const struct shape *shape)
{
    return shape->layout.virtual_stages > 1 || shape->layout.schedule == SCHEDULE_ZB_H1 ||
           shape_waits_for_host(shape);
}

bool shape_is_interleaved(const struct shape *shape)
{
    return shape->layout.schedule == SCHEDULE_INTERLEAVED && !shape_waits_for_host(shape);
}

void stage_hide_exchanges(const struct stage_work *slowest, struct stage_work *work)
{
    work->gather_s = fmin(work->gather_s, slowest->gather_s);
    work->scatter_s = fmin(work->scatter_s, slowest->scatter_s);
}

void stage_hide_reductions(const struct stage_work *slowest, struct stage_work *work)
{
    work->reduce_s = fmin(work->reduce_s, slowest->reduce_s);
    work->renew_s = fmin(work->renew_s, slowest->renew_s);
}

void shape_hide_most(const struct shape *shape, const struct stage_work *slowest,
                     struct stage_work *work)
{
    if (shape_waits_for_host(shape))
        stage_hide_exchanges(slowest, work);
    if (hides_more_than_it_adds(shape))
        stage_hide_reductions(slowest, work);
}

/* Transfers and tied tables, which are the same for all layouts of the shape. */
static double fixed_s(struct shape *shape, const struct stage_work *whole)
{
    struct layout_step *step = &shape->space->step;
    size_t stages = 0;
    for (int64_t stage = 0; stage < shape->layout.pipeline; stage++) {
        size_t group = shape->stage_groups[stage];
        if (stages > 0 && step->stages[stages - 1].group == group)
            continue;
        step->stages[stages] = *whole;
        step->stages[stages++].group = group;
    }
    step->stage_count = stages;
    layout_step_join(shape->request->layouts->cluster, step);
    return step->transfer_s + step->reduce_s - whole->reduce_s;
}

struct stage_memory shape_lean_stage(const struct shape *shape, size_t stage, size_t items)
{
    size_t group = shape->stage_groups[stage];
    struct stage_memory memory;
    struct stage_entry entry = {
        .first = (int64_t)stage,
        .count = 1,
        .group = group,
        .blocks = (int64_t)items * shape->item_blocks,
        .has_embedding = stage == 0,
        .has_head = (int64_t)stage == shape->layout.pipeline - 1,
    };
    entry.kinds[0] = entry.blocks;
    stage_memory_fill(&shape->lean_bytes[group], &entry, &memory);
    return memory;
}

/* Some stage has as many items as their mean. Of stages without tables the last but one has fewest
 * micro-batches in flight, but not under zb-h1, where gradients of weights may outweigh them. */
static double least_bytes(const struct shape *shape)
{
    size_t stages = shape->layout.pipeline > 1 ? (size_t)shape->layout.pipeline : 1;
    bool is_plain = shape->layout.schedule != SCHEDULE_ZB_H1 && stages > 2;
    size_t items = (shape->items + stages - 1) / stages, begin = is_plain ? stages - 2 : 0;
    double least = INFINITY;
    for (size_t stage = begin; stage < stages; stage++)
        least = fmin(least, shape_lean_stage(shape, stage, items).sum);
    return fmax(least - (shape->most_device_bytes - shape->least_device_bytes), 0);
}

struct layer_joules {
    double kinds[BLOCK_KINDS_MAX], embedding, head;
};

static double layer_joules(struct shape *shape, size_t group, const struct pass_time of[PASS_COUNT])
{
    struct stage_work work = {.group = group};
    for (int pass = 0; pass < PASS_COUNT; pass++) {
        work.pass[pass] = of[pass];
        work.pass_s[pass] = pass_s(&of[pass]);
    }
    return shape_busy_joules(shape, &work);
}

/* The least that each layer takes on any group. */
static struct layer_joules all_layer_joules(struct shape *shape)
{
    struct layer_joules out = {.embedding = INFINITY, .head = INFINITY};
    for (size_t kind = 0; kind < shape->kind_count; kind++)
        out.kinds[kind] = INFINITY;
    for (int64_t stage = 0; stage < shape->layout.pipeline; stage++) {
        size_t group = shape->stage_groups[stage];
        const struct stage_prices *prices = &shape->space->step.prices[group];
        if (stage > 0 && group == shape->stage_groups[stage - 1])
            continue;
        for (size_t kind = 0; kind < shape->kind_count; kind++)
            out.kinds[kind] =
                fmin(out.kinds[kind], layer_joules(shape, group, prices->kinds[kind]));
        out.embedding = fmin(out.embedding, layer_joules(shape, group, prices->embedding));
        out.head = fmin(out.head, layer_joules(shape, group, prices->head));
    }
    return out;
}

/* Every layer where and how it takes least, without exchanges of parameters and the optimizer. */
static double least_joules(struct shape *shape)
{
    const struct layer_joules layers = all_layer_joules(shape);
    double sum = layers.embedding + layers.head;
    for (size_t item = 0; item < shape->items; item++) {
        unsigned admitted = shape->classes[shape->item_classes[item]].admitted;
        double least = INFINITY;
        for (size_t kind = 0; kind < shape->kind_count; kind++)
            if ((admitted >> kind & 1) != 0)
                least = fmin(least, layers.kinds[kind]);
        sum += least * shape->item_blocks;
    }
    return sum;
}

/* Of stages that are the mean of the whole: what they wait for messages falls with what hides it.
 */
static struct stage_span mean_span(const struct shape *shape, const struct stage_work *quickest,
                                   const struct stage_work *slowest)
{
    double part = 1 / (double)shape->layout.pipeline;
    struct stage_work mean = scaled(quickest, part);
    mean.message_s -= part * (slowest->weights_s - quickest->weights_s);
    return stage_span(&shape->layout, &mean);
}

/* On devices of each group that stages stand on, with the links and layers of the best of them; of
 * each part the least. */
static void bound_shape(struct shape *shape)
{
    double p = (double)shape->layout.pipeline, fixed = 0;
    double fill_s = INFINITY, repeat_s = INFINITY, once = INFINITY, shown_once = INFINITY;
    for (int64_t stage = 0; stage < shape->layout.pipeline; stage++) {
        size_t group = shape->stage_groups[stage];
        if (stage > 0 && group == shape->stage_groups[stage - 1])
            continue;
        struct stage_work quickest = whole_model(shape, group, false);
        const struct stage_work slowest = whole_model(shape, group, true);
        double shown_s = stage_once_s(&quickest) / p;
        shape_hide_most(shape, &slowest, &quickest);
        if (shape->layout.schedule == SCHEDULE_ZB_H1) /* see mix_same_split */
            stage_hide_exchanges(&slowest, &quickest);
        if (shape->is_mixed) /* tables count as blocks of a stage's mean size, so that parts may
                                have less to wait for than the whole */
            quickest.gather_s = quickest.scatter_s = 0;
        fill_s = fmin(fill_s, stage_span(&shape->layout, &quickest).fill_s);
        repeat_s = fmin(repeat_s, mean_span(shape, &quickest, &slowest).repeat_s);
        once = fmin(once, stage_once_s(&quickest) / p);
        /* of all stages' means: longer ones repeat more than they hide */
        shown_once =
            fmin(shown_once, shape_is_interleaved(shape) ? shown_s : stage_once_s(&quickest) / p);
        fixed = fixed_s(shape, &quickest);
    }
    shape->fixed = shape->prices.second * fixed;
    shape->least_repeat = shape->prices.second * repeat_s;
    shape->least_others = shape->fixed + shape->prices.second * (fill_s + once);
    if (shape->prices.joule > 0)
        shape->least_others += shape->prices.joule * least_joules(shape);
    if (shape->prices.byte > 0)
        shape->least_others += shape->prices.byte * least_bytes(shape);
    shape->least =
        shape->least_others + shape->least_repeat + shape->prices.second * (shown_once - once);
}

/* ---- opening ---- */

static struct unit_prices unit_prices(const struct tailor_request *request)
{
    const struct layout_weights *weights = request->weights;
    return (struct unit_prices){
        .second = weights->time / request->units.time_s,
        .joule = weights->energy > 0 ? weights->energy / request->units.energy_j : 0,
        .byte = weights->memory / request->units.memory_bytes,
    };
}

static enum status fill_shape(struct shape *shape, struct error *err)
{
    TRY(classify(shape, err));
    shape->prices = unit_prices(shape->request);
    shape->deviations = normal_deviations(
        shape->request->layouts->risk > 0 ? shape->request->layouts->risk : MEMORY_RISK);
    shape->least_device_bytes = INFINITY;
    shape->space->step.layout = &shape->layout;
    shape->space->step.micro_batches = (double)layout_micro_batches(&shape->layout);
    for (int64_t stage = 0; stage < shape->layout.pipeline; stage++) {
        size_t group = shape->stage_groups[stage];
        if (stage == 0 || group != shape->stage_groups[stage - 1])
            price_group(shape, group);
        shape->space->slowest[group] = shape->space->step.prices[group];
        merge_kinds(shape, &shape->space->step.prices[group], true, &shape->space->slowest[group]);
    }
    if (shape->prices.joule > 0)
        shape->prices.second += shape->prices.joule * idle_watts(shape);
    bound_shape(shape);
    return STATUS_OK;
}

static enum status allocate(struct shape *shape, struct error *err)
{
    shape->item_classes = malloc(shape->items);
    if (!shape->item_classes)
        return error_memory(err, shape->items, "the shape of a layout");
    return STATUS_OK;
}

/* Can every block be as it is pinned? */
static bool admits_pins(const struct layouts_request *request, const struct layout *layout)
{
    for (size_t i = 0; i < request->pins.block_count; i++) {
        int arithmetic = request->pins.blocks[i].arithmetic;
        if (arithmetic >= 0 && !layout_admits_arithmetic(layout, (enum arithmetic)arithmetic))
            return false;
    }
    return true;
}

/* Interleaved chunks are alike, so that a stage has the same of every v-th block. */
static bool can_differ(const struct layouts_request *request, const struct layout *layout)
{
    int64_t v = layout->virtual_stages;
    bool is_plain = request->model->experts == 0 || request->model->moe_every == 1;
    bool is_pinned = request->pins.block_count > 0;
    return v == 1 || (request->model->blocks % v == 0 && is_plain && !is_pinned);
}

enum status shape_open(struct shape *out, const struct tailor_request *request,
                       const struct layout *layout, const size_t *stage_groups,
                       struct shape_space *space, bool *is_empty, struct error *err)
{
    *is_empty = !can_differ(request->layouts, layout) || !admits_pins(request->layouts, layout);
    if (*is_empty)
        return STATUS_OK;
    memset(out, 0, sizeof(*out));
    out->space = space;
    out->request = request;
    out->layout = *layout;
    out->item_blocks = (unsigned)layout->virtual_stages;
    out->items = (size_t)(request->layouts->model->blocks / layout->virtual_stages);
    memcpy(out->stage_groups, stage_groups, (size_t)layout->pipeline * sizeof(*stage_groups));
    enum status status = allocate(out, err);
    if (status == STATUS_OK)
        status = fill_shape(out, err);
    if (status != STATUS_OK)
        shape_close(out);
    return status;
}

void shape_close(struct shape *shape)
{
    for (size_t group = 0; group < CLUSTER_GROUPS_MAX; group++) {
        for (size_t class = 0; class < BLOCK_CLASSES_MAX; class ++) {
            struct mix_series *series = &shape->series[group][class];
            for (size_t i = 0; i < series->count; i++)
                mix_set_free(&series->sets[i]);
            free(series->sets);
        }
        front_table_free(shape->fronts[group]);
    }
    free(shape->item_classes);
    free(shape->lists);
    free(shape->options);
    shape->item_classes = NULL;
    shape->lists = NULL;
    shape->options = NULL;
}
