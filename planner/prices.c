#include "planner/prices.h"
#include "ir/footprint.h"
#include "ir/mesh.h"
#include <math.h>
#include <stdlib.h>

/* Beyond this many times the largest measured micro-batch, times are not extrapolated. */
enum { EXTRAPOLATION_MAX = 4 };

/* Who asks, and the plan that the strategy asked about is written into. */
struct pricing {
    const struct planner_request *request;
    const struct layer_groups *groups;
    struct prices *prices;
    struct plan trial; /* layers owned */
    /* The first measurement that a strategy of the kind lacked; STATUS_OK: none. */
    struct error missing[LAYER_KIND_COUNT];
};

static double known_or_nan(struct quantity quantity)
{
    return quantity.provenance == PROVENANCE_ABSENT ? NAN : quantity.value;
}

size_t kind_layer(const struct model *model, enum layer_kind kind)
{
    const size_t layers[LAYER_KIND_COUNT] = {
        [LAYER_EMBEDDING] = 0,
        [LAYER_ATTENTION] = 1,
        [LAYER_MLP] = 2,
        [LAYER_HEAD] = model_layer_count(model) - 1,
    };
    return layers[kind];
}

void prices_plan(const struct planner_request *request, const struct mesh *mesh, struct plan *out)
{
    out->model = *request->model;
    out->ranks = mesh->placement.ranks;
    out->threads = mesh->placement.threads;
    out->pipeline = mesh->pipeline;
    out->data_parallel = mesh->data_parallel;
    out->tensor_parallel = mesh->tensor_parallel;
    out->virtual_stages = 1;
    out->schedule = SCHEDULE_1F1B;
    out->gradient_reduction = request->pins.gradients;
    out->global_batch = request->global_batch;
    out->micro_batch = mesh->micro_batch;
    out->micro_batches = mesh->micro_batches;
    out->memory_cap_bytes = request->memory_cap_bytes;
}

/* ---- which strategies pins and plan_validate admit ---- */

static bool pins_allow_mode(const struct pins *pins, enum layer_kind kind,
                            const struct layer_strategy *strategy)
{
    enum precision precision = pins->precision[kind];
    enum recompute recompute = pins->recompute[kind];
    enum attention_kernel attention = pins->attention[kind];
    if (!layer_admits_precision(kind, strategy->precision) ||
        !layer_admits_recompute(kind, strategy->recompute) ||
        !layer_admits_kernel(kind, strategy->attention))
        return false;
    if (!layer_admits_precision(kind, precision))
        precision = PRECISION_FP32;
    if (!layer_admits_recompute(kind, recompute))
        recompute = RECOMPUTE_NONE;
    if (!layer_admits_kernel(kind, attention))
        attention = ATTENTION_PLAIN;
    return (!pins->attention_fixed[kind] || strategy->attention == attention) &&
           (!pins->precision_fixed[kind] || strategy->precision == precision) &&
           (!pins->recompute_fixed[kind] || strategy->recompute == recompute);
}

static bool pins_allow_split(const struct pins *pins, enum layer_kind kind,
                             const struct layer_strategy *strategy)
{
    int t = strategy->tensor_parallel;
    bool sequence = pins->sequence_parallel[kind] && t > 1;
    return (pins->tensor_parallel[kind] == 0 || t == pins->tensor_parallel[kind]) &&
           (!pins->sequence_parallel_fixed[kind] || strategy->sequence_parallel == sequence) &&
           (!pins->zero_fixed[kind] || strategy->zero_stage == pins->zero_stage[kind]);
}

/* ZeRO over one rank is no ZeRO. */
bool prices_admit(const struct prices *prices, const struct layer_group *group,
                  const struct layer_strategy *strategy)
{
    const struct mesh *mesh = &prices->mesh;
    int data_ways = mesh->data_parallel * mesh->tensor_parallel / strategy->tensor_parallel;
    bool has_sense =
        strategy->zero_stage == 0 || data_ways > 1 || group->pins.zero_fixed[group->kind];
    return has_sense && pins_allow_split(&group->pins, group->kind, strategy) &&
           pins_allow_mode(&group->pins, group->kind, strategy);
}

static bool some_group_admits(const struct pricing *pricing, enum layer_kind kind,
                              const struct layer_strategy *strategy)
{
    for (size_t i = 0; i < pricing->groups->count; i++) {
        const struct layer_group *group = &pricing->groups->items[i];
        if (group->kind == kind && prices_admit(pricing->prices, group, strategy))
            return true;
    }
    return false;
}

/* Where nothing is measured at all the cost model says so better. */
static bool is_near_measured(const struct pricing *pricing, const struct layer_part *part)
{
    const struct planner_request *request = pricing->request;
    const struct mesh *mesh = &pricing->prices->mesh;
    char key[LAYER_KEY_BYTES];
    if (request->pins.micro_batch > 0 || request->pins.micro_batches > 0)
        return true;
    layer_part_key(request->model, part, key);
    int64_t sequences = mesh->micro_batch * part->ways / mesh->tensor_parallel;
    int64_t largest = profile_largest_micro_batch(request->profile, key, mesh->placement);
    return largest == 0 || (sequences - 1) / EXTRAPOLATION_MAX < largest;
}

/* What plan_validate asks of one layer. */
static bool split_is_possible(const struct pricing *pricing, enum layer_kind kind,
                              const struct layer_strategy *strategy)
{
    const struct mesh *mesh = &pricing->prices->mesh;
    const struct model *model = pricing->request->model;
    int t = strategy->tensor_parallel;
    const struct layer_part part = {
        .kind = kind, .ways = t, .sequence_parallel = strategy->sequence_parallel};
    struct error ignored;
    if (mesh->micro_batch * t % mesh->tensor_parallel != 0 ||
        layer_part_check(model, &part, &ignored) != STATUS_OK)
        return false;
    if (strategy->sequence_parallel &&
        (t == 1 || mesh->micro_batch * model->seq_length % mesh->tensor_parallel != 0))
        return false;
    return is_near_measured(pricing, &part);
}

/* ---- strategies ---- */

static enum status push_priced(struct priced_kind *kind, const struct priced *item,
                               struct error *err)
{
    if (kind->count == kind->capacity) {
        size_t capacity = kind->capacity > 0 ? 2 * kind->capacity : 32;
        struct priced *grown = realloc(kind->items, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the search space");
        kind->items = grown;
        kind->capacity = capacity;
    }
    kind->items[kind->count++] = *item;
    return STATUS_OK;
}

static size_t spread_index(const struct prices *prices, const struct layer_strategy *strategy)
{
    size_t index = 0;
    while (prices->spreads[index] != strategy_spread(strategy))
        index++;
    return index;
}

/* What the layer at the model's other end has that the price of this one depends on. */
struct other_end {
    bool sequence_parallel;   /* the embedding, beside a tied head */
    enum precision precision; /* of a tied head, beside the embedding */
};

/* A tied head and the embedding are split alike, so the one is priced beside its like. */
static void set_trial(struct plan *trial, enum layer_kind kind,
                      const struct layer_strategy *strategy, const struct other_end *other)
{
    const struct layer_strategy like = {.tensor_parallel = strategy->tensor_parallel,
                                        .sequence_parallel = other->sequence_parallel,
                                        .zero_stage = strategy->zero_stage,
                                        .precision = other->precision};
    trial->layers[0] = trial->layers[trial->layer_count - 1] = like;
    trial->layers[kind_layer(&trial->model, kind)] = *strategy;
}

/* One without measurements is left out and noted. */
static enum status price_strategy(struct pricing *pricing, enum layer_kind kind,
                                  const struct layer_strategy *strategy,
                                  const struct other_end *other, struct error *err)
{
    struct plan *trial = &pricing->trial;
    struct layer_cost cost;
    struct error missing;
    set_trial(trial, kind, strategy, other);
    enum status status = cost_layer(pricing->request->profile, trial,
                                    kind_layer(&trial->model, kind), &cost, &missing);
    if (status != STATUS_OK) {
        if (pricing->missing[kind].status == STATUS_OK)
            pricing->missing[kind] = missing;
        return STATUS_OK;
    }
    const struct layer_price price = layer_cost_price(trial, &cost);
    const struct priced item = {
        .strategy = *strategy,
        .table_sequence = other->sequence_parallel,
        .table_gradients = layer_gradient_precision(trial, kind_layer(&trial->model, kind)),
        .spread = spread_index(pricing->prices, strategy),
        .forward_s = layer_cost_time(&cost, COST_FORWARD).value,
        .backward_s = layer_cost_time(&cost, COST_BACKWARD).value,
        .reduce_s = price.gamma_s,
        .update_s = price.update_s,
        .step_j = price.energy_j,
        .static_bytes = price.static_bytes,
        .inflight_bytes = price.inflight_bytes,
        .scratch_bytes = price.scratch_bytes,
    };
    return push_priced(&pricing->prices->kinds[kind], &item, err);
}

/* The table's gradients can be in bf16, as its head then is. */
static bool table_can_be_narrow(const struct pricing *pricing)
{
    const struct pins *pins = &pricing->request->pins;
    return pricing->request->model->tied_head && pins->gradients == GRADIENTS_BF16 &&
           (!pins->precision_fixed[LAYER_HEAD] || pins->precision[LAYER_HEAD] == PRECISION_BF16);
}

/* What a tied head does with the embedding's table is priced by the embedding's own figures, and
 * the embedding beside each head that changes what it keeps. */
static enum status price_beside(struct pricing *pricing, enum layer_kind kind,
                                const struct layer_strategy *strategy, struct error *err)
{
    struct other_end other = {.sequence_parallel = strategy->sequence_parallel};
    if (kind == LAYER_EMBEDDING && table_can_be_narrow(pricing)) {
        other.precision = PRECISION_BF16;
        TRY(price_strategy(pricing, kind, strategy, &other, err));
        if (pricing->request->pins.precision_fixed[LAYER_HEAD])
            return STATUS_OK;
        other.precision = PRECISION_FP32;
    }
    bool shares_table = kind == LAYER_HEAD && pricing->request->model->tied_head &&
                        pricing->prices->mesh.pipeline == 1 && strategy->tensor_parallel > 1;
    if (!shares_table)
        return price_strategy(pricing, kind, strategy, &other, err);
    other.sequence_parallel = false;
    TRY(price_strategy(pricing, kind, strategy, &other, err));
    other.sequence_parallel = true;
    return price_strategy(pricing, kind, strategy, &other, err);
}

static enum status price_modes(struct pricing *pricing, enum layer_kind kind,
                               struct layer_strategy strategy, struct error *err)
{
    if (!split_is_possible(pricing, kind, &strategy))
        return STATUS_OK;
    for (int mode = 0; mode < RECOMPUTE_COUNT * ATTENTION_KERNEL_COUNT; mode++) {
        for (int precision = 0; precision < PRECISION_COUNT; precision++) {
            strategy.recompute = (enum recompute)(mode % RECOMPUTE_COUNT);
            strategy.attention = (enum attention_kernel)(mode / RECOMPUTE_COUNT);
            strategy.precision = (enum precision)precision;
            if (some_group_admits(pricing, kind, &strategy))
                TRY(price_beside(pricing, kind, &strategy, err));
        }
    }
    return STATUS_OK;
}

/* Simple ones first: of equals the first is taken. */
static enum status price_kind(struct pricing *pricing, enum layer_kind kind, struct error *err)
{
    int widest = pricing->prices->mesh.tensor_parallel;
    for (int t = 1; t <= widest; t++) {
        for (int zero = 0; zero <= 3 && widest % t == 0; zero++) {
            for (int sequence = 0; sequence <= 1; sequence++) {
                const struct layer_strategy strategy = {
                    .tensor_parallel = t, .sequence_parallel = sequence != 0, .zero_stage = zero};
                TRY(price_modes(pricing, kind, strategy, err));
            }
        }
    }
    return STATUS_OK;
}

static enum status refuse_empty(struct pricing *pricing, const struct layer_group *group,
                                struct error *err)
{
    const struct pins *pins = &pricing->request->pins;
    if (pricing->missing[group->kind].status != STATUS_OK) {
        *err = pricing->missing[group->kind];
        return err->status;
    }
    if (group->first_block >= 0 && pins->range_count > 0)
        return error_set(err, STATUS_INVALID, "the pins leave no strategy for the %s of block %lld",
                         layer_kind_name(group->kind), (long long)group->first_block);
    return error_set(err, STATUS_INVALID, "the pins leave no strategy for %s layers",
                     layer_kind_name(group->kind));
}

static bool has_strategy(const struct prices *prices, const struct layer_group *group)
{
    const struct priced_kind *of = &prices->kinds[group->kind];
    for (size_t i = 0; i < of->count; i++)
        if (prices_admit(prices, group, &of->items[i].strategy))
            return true;
    return false;
}

static enum status price_kinds(struct pricing *pricing, struct error *err)
{
    const struct prices *prices = pricing->prices;
    bool some_is_widest = false;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        const struct priced_kind *of = &prices->kinds[kind];
        TRY(price_kind(pricing, (enum layer_kind)kind, err));
        for (size_t i = 0; i < of->count; i++)
            some_is_widest |= of->items[i].strategy.tensor_parallel == prices->mesh.tensor_parallel;
    }
    for (size_t i = 0; i < pricing->groups->count; i++)
        if (!has_strategy(prices, &pricing->groups->items[i]))
            return refuse_empty(pricing, &pricing->groups->items[i], err);
    if (some_is_widest)
        return STATUS_OK;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        if (pricing->missing[kind].status != STATUS_OK) {
            *err = pricing->missing[kind];
            return err->status;
        }
    }
    return error_set(err, STATUS_INVALID, "no layer can be shared by %d ranks",
                     prices->mesh.tensor_parallel);
}

/* ---- between layers ---- */

static bool spread_is_used(const struct prices *prices, size_t spread)
{
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        for (size_t i = 0; i < prices->kinds[kind].count; i++) {
            if (prices->kinds[kind].items[i].spread == spread)
                return true;
        }
    }
    return false;
}

static enum status price_change(struct pricing *pricing, size_t from, size_t to, struct error *err)
{
    struct prices *prices = pricing->prices;
    const struct plan *trial = &pricing->trial;
    const struct layer_strategy before = {.tensor_parallel = prices->spreads[from]};
    const struct layer_strategy behind = {.tensor_parallel = prices->spreads[to]};
    struct reshard_cost reshard;
    struct handover_cost next, wrap;
    TRY(cost_reshard(pricing->request->profile, trial, &before, &behind, &reshard, err));
    prices->changes[from][to] = (struct spread_change){
        .forward_s = reshard.forward_s.value,
        .backward_s = reshard.backward_s.value,
        .step_j = (known_or_nan(reshard.forward_j) + known_or_nan(reshard.backward_j)) *
                  (double)trial->micro_batches * mesh_stage_ranks(trial),
    };
    if (trial->pipeline == 1)
        return STATUS_OK;
    TRY(cost_handover(pricing->request->profile, trial, 0, &before, &behind, &next, err));
    TRY(cost_handover(pricing->request->profile, trial, trial->pipeline - 1, &before, &behind,
                      &wrap, err));
    prices->send_s[from] =
        fmin(prices->send_s[from], next.forward_s.value + next.backward_s.value +
                                       reshard.forward_s.value + reshard.backward_s.value);
    prices->least_forward_send_s =
        fmin(prices->least_forward_send_s, fmin(next.forward_s.value, wrap.forward_s.value));
    prices->least_backward_send_s =
        fmin(prices->least_backward_send_s, fmin(next.backward_s.value, wrap.backward_s.value));
    return STATUS_OK;
}

static enum status price_changes(struct pricing *pricing, struct error *err)
{
    struct prices *prices = pricing->prices;
    bool used[SPREADS_MAX];
    prices->least_forward_send_s = prices->least_backward_send_s = INFINITY;
    for (size_t i = 0; i < prices->spread_count; i++) {
        used[i] = spread_is_used(prices, i);
        prices->send_s[i] = INFINITY;
    }
    for (size_t from = 0; from < prices->spread_count; from++) {
        for (size_t to = 0; to < prices->spread_count; to++) {
            if (used[from] && used[to])
                TRY(price_change(pricing, from, to, err));
        }
    }
    return STATUS_OK;
}

/* ---- beside the layers ---- */

static bool has_precision(const struct prices *prices, enum precision precision)
{
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        for (size_t i = 0; i < prices->kinds[kind].count; i++) {
            if (prices->kinds[kind].items[i].strategy.precision == precision)
                return true;
        }
    }
    return false;
}

static enum status price_process(struct pricing *pricing, struct step_cost *step, struct error *err)
{
    struct prices *prices = pricing->prices;
    struct plan *trial = &pricing->trial;
    for (int precision = PRECISION_COUNT - 1; precision >= 0; precision--) {
        trial->layers[1].precision = (enum precision)precision;
        prices->has_precision[precision] = has_precision(prices, (enum precision)precision);
        TRY(cost_step(pricing->request->profile, trial, step, err));
        prices->process_bytes[precision] = step->process_bytes;
    }
    return STATUS_OK;
}

static enum status price_step(struct pricing *pricing, struct error *err)
{
    enum { RING_BUFFERS = 2 };
    struct prices *prices = pricing->prices;
    struct plan *trial = &pricing->trial;
    struct step_cost step;
    for (size_t i = 0; i < trial->layer_count; i++)
        trial->layers[i] = (struct layer_strategy){.tensor_parallel = 1};
    TRY(price_process(pricing, &step, err));
    prices->other_s = step.other_s.value;
    prices->other_j = known_or_nan(step.other_j);
    prices->idle_w = known_or_nan(step.idle_watts);
    if (step.active_watts.provenance != PROVENANCE_ABSENT)
        prices->idle_w =
            prices->idle_w > step.active_watts.value ? step.active_watts.value : prices->idle_w;
    prices->ring_bytes = RING_BUFFERS * footprint_region_bytes(footprint_ring_bytes(trial));
    prices->narrow_stream_bytes = footprint_region_bytes(footprint_stream_bytes(trial));
    trial->layers[1].tensor_parallel = trial->tensor_parallel;
    prices->wide_stream_bytes = footprint_region_bytes(footprint_stream_bytes(trial));
    return STATUS_OK;
}

/* ---- all ---- */

static enum status list_spreads(struct prices *prices, struct error *err)
{
    int widest = prices->mesh.tensor_parallel;
    for (int spread = 1; spread <= widest; spread++) {
        if (widest % spread != 0)
            continue;
        if (prices->spread_count == SPREADS_MAX)
            return error_set(err, STATUS_INVALID,
                             "%d ranks to share layers divide in too many ways", widest);
        prices->spreads[prices->spread_count++] = spread;
    }
    return STATUS_OK;
}

static enum status price_all(struct pricing *pricing, struct error *err)
{
    TRY(list_spreads(pricing->prices, err));
    TRY(price_kinds(pricing, err));
    TRY(price_changes(pricing, err));
    return price_step(pricing, err);
}

enum status prices_open(struct prices *out, const struct planner_request *request,
                        const struct layer_groups *groups, const struct mesh *mesh,
                        struct error *err)
{
    *out = (struct prices){.mesh = *mesh};
    struct pricing pricing = {.request = request, .groups = groups, .prices = out};
    prices_plan(request, mesh, &pricing.trial);
    pricing.trial.layer_count = model_layer_count(request->model);
    pricing.trial.layers = calloc(pricing.trial.layer_count, sizeof(*pricing.trial.layers));
    if (!pricing.trial.layers)
        return error_memory(err, pricing.trial.layer_count * sizeof(*pricing.trial.layers),
                            "the search space");
    for (size_t i = 0; i < pricing.trial.layer_count; i++)
        pricing.trial.layers[i] = (struct layer_strategy){.tensor_parallel = 1};
    enum status status = price_all(&pricing, err);
    free(pricing.trial.layers);
    if (status != STATUS_OK)
        prices_close(out);
    return status;
}

void prices_close(struct prices *prices)
{
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        free(prices->kinds[kind].items);
    *prices = (struct prices){0};
}
