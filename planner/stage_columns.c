#include "planner/stage_columns.h"

#include "base/stats.h"
#include "costmodel/layout_energy.h"
#include "costmodel/predict.h"
#include "planner/mix_chain.h"
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
        for (size_t j = 0; j < request->arithmetic_count; j++) {
            const struct block_mode mode = {order[i], request->arithmetics[j], away};
            if (mode_is_admitted(request, block, &mode) && has_arithmetic(shape, mode.arithmetic))
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
static enum status classify(struct shape *shape, struct error *err)
{
    for (size_t item = 0; item < shape->items; item++) {
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

static double once_s(const struct stage_work *work)
{
    return work->reduce_s + work->renew_s + work->optimizer_s;
}

/* Beyond what the stage draws while it waits, however long the step is. */
static double busy_joules(struct shape *shape, const struct stage_work *work)
{
    double long_s = shape->space->step.micro_batches * stage_work_s(work) + once_s(work);
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

static size_t first_kind(const struct block_class *class)
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
        size_t first = first_kind(&shape->classes[class]);
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
        entry.kinds[first_kind(&shape->classes[shape->item_classes[item]])] += shape->item_blocks;
    stage_work_fill(&prices, &entry, &work);
    return work;
}

/* Does the host's link work beside the others? What one pass hides twice may fall by more than the
 * pass grows. */
static bool waits_for_host(const struct shape *shape)
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
           waits_for_host(shape);
}

/* Its passes hide what they do at no other cost than time. */
static bool is_interleaved(const struct shape *shape)
{
    return shape->layout.schedule == SCHEDULE_INTERLEAVED && !waits_for_host(shape);
}

static void hide_exchanges(const struct stage_work *slowest, struct stage_work *work)
{
    work->gather_s = fmin(work->gather_s, slowest->gather_s);
    work->scatter_s = fmin(work->scatter_s, slowest->scatter_s);
}

static void hide_reductions(const struct stage_work *slowest, struct stage_work *work)
{
    work->reduce_s = fmin(work->reduce_s, slowest->reduce_s);
    work->renew_s = fmin(work->renew_s, slowest->renew_s);
}

/* Where longer passes hide more than they add, what the slowest would leave exposed: a stage costs
 * no less than that, and then it costs no less in slower modes. */
static void hide_most(const struct shape *shape, const struct stage_work *slowest,
                      struct stage_work *work)
{
    if (waits_for_host(shape))
        hide_exchanges(slowest, work);
    if (hides_more_than_it_adds(shape))
        hide_reductions(slowest, work);
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

/* What a stage of so many items holds when every block is in its leanest mode. */
static struct stage_memory lean_stage(const struct shape *shape, size_t stage, size_t items)
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
        least = fmin(least, lean_stage(shape, stage, items).sum);
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
    return busy_joules(shape, &work);
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
        double shown_s = once_s(&quickest) / p;
        hide_most(shape, &slowest, &quickest);
        if (shape->layout.schedule == SCHEDULE_ZB_H1) /* see mix_same_split */
            hide_exchanges(&slowest, &quickest);
        if (shape->is_mixed) /* tables count as blocks of a stage's mean size, so that parts may
                                have less to wait for than the whole */
            quickest.gather_s = quickest.scatter_s = 0;
        fill_s = fmin(fill_s, stage_span(&shape->layout, &quickest).fill_s);
        repeat_s = fmin(repeat_s, mean_span(shape, &quickest, &slowest).repeat_s);
        once = fmin(once, once_s(&quickest) / p);
        /* of all stages' means: longer ones repeat more than they hide */
        shown_once = fmin(shown_once, is_interleaved(shape) ? shown_s : once_s(&quickest) / p);
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
    *is_empty = !can_differ(request->layouts, layout);
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
    }
    free(shape->item_classes);
    free(shape->lists);
    free(shape->options);
    shape->item_classes = NULL;
    shape->lists = NULL;
    shape->options = NULL;
}

/* ---- mixes ---- */

/* Modes that are worth it for one block; others are for none. */
static unsigned kinds_of(const struct mix_set *one_item)
{
    unsigned kinds = 0;
    for (size_t i = 0; i < one_item->count; i++)
        for (size_t kind = 0; kind < BLOCK_KINDS_MAX; kind++)
            kinds |= one_item->items[i].kinds[kind] > 0 ? 1u << kind : 0;
    return kinds;
}

/* Have the limits been reached? */
static bool is_cut(struct shape *shape)
{
    shape->is_cut = shape->is_cut || limits_reached(&shape->request->layouts->limits);
    return shape->is_cut;
}

/* Sets that are larger are not made: mix_chain.h has a few of their mixes. */
static size_t mixes_most(const struct shape *shape)
{
    enum { MIXES_MOST = 5000 };
    return shape->request->mixes_most > 0 ? shape->request->mixes_most : MIXES_MOST;
}

/* No set after one that is too large. */
static enum status series_reach(struct shape *shape, size_t group, size_t class, size_t items,
                                struct error *err)
{
    struct mix_series *series = &shape->series[group][class];
    if (series->count > items)
        return STATUS_OK;
    if (series->count > 0 && series->sets[series->count - 1].count > mixes_most(shape))
        return STATUS_OK;
    struct mix_set *grown = realloc(series->sets, (items + 1) * sizeof(*grown));
    if (!grown)
        return error_memory(err, (items + 1) * sizeof(*grown), "what stages can have");
    series->sets = grown;
    while (series->count <= items && !is_cut(shape)) {
        if (series->count > 0 && grown[series->count - 1].count > mixes_most(shape))
            break;
        struct mix_set *next = &grown[series->count++];
        *next = (struct mix_set){.items = NULL};
        if (series->count == 1)
            TRY(mix_set_begin(next, err));
        else
            TRY(mix_set_extend(&shape->measures[group], next - 1,
                               series->count > 2 ? kinds_of(&grown[1])
                                                 : shape->classes[class].admitted,
                               shape->item_blocks, next, err));
    }
    return STATUS_OK;
}

/* Of all classes together: a series' own set where the stage has one class, else one in `space`,
 * which the caller frees. NULL: the limits were reached. */
static enum status mixes_of(struct shape *shape, size_t group,
                            const uint16_t content[BLOCK_CLASSES_MAX], struct mix_set *space,
                            const struct mix_set **out, struct error *err)
{
    *out = NULL;
    for (size_t class = 0; class < shape->class_count; class ++) {
        struct mix_set joined = {.items = NULL};
        if (content[class] == 0)
            continue;
        TRY(series_reach(shape, group, class, content[class], err));
        if (is_cut(shape)) {
            *out = NULL;
            return STATUS_OK;
        }
        const struct mix_set *own = &shape->series[group][class].sets[content[class]];
        if (*out) {
            enum status status = mix_set_join(&shape->measures[group], *out, own, &joined, err);
            mix_set_free(space);
            *space = joined;
            TRY(status);
        }
        *out = *out ? space : own;
    }
    return STATUS_OK;
}

/* ---- options ---- */

static bool fits(const struct shape *shape, const struct stage_memory *memory)
{
    const struct layouts_request *request = shape->request->layouts;
    double margin = shape->deviations * stage_memory_deviation(memory);
    return memory->sum - memory->cached + margin <= memory->device_bytes &&
           memory->host_bytes <= memory->host_memory_bytes &&
           (request->memory_cap_bytes == 0 ||
            memory->sum + margin <= (double)request->memory_cap_bytes);
}

/* Whatever other stages there are, can `a` replace `b`? */
static bool replaces(const struct unit_prices *prices, const struct stage_option *a,
                     const struct stage_option *b)
{
    double more = a->cost - b->cost + prices->second * fmax(a->repeat_s - b->repeat_s, 0) +
                  prices->second * fmax(a->once_s - b->once_s, 0);
    return more <= 0 && (prices->byte == 0 || a->bytes <= b->bytes);
}

/* Who replaces another has no larger one. */
static double total_cost(const struct unit_prices *prices, const struct stage_option *option)
{
    return option->cost + prices->second * (option->repeat_s + option->once_s);
}

static enum status offer_option(struct shape *shape, struct option_list *list,
                                const struct stage_option *option, struct error *err)
{
    struct stage_option *first = shape->options + list->begin;
    double total = total_cost(&shape->prices, option);
    bool is_leanest = shape->prices.byte > 0 && option->bytes < list->least_bytes;
    size_t kept = list->count;
    for (size_t i = 0; i < list->count && !is_leanest; i++)
        if (replaces(&shape->prices, &first[i], option))
            return STATUS_OK;
    if (!(total > list->most_total)) {
        kept = 0;
        for (size_t i = 0; i < list->count; i++)
            if (!replaces(&shape->prices, option, &first[i]))
                first[kept++] = first[i];
    }
    list->least_bytes = list->count > 0 ? fmin(list->least_bytes, option->bytes) : option->bytes;
    list->most_total = list->count > 0 ? fmax(list->most_total, total) : total;
    shape->option_count = list->begin + kept;
    list->count = kept + 1;
    list->least_repeat_s = fmin(list->least_repeat_s, option->floor.repeat_s);
    if (shape->option_count == shape->option_capacity) {
        size_t capacity = shape->option_capacity > 0 ? 2 * shape->option_capacity : 256;
        struct stage_option *grown = realloc(shape->options, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "what stages can be");
        shape->options = grown;
        shape->option_capacity = capacity;
    }
    shape->options[shape->option_count++] = *option;
    return STATUS_OK;
}

/* Is there a pass in which the device waits for its host? */
static bool is_host_bound(const struct stage_prices *prices)
{
    for (size_t kind = 0; kind < prices->kind_count; kind++)
        for (int pass = 0; pass < PASS_COUNT; pass++) {
            const struct pass_time *of = &prices->kinds[kind][pass];
            if (of->host_s > of->product_s + of->traffic_s + of->exchange_s)
                return true;
        }
    return false;
}

/* Such seconds cost less energy than those of exchanges that they hide. */
static double option_joules(struct shape *shape, const struct stage_work *slowest,
                            const struct stage_work *work)
{
    struct stage_work least = *work;
    if (is_host_bound(&shape->space->step.prices[work->group])) {
        hide_exchanges(slowest, &least);
        hide_reductions(slowest, &least);
    }
    return busy_joules(shape, &least);
}

static struct stage_floor span_costs(const struct shape *shape, const struct stage_work *work)
{
    struct stage_span span = stage_span(&shape->layout, work);
    return (struct stage_floor){shape->prices.second * span.fill_s, span.repeat_s, once_s(work)};
}

/* A stage can only hide so much as it may be longer without repeating too much for any layout below
 * the threshold. */
static void show_rest(const struct shape *shape, const struct stage_work *work,
                      struct stage_work *hidden)
{
    double passes =
        (double)layout_micro_batches(&shape->layout) - 1 / (double)shape->layout.virtual_stages;
    double slack_s = shape->most_repeat_s - stage_span(&shape->layout, work).repeat_s;
    double longer_s = fmax(slack_s, 0) / passes;
    hidden->reduce_s = fmax(hidden->reduce_s, work->reduce_s - longer_s);
    hidden->renew_s = fmax(hidden->renew_s, work->renew_s - longer_s);
}

static struct stage_option price_mix(struct shape *shape, const struct stage_entry *entry,
                                     const struct stage_work *slowest, const uint16_t *kinds,
                                     const struct stage_memory *memory)
{
    struct stage_work work;
    stage_work_fill(&shape->space->step.prices[entry->group], entry, &work);
    double joules = shape->prices.joule > 0 ? option_joules(shape, slowest, &work) : 0;
    struct stage_work hidden = work;
    hide_most(shape, slowest, &hidden);
    if (is_interleaved(shape))
        show_rest(shape, &work, &hidden);
    struct stage_floor floor = span_costs(shape, &hidden);
    double more_bytes = memory->device_bytes - shape->least_device_bytes;
    floor.cost += shape->prices.joule * joules;
    struct stage_option option = {
        .cost = floor.cost,
        .repeat_s = floor.repeat_s,
        .once_s = floor.once_s,
        .bytes = fmax(memory->sum - more_bytes, 0),
        .floor = floor,
    };
    memcpy(option.kinds, kinds, sizeof(option.kinds));
    return option;
}

/* In all but memory. */
static bool costs_as_much(const struct mix *a, const struct mix *b)
{
    static const enum mix_measure costs[] = {MIX_FORWARD,  MIX_BACKWARD, MIX_AWAY,
                                             MIX_PRODUCTS, MIX_TRAFFIC,  MIX_EXCHANGES};
    for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++)
        if (a->measures[costs[i]] < b->measures[costs[i]])
            return false;
    return mix_same_split(a, b);
}

static void set_kinds(const struct shape *shape, const uint16_t *kinds, struct stage_entry *entry)
{
    for (size_t kind = 0; kind < shape->kind_count; kind++)
        entry->kinds[kind] = 0;
    for (size_t kind = 0; kind < shape->kind_count; kind++)
        entry->kinds[shape->twins[kind]] += kinds[kind];
}

/* A content at work. */
struct content {
    struct option_list *list;
    struct stage_entry entry; /* with every class at its first kind */
    struct stage_work slowest;
};

static struct content content_of(const struct shape *shape, struct option_list *list)
{
    struct content out = {.list = list};
    out.entry = (struct stage_entry){
        .first = (int64_t)list->stage,
        .count = 1,
        .group = shape->stage_groups[list->stage],
        .has_embedding = list->stage == 0,
        .has_head = (int64_t)list->stage == shape->layout.pipeline - 1,
    };
    for (size_t class = 0; class < shape->class_count; class ++) {
        int64_t blocks = (int64_t)list->content[class] * shape->item_blocks;
        out.entry.blocks += blocks;
        out.entry.kinds[first_kind(&shape->classes[class])] = blocks;
    }
    stage_work_fill(&shape->space->slowest[out.entry.group], &out.entry, &out.slowest);
    return out;
}

static enum status price_every_mix(struct shape *shape, const struct content *content,
                                   struct error *err)
{
    struct mix_set space = {.items = NULL};
    const struct mix_set *mixes = NULL;
    struct stage_entry entry = content->entry;
    const struct mix *best = NULL; /* the first that fits */
    enum status status = mixes_of(shape, entry.group, content->list->content, &space, &mixes, err);
    for (size_t i = 0; status == STATUS_OK && mixes && i < mixes->count; i++) {
        const struct mix *mix = &mixes->items[i];
        struct stage_memory memory;
        if (best && shape->prices.byte == 0 && costs_as_much(mix, best))
            continue;
        set_kinds(shape, mix->kinds, &entry);
        stage_memory_fill(&shape->bytes[entry.group], &entry, &memory);
        if (!fits(shape, &memory))
            continue;
        const struct stage_option option =
            price_mix(shape, &entry, &content->slowest, mix->kinds, &memory);
        status = offer_option(shape, content->list, &option, err);
        best = best ? best : mix;
    }
    mix_set_free(&space);
    return status;
}

/* ---- options where mixes are too many ---- */

static enum status are_too_many(struct shape *shape, const struct content *content, bool *out,
                                struct error *err)
{
    double count = 1;
    for (size_t class = 0; class < shape->class_count && !is_cut(shape); class ++) {
        const struct mix_series *series = &shape->series[content->entry.group][class];
        size_t items = content->list->content[class];
        if (items == 0)
            continue;
        TRY(series_reach(shape, content->entry.group, class, items, err));
        if (is_cut(shape))
            break;
        count *= items < series->count ? (double)series->sets[items].count : INFINITY;
    }
    *out = count > (double)mixes_most(shape);
    return STATUS_OK;
}

/* A constraint on memory that a chain is built for. */
enum need { NEED_DEVICE, NEED_CAP, NEED_COUNT };

/* The tangent of what a stage needs, with its margin, at `at`. A norm is nowhere below its tangents
 * (Cauchy and Schwarz): u v = ((u + v)^2 - u^2 - v^2) / 2. */
static double tangent_bytes(const struct shape *shape, enum need need,
                            const struct stage_memory *memory, const struct stage_memory *at)
{
    double own = stage_memory_deviation(memory), other = stage_memory_deviation(at);
    struct stage_memory both = *memory;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        both.terms[term] += at->terms[term];
    double joined = stage_memory_deviation(&both);
    double product = (joined * joined - own * own - other * other) / 2;
    double margin = shape->deviations * (other > 0 ? product / other : own);
    return memory->sum + margin - (need == NEED_DEVICE ? memory->cached : 0);
}

/* A stage all of whose blocks are of one kind. What a stage needs is the mean of these over its
 * blocks, or more: what its largest block needs while it works counts once, and so do the buffers
 * of what goes to the host, of at least one block. */
static void uniform_memory(const struct shape *shape, const struct stage_entry *of, size_t kind,
                           struct stage_memory *out)
{
    const struct stage_bytes *bytes = &shape->bytes[of->group];
    struct stage_entry entry = *of;
    memset(entry.kinds, 0, sizeof(entry.kinds));
    entry.kinds[kind] = entry.blocks;
    stage_memory_fill(bytes, &entry, out);
    if (shape->kinds[kind].mode.offload && entry.blocks > 1) {
        out->terms[MEMORY_ACTIVATIONS] -= bytes->blocks[kind].kept;
        out->sum -= bytes->blocks[kind].kept;
    }
}

static void build_chain(const struct shape *shape, const struct content *content, enum need need,
                        const struct stage_memory *at, struct mix_chain *out)
{
    const struct stage_entry *entry = &content->entry;
    const struct kind_measures *measures = &shape->measures[entry->group];
    struct chain_class classes[BLOCK_CLASSES_MAX];
    struct chain_prices prices;
    for (size_t kind = 0; kind < shape->kind_count; kind++) {
        struct stage_memory memory;
        uniform_memory(shape, entry, kind, &memory);
        double share = (double)shape->item_blocks / (double)entry->blocks;
        prices.bytes[kind] = share * tangent_bytes(shape, need, &memory, at);
        prices.seconds[kind] = shape->item_blocks *
                               (measures->of[kind][MIX_FORWARD] + measures->of[kind][MIX_BACKWARD]);
    }
    for (size_t class = 0; class < shape->class_count; class ++)
        classes[class] =
            (struct chain_class){shape->classes[class].admitted, content->list->content[class]};
    mix_chain_build(&prices, classes, shape->class_count, out);
}

/* One of the chain's mixes, in blocks. */
static void chain_entry(const struct shape *shape, const struct content *content,
                        const struct mix_chain *chain, size_t index, struct stage_entry *entry,
                        uint16_t kinds[BLOCK_KINDS_MAX])
{
    mix_chain_at(chain, index, kinds);
    for (size_t kind = 0; kind < BLOCK_KINDS_MAX; kind++)
        kinds[kind] = (uint16_t)(kinds[kind] * shape->item_blocks);
    *entry = content->entry;
    set_kinds(shape, kinds, entry);
}

static bool chain_memory(const struct shape *shape, const struct content *content,
                         const struct mix_chain *chain, size_t index, struct stage_memory *memory)
{
    uint16_t kinds[BLOCK_KINDS_MAX];
    struct stage_entry entry;
    chain_entry(shape, content, chain, index, &entry, kinds);
    stage_memory_fill(&shape->bytes[entry.group], &entry, memory);
    return fits(shape, memory);
}

/* A mix that fits, of which the next does not; false: not even the leanest does. `memory` is its,
 * or the leanest's. */
static bool last_that_fits(const struct shape *shape, const struct content *content,
                           const struct mix_chain *chain, size_t *index,
                           struct stage_memory *memory)
{
    size_t low = 0, high = chain->count - 1;
    struct stage_memory trial;
    *index = 0;
    if (!chain_memory(shape, content, chain, 0, memory))
        return false;
    if (chain_memory(shape, content, chain, high, &trial))
        low = high;
    while (low + 1 < high) {
        size_t middle = (low + high) / 2;
        if (chain_memory(shape, content, chain, middle, &trial))
            low = middle;
        else
            high = middle;
    }
    *index = low;
    return chain_memory(shape, content, chain, low, memory);
}

/* Do chains bound what stages of this shape need and take? Not under zb-h1, where other parts of a
 * micro-batch's work count than their sum and memory is the larger of two stages'; nor where the
 * optimizer's step can take what activations have left. */
static bool chains_bound(const struct shape *shape)
{
    const struct layout *layout = &shape->layout;
    bool shares_scratch = layout->framework == FRAMEWORK_DEEPSPEED &&
                          (layout->arithmetic != ARITHMETIC_BF16 || layout->offload_optimizer);
    return shape->prices.byte == 0 && shape->prices.joule == 0 &&
           layout->schedule != SCHEDULE_ZB_H1 && !shares_scratch;
}

/* Seconds of a micro-batch below which the blocks of no mix come that fits; INFINITY: none does. */
static double least_passes_s(const struct shape *shape, const struct content *content,
                             const struct stage_memory *at)
{
    const double same_share = 1e-12; /* sums in another order differ by less */
    const struct layouts_request *request = shape->request->layouts;
    double most_bytes[] = {
        [NEED_DEVICE] = at->device_bytes, [NEED_CAP] = (double)request->memory_cap_bytes};
    double least_s = 0;
    for (int need = 0; need < NEED_COUNT; need++) {
        struct mix_chain chain;
        if (need == NEED_CAP && request->memory_cap_bytes == 0)
            continue;
        build_chain(shape, content, (enum need)need, at, &chain);
        double s = mix_chain_least_s(&chain, most_bytes[need] * (1 + same_share));
        least_s = fmax(least_s, s * (1 - same_share));
    }
    return least_s;
}

/* What a stage costs whose blocks take so many seconds a micro-batch, or more. Which of them are
 * forward is not known: exchanges hide behind the longest forward pass of any mix, and the backward
 * pass that the shortest leaves. A longer pass hides no more than it adds. */
static struct stage_floor stage_floor(struct shape *shape, const struct content *content,
                                      double passes_s)
{
    const struct stage_entry *entry = &content->entry;
    const struct kind_measures *measures = &shape->measures[entry->group];
    struct stage_prices hiding = shape->space->slowest[entry->group];
    double longest_s = 0, shortest_s = 0;
    struct stage_work work;
    for (size_t class = 0; class < shape->class_count; class ++) {
        size_t first = first_kind(&shape->classes[class]);
        double most = 0, least = INFINITY;
        for (size_t kind = 0; kind < shape->kind_count; kind++) {
            if ((shape->classes[class].admitted >> kind & 1) == 0)
                continue;
            most = fmax(most, measures->of[kind][MIX_FORWARD]);
            least = fmin(least, measures->of[kind][MIX_FORWARD]);
        }
        hiding.kinds[first][PASS_FORWARD] = (struct pass_time){.product_s = most};
        longest_s += (double)entry->kinds[first] * most;
        shortest_s += (double)entry->kinds[first] * least;
    }
    for (size_t class = 0; class < shape->class_count; class ++)
        hiding.kinds[first_kind(&shape->classes[class])][PASS_BACKWARD] =
            (struct pass_time){.product_s = (passes_s - shortest_s) / (double)entry->blocks};
    stage_work_fill(&hiding, entry, &work);
    work.pass_s[PASS_BACKWARD] -= longest_s - shortest_s;
    hide_most(shape, &content->slowest, &work);
    work.host_s = fmin(work.host_s, content->slowest.host_s);
    return span_costs(shape, &work);
}

static enum status price_last(struct shape *shape, const struct content *content,
                              const struct mix_chain *lean, struct error *err)
{
    struct mix_chain chain;
    struct stage_memory memory;
    struct stage_entry entry;
    size_t index;
    uint16_t kinds[BLOCK_KINDS_MAX];
    /* where memory ends the tangent is best */
    last_that_fits(shape, content, lean, &index, &memory);
    build_chain(shape, content, NEED_DEVICE, &memory, &chain);
    bool is_option = last_that_fits(shape, content, &chain, &index, &memory);
    double passes_s = least_passes_s(shape, content, &memory);
    if (!(passes_s < INFINITY))
        return STATUS_OK;
    chain_entry(shape, content, &chain, index, &entry, kinds);
    struct stage_option option = price_mix(shape, &entry, &content->slowest, kinds, &memory);
    option.floor = stage_floor(shape, content, passes_s);
    option.cost = is_option ? option.cost : INFINITY;
    shape->has_floors = true;
    return offer_option(shape, content->list, &option, err);
}

static enum status price_chain(struct shape *shape, const struct content *content,
                               struct error *err)
{
    struct mix_chain chain;
    struct stage_memory memory;
    /* of the slowest mode: its margin stands for all until more is known */
    uniform_memory(shape, &content->entry, first_kind(&shape->classes[0]), &memory);
    build_chain(shape, content, NEED_DEVICE, &memory, &chain);
    if (chains_bound(shape))
        return price_last(shape, content, &chain, err);
    shape->lacks_floors = true;
    for (size_t i = 0; i < chain.count && !is_cut(shape); i++) {
        struct stage_entry entry;
        uint16_t kinds[BLOCK_KINDS_MAX];
        if (!chain_memory(shape, content, &chain, i, &memory))
            continue;
        chain_entry(shape, content, &chain, i, &entry, kinds);
        const struct stage_option option =
            price_mix(shape, &entry, &content->slowest, kinds, &memory);
        TRY(offer_option(shape, content->list, &option, err));
    }
    return STATUS_OK;
}

static enum status price_content(struct shape *shape, struct option_list *list, struct error *err)
{
    const struct content content = content_of(shape, list);
    bool is_chain;
    TRY(are_too_many(shape, &content, &is_chain, err));
    if (is_cut(shape))
        return STATUS_OK;
    return is_chain ? price_chain(shape, &content, err) : price_every_mix(shape, &content, err);
}

static size_t hash_of(size_t stage, const uint16_t content[BLOCK_CLASSES_MAX])
{
    size_t hash = stage;
    for (size_t class = 0; class < BLOCK_CLASSES_MAX; class ++)
        hash = hash * 1000003 + content[class];
    return (hash ^ hash >> 17) % OPTION_HEADS;
}

/* Of items first .. end - 1 on this stage, priced when first asked for. *index: of the list. */
static enum status find_list(struct shape *shape, size_t stage, size_t first, size_t end,
                             size_t *index, struct error *err)
{
    struct option_list wanted = {.stage = stage, .least_repeat_s = INFINITY};
    for (size_t item = first; item < end; item++)
        wanted.content[shape->item_classes[item]]++;
    size_t head = hash_of(stage, wanted.content);
    for (*index = shape->space->heads[head]; *index != LIST_END;
         *index = shape->lists[*index].next) {
        const struct option_list *list = &shape->lists[*index];
        if (list->stage == stage &&
            memcmp(list->content, wanted.content, sizeof(wanted.content)) == 0)
            return STATUS_OK;
    }
    if (shape->list_count == shape->list_capacity) {
        size_t capacity = shape->list_capacity > 0 ? 2 * shape->list_capacity : 256;
        struct option_list *grown = realloc(shape->lists, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "what stages can be");
        shape->lists = grown;
        shape->list_capacity = capacity;
    }
    wanted.begin = shape->option_count;
    wanted.next = shape->space->heads[head];
    *index = shape->list_count++;
    shape->lists[*index] = wanted;
    shape->space->heads[head] = *index;
    return price_content(shape, &shape->lists[*index], err);
}

/* ---- intervals ---- */

static bool lean_fits(const struct shape *shape, size_t stage, size_t items)
{
    const struct stage_memory memory = lean_stage(shape, stage, items);
    return memory.sum - memory.cached <= memory.device_bytes;
}

/* Can the stages hold all items, each as many as fit at their leanest? Most shapes of a large model
 * end here, before anything else of them is priced. */
static bool lean_stages_hold_all(const struct shape *shape)
{
    size_t stages = (size_t)shape->layout.pipeline, held = 0;
    for (size_t stage = 0; stage < stages && held < shape->items; stage++) {
        size_t most = shape->items - (stages - 1), low = 0;
        while (low < most) {
            size_t middle = (low + most + 1) / 2;
            if (lean_fits(shape, stage, middle))
                low = middle;
            else
                most = middle - 1;
        }
        if (low == 0)
            return false;
        held += low;
    }
    return held >= shape->items;
}

/* Which items a stage can begin with, and how many it can have, in layouts below the threshold. */
struct reach {
    size_t low[LAYOUT_STAGES_MAX + 1], high[LAYOUT_STAGES_MAX + 1]; /* first items */
    size_t most[LAYOUT_STAGES_MAX];
};

/* Of the objective, the repeated passes of a stage of so many items, at the quickest. Only one that
 * waits for its host may be quicker with a block more, behind which it hides more. */
static double least_passes(const struct shape *shape, size_t stage, size_t items)
{
    const struct kind_measures *measures = &shape->measures[shape->stage_groups[stage]];
    double least_s = INFINITY, m = (double)layout_micro_batches(&shape->layout);
    if (!waits_for_host(shape))
        return INFINITY;
    if (shape->layout.schedule == SCHEDULE_ZB_H1)
        return 0;
    for (size_t kind = 0; kind < measures->count; kind++)
        least_s = fmin(least_s, measures->of[kind][MIX_FORWARD] + measures->of[kind][MIX_BACKWARD]);
    return shape->prices.second * (m - 1 / (double)shape->layout.virtual_stages) * least_s *
           (double)(items * shape->item_blocks);
}

/* The end of the longest stage from `first`; `first`: not even one item. */
static enum status longest_from(struct shape *shape, size_t stage, size_t first, double threshold,
                                size_t *end, struct error *err)
{
    size_t last = shape->items - ((size_t)shape->layout.pipeline - 1 - stage);
    double others = shape->least_others;
    size_t longer = last == shape->items && stage == 0 ? last : first + 1; /* one stage has all */
    *end = first;
    for (; longer <= last && !is_cut(shape); longer++) {
        size_t index;
        TRY(find_list(shape, stage, first, longer, &index, err));
        const struct option_list *list = &shape->lists[index];
        bool is_empty = list->count == 0;
        bool is_slow = others + shape->prices.second * list->least_repeat_s >= threshold;
        if (is_empty && shape->is_mixed && lean_fits(shape, stage, longer - first))
            continue;
        if (!is_empty && is_slow && others + least_passes(shape, stage, longer - first) < threshold)
            continue;
        if (is_empty || is_slow)
            return STATUS_OK;
        *end = longer;
    }
    return STATUS_OK;
}

static enum status find_reach(struct shape *shape, double threshold, struct reach *out,
                              struct error *err)
{
    size_t stages = (size_t)shape->layout.pipeline;
    out->low[0] = out->high[0] = 0;
    for (size_t stage = 0; stage < stages; stage++) {
        out->high[stage + 1] = out->most[stage] = 0;
        for (size_t first = stage; first <= out->high[stage] && !is_cut(shape); first++) {
            size_t end;
            TRY(longest_from(shape, stage, first, threshold, &end, err));
            if (end > first && end > out->high[stage + 1])
                out->high[stage + 1] = end;
            if (end - first > out->most[stage])
                out->most[stage] = end - first;
        }
        if (out->most[stage] == 0)
            return STATUS_OK;
    }
    out->low[stages] = shape->items;
    for (size_t stage = stages; stage-- > 1;) {
        size_t behind = out->low[stage + 1], most = out->most[stage];
        out->low[stage] = behind > most + stage ? behind - most : stage;
    }
    return STATUS_OK;
}

/* Of one stage its largest repeats and what is done once are its own. */
static void set_costs(const struct shape *shape, double cost, const struct stage_floor *of,
                      struct column *column)
{
    bool is_alone = shape->layout.pipeline == 1;
    double repeat = shape->prices.second * of->repeat_s;
    double once = shape->prices.second * of->once_s;
    column->cost = cost + (is_alone ? repeat + once : 0);
    column->tau = is_alone ? 0 : repeat;
    column->gamma = is_alone ? 0 : once;
}

void shape_take_floors(const struct shape *shape, struct columns *columns)
{
    for (size_t i = 0; i < columns->count; i++) {
        const struct stage_option *of = &shape->options[columns->items[i].label];
        set_costs(shape, of->floor.cost, &of->floor, &columns->items[i]);
    }
}

void shape_take_options(const struct shape *shape, struct columns *columns)
{
    for (size_t i = 0; i < columns->count; i++) {
        const struct stage_option *of = &shape->options[columns->items[i].label];
        const struct stage_floor own = {of->cost, of->repeat_s, of->once_s};
        set_costs(shape, of->cost, &own, &columns->items[i]);
    }
}

static enum status push_columns(struct shape *shape, size_t stage, size_t first, size_t end,
                                struct columns *out, struct error *err)
{
    size_t index;
    TRY(find_list(shape, stage, first, end, &index, err));
    for (size_t i = 0; i < shape->lists[index].count; i++) {
        size_t option = shape->lists[index].begin + i;
        if (out->count == out->capacity) {
            size_t capacity = out->capacity > 0 ? 2 * out->capacity : 1024;
            struct column *grown = realloc(out->items, capacity * sizeof(*grown));
            if (!grown)
                return error_memory(err, capacity * sizeof(*grown), "the planner's columns");
            out->items = grown;
            out->capacity = capacity;
        }
        out->items[out->count++] = (struct column){
            .stage = stage,
            .first = first,
            .end = end,
            .peak_bytes = (uint64_t)shape->options[option].bytes,
            .label = (uint32_t)option,
        };
    }
    return STATUS_OK;
}

enum status shape_columns(struct shape *shape, double threshold, struct columns *out,
                          struct error *err)
{
    size_t stages = (size_t)shape->layout.pipeline;
    struct reach reach;
    if (shape->least >= threshold || shape->items < stages)
        return STATUS_OK;
    if (!lean_stages_hold_all(shape))
        return STATUS_OK;
    shape->most_repeat_s = (threshold - shape->least_others) / shape->prices.second;
    for (size_t i = 0; i < OPTION_HEADS; i++)
        shape->space->heads[i] = LIST_END;
    TRY(find_reach(shape, threshold, &reach, err));
    for (size_t stage = 0; stage < stages; stage++)
        if (reach.most[stage] == 0)
            return STATUS_OK;
    if (reach.high[stages] < shape->items)
        return STATUS_OK;
    for (size_t stage = 0; stage < stages; stage++) {
        for (size_t first = reach.low[stage]; first <= reach.high[stage] && !is_cut(shape);
             first++) {
            size_t end, least = reach.low[stage + 1] > first + 1 ? reach.low[stage + 1] : first + 1;
            TRY(longest_from(shape, stage, first, threshold, &end, err));
            for (size_t last = least; last <= end; last++)
                TRY(push_columns(shape, stage, first, last, out, err));
        }
    }
    shape_take_options(shape, out);
    return STATUS_OK;
}

/* ---- the answer ---- */

static void assign_stage(const struct shape *shape, const struct column *column,
                         struct block_mode *modes)
{
    struct stage_option option = shape->options[column->label];
    for (size_t item = column->first; item < column->end; item++) {
        unsigned admitted = shape->classes[shape->item_classes[item]].admitted;
        for (unsigned i = 0; i < shape->item_blocks; i++) {
            size_t kind = 0;
            while ((admitted >> kind & 1) == 0 || option.kinds[kind] == 0)
                kind++;
            option.kinds[kind]--;
            modes[item * shape->item_blocks + i] = shape->kinds[kind].mode;
        }
    }
}

void shape_assign(const struct shape *shape, const struct columns *columns, const size_t *chosen,
                  struct block_mode *modes, int64_t *stage_blocks)
{
    for (int64_t stage = 0; stage < shape->layout.pipeline; stage++) {
        const struct column *column = &columns->items[chosen[stage]];
        stage_blocks[stage] = (int64_t)(column->end - column->first) * shape->item_blocks;
        assign_stage(shape, column, modes);
    }
}
