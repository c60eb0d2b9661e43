#include "planner/layouts.h"

#include "base/stats.h"
#include "costmodel/data_exchange.h"
#include "costmodel/layout_parts.h"
#include "costmodel/predict.h"
#include "ir/model.h"
#include "ir/plan_only.h"
#include <math.h>
#include <stdlib.h>

enum { TENSOR_MAX = 64, CONTEXT_MAX = 64, CHUNKS_MAX = 16, ZERO_STAGES = 4, OFFLOADS = 4 };

/* An enumeration under way: `trial` is filled degree by degree. */
struct enumeration {
    const struct layouts_request *request;
    const struct layout_visitor *visitor;
    struct layout trial;
    int64_t part_shards[ZERO_STAGES]; /* by stage; 0: none, or none that could be better */
    bool has_host;                    /* of every group */
    bool is_whole;
};

struct pricing {
    const struct layouts_request *request;
    struct layout_list *list;
    struct layer_memory *layers;
    uint64_t cap_bytes; /* 0: what the device has */
    double deviations;  /* of memory, that must fit as well */
    unsigned wishes;    /* after the last one */
};

struct layout_pins layout_pins_none(void)
{
    return (struct layout_pins){.sequence_parallel = -1,
                                .zero_stage = -1,
                                .recompute = -1,
                                .schedule = -1,
                                .offload = -1,
                                .fused_attention = -1,
                                .overlap = -1};
}

static bool allows(int64_t pinned, int64_t value)
{
    return pinned == 0 || pinned == value;
}

static bool allows_choice(int pinned, int value)
{
    return pinned < 0 || pinned == value;
}

/* ---- one layout ---- */

static bool fits(const struct pricing *pricing, const struct layout_prediction *prediction)
{
    const struct quantity *bytes = &prediction->memory_bytes;
    return layout_fits_at(prediction, pricing->deviations) &&
           (pricing->cap_bytes == 0 ||
            bytes->value + pricing->deviations * bytes->deviation <= (double)pricing->cap_bytes);
}

/* Without what waits on the host under `offload`. The layout's terms are of its fullest device,
 * which has to hold the rest however the others do. */
static bool could_fit(const struct pricing *pricing, const struct layout *layout,
                      const struct layout_prediction *prediction, int offload)
{
    const struct quantity *terms = prediction->memory_term_bytes;
    double rest = prediction->memory_bytes.value - prediction->cached_bytes;
    if ((offload & OFFLOAD_ACTIVATIONS) != 0)
        rest -= terms[MEMORY_ACTIVATIONS].value;
    if ((offload & OFFLOAD_OPTIMIZER) != 0) {
        rest -= terms[MEMORY_OPTIMIZER].value;
        if (layout->framework != FRAMEWORK_MEGATRON)
            rest -= terms[MEMORY_GRADIENTS].value + terms[MEMORY_PARAMETERS].value +
                    terms[MEMORY_SCRATCH].value;
    }
    return rest <= prediction->device_bytes &&
           (pricing->cap_bytes == 0 || rest <= (double)pricing->cap_bytes);
}

static unsigned away_bit(int offload)
{
    return (unsigned)WISH_QUICKER << offload;
}

/* Nothing more is sent to the host where the layout has room: that costs time only. */
static unsigned wishes_after(const struct pricing *pricing, const struct layout *layout,
                             const struct layout_prediction *prediction, bool has_room)
{
    unsigned out = has_room ? WISH_QUICKER : 0;
    for (int offload = 1; offload < OFFLOADS; offload++) {
        if (pricing->request->saves_memory ||
            (!has_room && could_fit(pricing, layout, prediction, offload)))
            out |= away_bit(offload);
    }
    return out;
}

static unsigned wishes(void *user)
{
    return ((const struct pricing *)user)->wishes;
}

/* Memory first: most of a large model's layouts end there. */
static enum status price(void *user, const struct layout *layout, struct error *err)
{
    struct pricing *pricing = user;
    const struct layouts_request *request = pricing->request;
    struct layout_list *list = pricing->list;
    struct layout_prediction prediction = {.model_flops = 0};
    struct layout_parts parts;

    list->considered++;
    layout_parts_fill(request->cluster, request->model, layout, pricing->layers, &parts);
    parts_memory(&parts, &prediction);
    double held_bytes =
        prediction.memory_bytes.value + pricing->deviations * prediction.memory_bytes.deviation;
    if (held_bytes < list->leanest_bytes) {
        list->leanest_bytes = held_bytes;
        list->leanest = *layout;
    }
    bool has_room = fits(pricing, &prediction);
    pricing->wishes = wishes_after(pricing, layout, &prediction, has_room);
    if (!has_room)
        return STATUS_OK;
    TRY(parts_time(&parts, &prediction, err));
    const struct priced_layout row = priced_layout_of(layout, &prediction);
    return layout_list_add(list, &row, err);
}

/* ---- the choices, outermost last ---- */

/* What the loops below do not ask themselves. */
static bool pins_keep(const struct layout_pins *pins, const struct layout *layout)
{
    int offload = (layout->offload_activations ? OFFLOAD_ACTIVATIONS : 0) |
                  (layout->offload_optimizer ? OFFLOAD_OPTIMIZER : 0);
    return allows(pins->expert, layout->expert) && allows(pins->shard, layout->shard) &&
           allows_choice(pins->schedule, (int)layout->schedule) &&
           allows_choice(pins->offload, offload);
}

static bool is_excluded(const struct layouts_request *request, const struct layout *layout)
{
    const struct layout_exclusion *excluded = request->excluded;
    return excluded && layout_choice_value(layout, excluded->choice) == excluded->value;
}

static enum status visit(struct enumeration *all, unsigned *out, struct error *err)
{
    const struct layouts_request *request = all->request;
    const struct layout_visitor *visitor = all->visitor;
    struct error ignored;
    *out = 0;
    if (!pins_keep(&request->pins, &all->trial))
        return STATUS_OK;
    if (is_excluded(request, &all->trial)) {
        *out = WISH_EVERYTHING; /* of those beside it nothing is known */
        return STATUS_OK;
    }
    if (layout_check(&all->trial, request->model, "layout", &ignored) != STATUS_OK)
        return STATUS_OK;
    if (request->left_out != 0 &&
        (plan_only_choices(&all->trial, request->model) & request->left_out) != 0)
        return STATUS_OK;
    TRY(visitor->visit(visitor->user, &all->trial, err));
    *out = visitor->wishes ? visitor->wishes(visitor->user) : WISH_QUICKER;
    return STATUS_OK;
}

/* Quicker than layout_check, which says the same. */
static bool admits_offload(const struct layout *layout, int offload)
{
    if ((offload & OFFLOAD_ACTIVATIONS) != 0 &&
        !layout_admits_activations_away(layout, layout->recompute))
        return false;
    return (offload & OFFLOAD_OPTIMIZER) == 0 || layout_admits_optimizer_away(layout);
}

static enum status visit_offload(struct enumeration *all, int offload, unsigned *after,
                                 struct error *err)
{
    struct layout *trial = &all->trial;
    trial->offload_activations = (offload & OFFLOAD_ACTIVATIONS) != 0;
    trial->offload_optimizer = (offload & OFFLOAD_OPTIMIZER) != 0;
    enum status status = visit(all, after, err);
    trial->offload_activations = trial->offload_optimizer = false;
    return status;
}

/* *first: what is wished after the first of them, which is the plain one where none is pinned. Of
 * those after it each asks for what all before it still wish: both are away only where neither
 * alone makes room. */
static enum status each_offload(struct enumeration *all, unsigned *first, struct error *err)
{
    int pinned = all->request->pins.offload;
    unsigned left, after;

    TRY(visit_offload(all, pinned < 0 ? 0 : pinned, first, err));
    left = *first;
    if (pinned >= 0) /* no other offload could follow what has no room */
        *first &= WISH_QUICKER;
    for (int offload = 1; offload < OFFLOADS && pinned < 0 && all->has_host; offload++) {
        if ((left & away_bit(offload)) == 0 || !admits_offload(&all->trial, offload))
            continue;
        TRY(visit_offload(all, offload, &after, err));
        if ((after & away_bit(OFFLOADS - 1)) == 0)
            left &= ~away_bit(OFFLOADS - 1);
    }
    return STATUS_OK;
}

/* The one that holds least first. Of one micro-batch gpipe and zb-h1 are 1F1B, of two gpipe is: the
 * same transfers are waited for. */
static size_t schedules_of(const struct enumeration *all, enum schedule out[SCHEDULE_COUNT])
{
    static const enum schedule others[] = {SCHEDULE_GPIPE, SCHEDULE_ZB_H1};
    const struct layout *trial = &all->trial;
    int pinned = all->request->pins.schedule;
    int64_t micro_batches = layout_micro_batches(trial);
    enum schedule plain = trial->virtual_stages > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B;
    size_t count = 0;

    if (allows_choice(pinned, (int)plain) &&
        (trial->pipeline == 1 || framework_has_schedule(trial->framework, plain)))
        out[count++] = plain;
    if (trial->virtual_stages > 1 || trial->pipeline == 1)
        return count;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        int64_t least = others[i] == SCHEDULE_GPIPE ? 3 : 2;
        if (allows_choice(pinned, (int)others[i]) &&
            framework_has_schedule(trial->framework, others[i]) &&
            (micro_batches >= least || pinned >= 0))
            out[count++] = others[i];
    }
    return count;
}

/* What holds least comes first: where it has no room, and offload cannot make any, nothing has. */
static enum status each_variant(struct enumeration *all, struct error *err)
{
    struct layout *trial = &all->trial;
    enum schedule schedules[SCHEDULE_COUNT];
    size_t schedule_count = schedules_of(all, schedules);
    int64_t whole = trial->shard, part = all->part_shards[trial->zero_stage];
    int64_t pinned = all->request->pins.shard;
    unsigned first = 0, ignored;
    bool is_first = true;

    for (size_t i = 0; i < schedule_count; i++) {
        for (int is_part = 0; is_part < (part > 0 ? 2 : 1); is_part++) {
            trial->schedule = schedules[i];
            trial->shard = is_part ? part : whole;
            if (!allows(pinned, trial->shard))
                continue;
            if (is_first || first != 0)
                TRY(each_offload(all, is_first ? &first : &ignored, err));
            is_first = false;
        }
    }
    trial->shard = whole;
    return STATUS_OK;
}

static enum status each_recompute(struct enumeration *all, struct error *err)
{
    for (int recompute = 0; recompute < RECOMPUTE_COUNT; recompute++) {
        if (!allows_choice(all->request->pins.recompute, recompute))
            continue;
        all->trial.recompute = (enum recompute)recompute;
        TRY(each_variant(all, err));
    }
    return STATUS_OK;
}

static enum status each_attention(struct enumeration *all, struct error *err)
{
    for (int fused = 1; fused >= 0; fused--) {
        if (!allows_choice(all->request->pins.fused_attention, fused) ||
            (fused == 0 && !layout_admits_unfused(&all->trial)))
            continue;
        all->trial.fused_attention = fused != 0;
        TRY(each_recompute(all, err));
    }
    return STATUS_OK;
}

static enum status each_sharding(struct enumeration *all, struct error *err)
{
    const struct layout_pins *pins = &all->request->pins;
    int sequences = all->trial.tensor > 1 ? 2 : 1;
    for (int sequence = 0; sequence < sequences; sequence++) {
        for (int zero = 0; zero <= 3; zero++) {
            bool has_nobody = zero > 0 && all->trial.data * all->trial.context == 1;
            if (!framework_has_zero_stage(all->trial.framework, zero) ||
                !allows_choice(pins->sequence_parallel, sequence) ||
                !allows_choice(pins->zero_stage, zero) || (has_nobody && pins->zero_stage < 0))
                continue;
            all->trial.sequence_parallel = sequence != 0;
            all->trial.zero_stage = zero;
            all->trial.shard = zero > 0 ? all->trial.data * all->trial.context : 1;
            TRY(each_attention(all, err));
        }
    }
    return STATUS_OK;
}

/* Stages may be uneven; chunks of a stage are alike, embedding and head counting as a block each
 * where that makes them so. */
static bool divides_blocks(int64_t blocks, int64_t stages, int64_t chunks)
{
    return chunks == 1 || blocks % (stages * chunks) == 0 || (blocks + 2) % (stages * chunks) == 0;
}

static enum status each_chunking(struct enumeration *all, struct error *err)
{
    struct layout *trial = &all->trial;
    int64_t most = trial->pipeline > 1 ? CHUNKS_MAX : 1;
    for (int64_t chunks = 1; chunks <= most; chunks++) {
        bool is_out_of_step = chunks > 1 && layout_micro_batches(trial) % trial->pipeline != 0;
        if (is_out_of_step || !allows(all->request->pins.virtual_stages, chunks) ||
            !divides_blocks(all->request->model->blocks, trial->pipeline, chunks))
            continue;
        trial->virtual_stages = chunks;
        TRY(each_sharding(all, err));
    }
    return STATUS_OK;
}

static enum status each_micro_batch(struct enumeration *all, struct error *err)
{
    int64_t share = all->trial.global_batch / all->trial.data;
    for (int64_t size = 1; size <= share; size++) {
        if (share % size != 0 || !allows(all->request->pins.micro_batch, size) ||
            (all->request->pins.micro_batch == 0 && (size & (size - 1)) != 0))
            continue;
        all->trial.micro_batch = size;
        TRY(each_chunking(all, err));
    }
    return STATUS_OK;
}

/* Only Megatron shares experts out here; a model without them has one way. */
static enum status each_expert(struct enumeration *all, struct error *err)
{
    const struct layout_pins *pins = &all->request->pins;
    int64_t replicas = all->trial.data * all->trial.context;
    int64_t most = all->trial.framework == FRAMEWORK_MEGATRON ? all->request->model->experts : 1;
    for (int64_t ways = 1; ways == 1 || (ways <= most && ways <= replicas); ways++) {
        if (!allows(pins->expert, ways) || replicas % ways != 0 || (ways > 1 && most % ways != 0))
            continue;
        all->trial.expert = ways;
        TRY(each_micro_batch(all, err));
    }
    return STATUS_OK;
}

/* As many devices as the nearest links join, or what is pinned; 0: no such part. */
static int64_t part_shard_of(const struct enumeration *all)
{
    const struct layout *trial = &all->trial;
    const struct node_group *group = &all->request->cluster->groups[0];
    int64_t replicas = trial->data * trial->context, pinned = all->request->pins.shard;
    if (pinned > 0)
        return pinned < replicas && replicas % pinned == 0 ? pinned : 0;
    if (group->tier_count < 2)
        return 0;
    for (int64_t shard = group->tiers[0].devices / trial->tensor; shard > 1; shard--) {
        if (group->tiers[0].devices % (shard * trial->tensor) == 0 && replicas % shard == 0)
            return shard < replicas ? shard : 0;
    }
    return 0;
}

/* A part is no better than the whole where its exchanges take no less on any device, whatever
 * number of parameters they are of: all else is the same, and it holds more. */
static bool part_could_be_better(const struct enumeration *all, int zero, int64_t shard)
{
    const struct layouts_request *request = all->request;
    struct layout whole = all->trial, part;
    whole.zero_stage = zero;
    whole.shard = whole.data * whole.context;
    part = whole;
    part.shard = shard;
    for (size_t i = 0; i < request->cluster->group_count; i++) {
        const struct node_group *group = &request->cluster->groups[i];
        const struct layout_share share = layout_share(group, request->model, &whole);
        const struct data_exchange of_whole = data_exchange(group, &whole);
        const struct data_exchange of_part = data_exchange(group, &part);
        double block = block_parameters(&share, false);
        double most = (double)request->model->blocks * block + 2 * table_parameters(&share);
        if (!exchange_covers(&of_whole, &of_part, &whole, block, most))
            return true;
    }
    return false;
}

static void find_part_shards(struct enumeration *all)
{
    int64_t shard = part_shard_of(all);
    bool is_pinned = all->request->pins.shard > 0;
    for (int zero = 0; zero < ZERO_STAGES; zero++) {
        bool has = shard > 0 && framework_has_part_shard(all->trial.framework, zero) &&
                   (is_pinned || all->request->model->experts > 0 ||
                    part_could_be_better(all, zero, shard));
        all->part_shards[zero] = has ? shard : 0;
    }
}

static enum status each_data(struct enumeration *all, int64_t replicas, struct error *err)
{
    const struct layout_pins *pins = &all->request->pins;
    for (int64_t context = 1; context <= CONTEXT_MAX && context <= replicas; context *= 2) {
        int64_t data = replicas / context;
        if (replicas % context != 0 || all->trial.global_batch % data != 0 ||
            !allows(pins->context, context) || !allows(pins->data, data))
            continue;
        all->trial.context = context;
        all->trial.data = data;
        find_part_shards(all);
        TRY(each_expert(all, err));
        if (limits_reached(&all->request->limits)) {
            all->is_whole = false;
            return STATUS_OK;
        }
    }
    return STATUS_OK;
}

/* What layout_check asks of every layer, before all that would fail it is tried. */
static bool divides_layers(const struct model *model, int64_t ways)
{
    static const enum layer_kind kinds[] = {LAYER_ATTENTION, LAYER_MLP, LAYER_HEAD};
    struct error ignored;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const struct layer_part part = {.kind = kinds[i], .ways = (int)ways};
        if (layer_part_check(model, &part, &ignored) != STATUS_OK)
            return false;
    }
    return true;
}

static enum status each_split(struct enumeration *all, struct error *err)
{
    const struct layout_pins *pins = &all->request->pins;
    struct layout *trial = &all->trial;
    int64_t deepest = all->request->model->blocks;
    for (int64_t stages = 1; stages <= deepest && all->is_whole; stages++) {
        report_progress(&all->request->reporter, "layouts", (size_t)stages - 1, (size_t)deepest);
        if (trial->devices % stages != 0 || !allows(pins->pipeline, stages))
            continue;
        trial->pipeline = stages;
        for (int64_t ways = 1; ways <= TENSOR_MAX && all->is_whole; ways++) {
            if (trial->devices / stages % ways != 0 || !allows(pins->tensor, ways) ||
                !divides_layers(all->request->model, ways))
                continue;
            trial->tensor = ways;
            TRY(each_data(all, trial->devices / stages / ways, err));
        }
    }
    report_progress(&all->request->reporter, "layouts", (size_t)deepest, (size_t)deepest);
    return STATUS_OK;
}

static bool cluster_has_hosts(const struct cluster *cluster)
{
    for (size_t i = 0; i < cluster->group_count; i++) {
        const struct device_type *device = &cluster->groups[i].device;
        if (!(device->host_bytes_s > 0 && device->host_memory_bytes_s > 0) ||
            device->host_memory_bytes == 0)
            return false;
    }
    return true;
}

/* What the software does, or what it is to do instead. */
static bool overlaps(const struct layouts_request *request)
{
    const struct layout_exclusion *excluded = request->excluded;
    bool does = request->overlaps;
    if (request->pins.overlap >= 0)
        return request->pins.overlap != 0;
    return excluded && excluded->choice == LAYOUT_OVERLAP ? excluded->value == 0 : does;
}

enum status layouts_each(const struct layouts_request *request,
                         const struct layout_visitor *visitor, bool *is_whole, struct error *err)
{
    bool does_overlap = overlaps(request);
    struct enumeration all = {
        .request = request,
        .visitor = visitor,
        .is_whole = true,
        .has_host = cluster_has_hosts(request->cluster),
        .trial = {.framework = request->framework,
                  .devices = cluster_devices(request->cluster),
                  .expert = 1,
                  .global_batch = request->global_batch,
                  .arithmetic = request->arithmetic,
                  .fused_cross_entropy = request->fused_cross_entropy,
                  .overlap_gradients = does_overlap,
                  .overlap_parameters = does_overlap,
                  .overlap_tensor = does_overlap},
    };
    const struct layout start = all.trial;
    enum status status = each_split(&all, err);
    for (size_t i = 0; i < request->others.count && status == STATUS_OK; i++) {
        all.trial = start;
        all.trial.arithmetic = request->others.items[i];
        status = each_split(&all, err);
    }
    *is_whole = all.is_whole;
    return status;
}

enum status layouts_price(const struct layouts_request *request, struct layout_list *out,
                          struct error *err)
{
    struct pricing pricing = {
        .request = request,
        .list = out,
        .cap_bytes = request->memory_cap_bytes,
        .deviations = normal_deviations(request->risk > 0 ? request->risk : MEMORY_RISK),
    };
    const struct layout_visitor visitor = {&pricing, price, wishes};
    *out = (struct layout_list){.leanest_bytes = INFINITY};
    pricing.layers = layer_memory_new(request->model); /* without it all is computed afresh */
    enum status status = layouts_each(request, &visitor, &out->is_whole, err);
    layer_memory_free(pricing.layers);
    if (status != STATUS_OK)
        layouts_free(out);
    return status;
}
