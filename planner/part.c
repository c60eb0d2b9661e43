/* Why the search's time of p stages is never above the simulated one (costmodel/simulate.h). With
 * F_j, B_j the passes of one micro-batch on stage j, T_j = F_j + B_j, c the transfers:
 *
 * 1F1B. Stage j's first backward pass reads what micro-batch 0 leaves behind on its way to the last
 * stage and back: it cannot begin before sum_i F_i + sum_{i > j} B_i and the transfers of that way.
 * Before it, stage j does k_j = min(m, p - j) forward passes, so that m B_j + (m - k_j) F_j are
 * left. Its last action is the last micro-batch's backward pass, which then goes through the stages
 * before j. Every transfer is met once. So stage 0 ends no earlier than
 *
 *     sum_i T_i + sum c + (m - 1) T_j - (k_j - 1) F_j                for every j,
 *
 * which is (m - 1) (tau - warm_up * head) with tau = T_j, head = F_j, warm_up = (k_j - 1) / (m -
 * 1).
 *
 * GPipe. The last stage's first backward pass follows all its forward passes: micro-batch m - 1
 * leaves stage j no earlier than sum_{i <= j} F_i + (m - 1) F_j. The same with warm_up = 0.
 *
 * Interleaved. The same argument with virtual stages: F of all virtual stages, B of the last chunks
 * of the stages behind j, then what stage j has left after the n_{j,c} forward passes of chunk c
 * that its list has before its first backward pass, then B of the first chunks of the stages before
 * j:
 *
 *     sum F + sum_{i > j} B_{i, v - 1} + sum_{i < j} B_{i, 0}
 *     + sum_c (m B_{j, c} + (m - n_{j,c}) F_{j, c}) + all forward transfers + p - 1 backward ones.
 *
 * The two sums of B depend on j; each B_{i, .} is replaced by the least that both its first and its
 * last chunk can take, and the largest of these left out.
 *
 * All ranks then wait for the norm of the gradient, which is not known before stage 0 has reduced
 * its gradients, and for the longest update: + reduce_0 + max_j update_j. Stages idle for what of
 * this they do not work: that energy is a sum over the same terms. What layers of different spread
 * need where two stages meet is charged at its least over the spreads of the second. */
#include "planner/part.h"
#include "costmodel/predict.h"
#include "ir/footprint.h"
#include "ir/mesh.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

struct building {
    const struct part *part;
    const struct prices *prices;
    const struct objective_rates *rates;
    struct part_problem *out;
    double busy_rate; /* objective a second that all stages are at it */
    double idle_j_s;  /* joules a second of one stage that waits */
    double busy_w;    /* joules a second that all stages are at it */
    bool has_budget;  /* of joules */
    size_t strategy_count;
    /* Interleaved: [stages * chunks], owned; by stage first. */
    int64_t *passes_before; /* forward passes before the first backward pass */
    int chunks;
};

struct part part_whole(void)
{
    return (struct part){.zero_most = 3};
}

/* Of strategies: some layer has all T ranks; something computes in 16 bit. */
enum { TRAIT_WIDEST = 1, TRAIT_16_BIT = 2 };

/* ---- which strategies ---- */

static bool counts_energy(const struct building *building)
{
    return building->rates->per_joule > 0 || building->has_budget;
}

static bool admits(const struct building *building, const struct layer_group *group,
                   const struct priced *item)
{
    const struct part *part = building->part;
    const struct layer_strategy *strategy = &item->strategy;
    bool is_table = group->kind == LAYER_EMBEDDING || group->kind == LAYER_HEAD;
    if (!prices_admit(building->prices, group, strategy))
        return false;
    if (part->split_is_fixed && is_table &&
        (strategy->tensor_parallel != part->table_tensor_parallel ||
         strategy->zero_stage != part->table_zero ||
         (building->out->space->request->model->tied_head &&
          item->table_gradients != part->table_gradients) ||
         (building->prices->mesh.pipeline == 1 && item->table_sequence != part->table_sequence)))
        return false;
    if (strategy->zero_stage > part->zero_most)
        return false;
    if (part->streams == PART_STREAMS_ALIKE && item->spread != part->spread)
        return false;
    if (strategy->precision != PRECISION_FP32 &&
        ((part->precision_is_fixed && !part->has_16) ||
         (strategy->precision != building->out->shape->half &&
          !group->pins.precision_fixed[group->kind])))
        return false;
    return !counts_energy(building) || !isnan(item->step_j);
}

/* What a layer does not idle, in joules of a step: its own work less what idling would have taken.
 */
static double net_step_j(const struct building *building, const struct priced *item)
{
    double m = (double)building->prices->mesh.micro_batches;
    double work_s = m * (item->forward_s + item->backward_s) + item->reduce_s + item->update_s;
    return item->step_j - building->idle_j_s * work_s;
}

/* In the terms of planner/problem.h, at a place where the warm-up does `passes` forward passes and
 * `in_flight` micro-batches are alive; both are used where stages are cut in advance. */
struct place {
    int64_t passes, in_flight;
};

static struct strategy make_strategy(const struct building *building, const struct priced *item,
                                     const struct place *place)
{
    const struct prices *prices = building->prices;
    double m = (double)prices->mesh.micro_batches;
    double both_s = item->forward_s + item->backward_s;
    struct strategy out = {
        .cost = building->busy_rate * (place ? item->forward_s : both_s),
        .tau = both_s,
        .head = place ? (double)place->passes / m * item->forward_s : item->forward_s,
        .gamma = item->update_s,
        .first_cost = building->busy_rate * item->reduce_s,
        .send_cost = building->busy_rate * prices->send_s[item->spread],
        .group = item->spread,
    };
    if (item->strategy.tensor_parallel == prices->mesh.tensor_parallel)
        out.traits |= TRAIT_WIDEST;
    if (item->strategy.precision != PRECISION_FP32)
        out.traits |= TRAIT_16_BIT;
    if (prices->mesh.pipeline == 1 || place)
        out.send_cost = 0;
    if (building->rates->per_joule > 0)
        out.cost += building->rates->per_joule * net_step_j(building, item);
    if (building->has_budget) {
        out.spend =
            building->busy_w * (place ? item->forward_s : both_s) + net_step_j(building, item);
        out.first_spend = building->busy_w * item->reduce_s;
        out.send_spend = prices->mesh.pipeline == 1 || place
                             ? 0
                             : building->busy_w * prices->send_s[item->spread];
    }
    if (!building->out->bytes_matter)
        return out;
    out.static_bytes = item->static_bytes;
    out.inflight_bytes = item->inflight_bytes;
    out.scratch_bytes = item->scratch_bytes;
    if (place) {
        out.static_bytes += (uint64_t)place->in_flight * item->inflight_bytes;
        out.inflight_bytes = 0;
    }
    return out;
}

/* Is a at least as good as b wherever b could stand? */
static bool dominates(unsigned needs, const struct strategy *a, const struct strategy *b)
{
    return a->group == b->group && (needs & b->traits & ~a->traits) == 0 && a->cost <= b->cost &&
           a->tau <= b->tau && a->tau - a->head <= b->tau - b->head && a->gamma <= b->gamma &&
           a->first_cost <= b->first_cost && a->send_cost <= b->send_cost && a->spend <= b->spend &&
           a->first_spend <= b->first_spend && a->send_spend <= b->send_spend &&
           a->static_bytes <= b->static_bytes && a->inflight_bytes <= b->inflight_bytes &&
           a->scratch_bytes <= b->scratch_bytes;
}

/* Add it to the `count` at `first` unless one of them is as good; drop what it makes superfluous.
 */
static size_t keep_undominated(struct part_problem *out, size_t first, size_t count,
                               const struct strategy *strategy, const struct priced *origin)
{
    unsigned needs = out->problem.needs;
    size_t kept = first;
    for (size_t i = first; i < first + count; i++) {
        if (dominates(needs, &out->strategies[i], strategy))
            return count;
    }
    for (size_t i = first; i < first + count; i++) {
        if (dominates(needs, strategy, &out->strategies[i]))
            continue;
        out->strategies[kept] = out->strategies[i];
        out->origins[kept++] = out->origins[i];
    }
    out->strategies[kept] = *strategy;
    out->origins[kept++] = origin;
    return kept - first;
}

/* False: no strategy is left. */
static bool fill_class(struct building *building, size_t class, const struct layer_group *group,
                       const struct place *place)
{
    const struct priced_kind *of = &building->prices->kinds[group->kind];
    struct part_problem *out = building->out;
    size_t first = building->strategy_count, count = 0;
    for (size_t i = 0; i < of->count; i++) {
        if (!admits(building, group, &of->items[i]))
            continue;
        const struct strategy strategy = make_strategy(building, &of->items[i], place);
        count = keep_undominated(out, first, count, &strategy, &of->items[i]);
    }
    out->classes[class].strategy_count = count;
    out->classes[class].strategies = &out->strategies[first];
    building->strategy_count += count;
    return count > 0;
}

/* ---- free boundaries ---- */

static bool fill_groups(struct building *building)
{
    struct part_problem *out = building->out;
    const struct layer_groups *groups = &out->space->groups;
    const struct mesh *mesh = &building->prices->mesh;
    const struct schedule_shape schedule = {out->shape->schedule, mesh->pipeline, 1,
                                            mesh->micro_batches};
    for (size_t l = 0; l < out->problem.layer_count; l++) {
        out->layers[l] = l;
        out->layer_class[l] = groups->of_layer[l];
    }
    for (int stage = 0; stage < mesh->pipeline; stage++) {
        int64_t passes = schedule_in_flight(&schedule, stage, 0);
        out->rules[stage] = (struct stage_rule){.in_flight = (uint64_t)passes};
        if (schedule.kind == SCHEDULE_1F1B && schedule.micro_batches > 1)
            out->rules[stage].warm_up = (double)(passes - 1) / (double)(schedule.micro_batches - 1);
    }
    out->problem.class_count = groups->count;
    for (size_t i = 0; i < groups->count; i++) {
        if (!fill_class(building, i, &groups->items[i], NULL))
            return false;
    }
    return true;
}

/* ---- boundaries cut in advance ---- */

static struct schedule_shape interleaved_shape(const struct building *building)
{
    const struct mesh *mesh = &building->prices->mesh;
    return (struct schedule_shape){SCHEDULE_INTERLEAVED, mesh->pipeline,
                                   building->out->shape->virtual_stages, mesh->micro_batches};
}

static enum status count_passes(struct building *building, struct error *err)
{
    const struct schedule_shape schedule = interleaved_shape(building);
    size_t cells = (size_t)schedule.stages * (size_t)schedule.chunks;
    building->chunks = schedule.chunks;
    building->passes_before = calloc(cells, sizeof(*building->passes_before));
    if (!building->passes_before)
        return error_memory(err, cells * sizeof(*building->passes_before), "the search");
    for (int stage = 0; stage < schedule.stages; stage++) {
        struct schedule_action *actions;
        size_t count;
        TRY(schedule_actions(&schedule, stage, &actions, &count, err));
        for (size_t i = 0; i < count && actions[i].is_forward; i++)
            building->passes_before[stage * schedule.chunks + actions[i].chunk]++;
        free(actions);
    }
    return STATUS_OK;
}

/* Stage by stage, so that a stage's chunks are one interval of the problem's chain. */
static void order_layers(struct building *building)
{
    struct part_problem *out = building->out;
    const struct model *model = out->space->request->model;
    int stages = building->prices->mesh.pipeline;
    size_t place = 0;
    for (int stage = 0; stage < stages; stage++) {
        for (int chunk = 0; chunk < building->chunks; chunk++) {
            int virtual_stage = chunk * stages + stage;
            for (size_t l = 0; l < out->problem.layer_count; l++) {
                if (interleaved_stage(model, l, stages * building->chunks) != virtual_stage)
                    continue;
                out->virtual_stages[place] = virtual_stage;
                out->layers[place++] = l;
            }
        }
        out->rules[stage] = (struct stage_rule){.in_flight = 1, .warm_up = 1, .end = place};
    }
}

/* A class for each group in each virtual stage, and one more for what its first layer is. */
static bool fill_places(struct building *building)
{
    struct part_problem *out = building->out;
    const struct layer_groups *groups = &out->space->groups;
    const struct schedule_shape schedule = interleaved_shape(building);
    size_t begin = 0;
    for (size_t at = 0; at < out->problem.layer_count; at++) {
        int virtual_stage = out->virtual_stages[at];
        size_t group = groups->of_layer[out->layers[at]];
        bool is_first = at == 0 || out->virtual_stages[at - 1] != virtual_stage;
        begin = is_first ? at : begin;
        size_t like = begin + 1;
        while (like < at && groups->of_layer[out->layers[like]] != group)
            like++;
        if (!is_first && like < at) {
            out->layer_class[at] = out->layer_class[like];
            continue;
        }
        int stage = virtual_stage % schedule.stages, chunk = virtual_stage / schedule.stages;
        const struct place place = {
            .passes = building->passes_before[stage * schedule.chunks + chunk],
            .in_flight = schedule_in_flight(&schedule, stage, chunk),
        };
        size_t class = out->problem.class_count++;
        out->layer_class[at] = class;
        out->classes[class].follows_nothing = is_first;
        if (!fill_class(building, class, &groups->items[group], &place))
            return false;
    }
    return true;
}

/* The least that a chunk's backward passes of one micro-batch can take. */
static double least_backward_s(const struct building *building, int virtual_stage)
{
    const struct part_problem *out = building->out;
    double sum_s = 0;
    for (size_t at = 0; at < out->problem.layer_count; at++) {
        const struct layer_groups *groups = &out->space->groups;
        const struct layer_group *group = &groups->items[groups->of_layer[out->layers[at]]];
        const struct priced_kind *of = &building->prices->kinds[group->kind];
        double least_s = INFINITY;
        if (out->virtual_stages[at] != virtual_stage)
            continue;
        for (size_t i = 0; i < of->count; i++) {
            if (admits(building, group, &of->items[i]))
                least_s = fmin(least_s, of->items[i].backward_s);
        }
        sum_s += least_s;
    }
    return sum_s;
}

/* What of the interleaved bound is the same for all plans. */
static double interleaved_fixed_s(const struct building *building)
{
    const struct prices *prices = building->prices;
    int stages = prices->mesh.pipeline, virtual_stages = stages * building->chunks;
    double sum_s = 0, most_s = 0;
    for (int stage = 0; stage < stages; stage++) {
        double least_s = fmin(least_backward_s(building, stage),
                              least_backward_s(building, virtual_stages - stages + stage));
        sum_s += least_s;
        most_s = fmax(most_s, least_s);
    }
    return sum_s - most_s + (virtual_stages - 1) * prices->least_forward_send_s +
           (stages - 1) * prices->least_backward_send_s;
}

/* ---- the whole ---- */

static void fill_transitions(struct building *building)
{
    const struct prices *prices = building->prices;
    struct part_problem *out = building->out;
    double m = (double)prices->mesh.micro_batches, most_passes = 0;
    size_t count = prices->spread_count;
    for (int i = 0; building->passes_before && i < prices->mesh.pipeline * building->chunks; i++)
        most_passes = fmax(most_passes, (double)building->passes_before[i]);
    for (size_t i = 0; i < count * count; i++) {
        const struct spread_change *change = &prices->changes[i / count][i % count];
        double both_s = change->forward_s + change->backward_s;
        struct transition *to = &out->transitions[i];
        *to = (struct transition){
            .cost = building->busy_rate * (building->passes_before ? change->forward_s : both_s),
            .tau = both_s,
            .head =
                building->passes_before ? most_passes / m * change->forward_s : change->forward_s,
        };
        if (building->rates->per_joule > 0)
            to->cost +=
                building->rates->per_joule * (change->step_j - building->idle_j_s * m * both_s);
        if (building->has_budget)
            to->spend = building->busy_w * (building->passes_before ? change->forward_s : both_s) +
                        change->step_j - building->idle_j_s * m * both_s;
    }
    out->problem.transitions = out->transitions;
    out->problem.group_count = count;
}

static uint64_t charged_bytes(const struct building *building)
{
    const struct part *part = building->part;
    const struct prices *prices = building->prices;
    enum { PIPELINE_STREAMS = 8 };
    bool is_pipeline = prices->mesh.pipeline > 1;
    bool is_wide = part->streams == PART_STREAMS_MIXED ||
                   (part->streams == PART_STREAMS_ALIKE && prices->spreads[part->spread] > 1);
    uint64_t count = is_pipeline ? PIPELINE_STREAMS : part->streams == PART_STREAMS_MIXED ? 2 : 1;
    return (uint64_t)part->rings * prices->ring_bytes +
           count * (is_wide ? prices->wide_stream_bytes : prices->narrow_stream_bytes);
}

/* What the cap leaves to the layout, the process's own memory taken at its quantile. */
static uint64_t layout_cap_bytes(const struct space *space, struct quantity process_bytes)
{
    uint64_t cap_bytes = space->request->memory_cap_bytes;
    if (cap_bytes == 0)
        return PROBLEM_NO_CAP;
    double left = (double)cap_bytes - memory_held_bytes(process_bytes, space->request->risk);
    return left > 0 ? (uint64_t)left : 0;
}

static struct quantity lesser(struct quantity a, struct quantity b)
{
    return (struct quantity){.value = fmin(a.value, b.value),
                             .deviation = fmin(a.deviation, b.deviation)};
}

/* Of plans with 16-bit layers; with both precisions, which pins can force, the lesser. */
static struct quantity process_16(const struct space *space, const struct shape *shape)
{
    const struct prices *prices = &space->prices[shape->prices];
    struct quantity out = prices->process_bytes[shape->half];
    for (size_t i = 0; i < space->groups.count; i++) {
        const struct layer_group *group = &space->groups.items[i];
        enum precision pinned = group->pins.precision[group->kind];
        if (group->pins.precision_fixed[group->kind] && pinned != PRECISION_FP32)
            out = lesser(out, prices->process_bytes[pinned]);
    }
    return out;
}

/* Not fixed: the lesser of each. */
static struct quantity charged_process(const struct building *building)
{
    const struct part *part = building->part;
    const struct prices *prices = building->prices;
    struct quantity with_16 = process_16(building->out->space, building->out->shape);
    if (part->precision_is_fixed)
        return part->has_16 ? with_16 : prices->process_bytes[PRECISION_FP32];
    return lesser(with_16, prices->process_bytes[PRECISION_FP32]);
}

/* Plans in fp32 are another part's: here they must not profit where 16 bit are charged less. */
static unsigned needed_traits(const struct building *building)
{
    const struct quantity whole = building->prices->process_bytes[PRECISION_FP32];
    const struct quantity half = charged_process(building);
    bool is_less = half.value < whole.value || half.deviation < whole.deviation;
    unsigned needs = building->prices->mesh.tensor_parallel > 1 ? TRAIT_WIDEST : 0;
    if (building->part->precision_is_fixed && building->part->has_16 && is_less)
        needs |= TRAIT_16_BIT;
    return needs;
}

static enum status alloc_problem(struct building *building, struct error *err)
{
    struct part_problem *out = building->out;
    size_t layers = out->problem.layer_count, strategies = 0, most = 0;
    size_t spreads = building->prices->spread_count;
    bool is_cut = out->shape->schedule == SCHEDULE_INTERLEAVED;
    const struct layer_groups *groups = &out->space->groups;
    for (size_t i = 0; i < groups->count; i++) {
        size_t count = building->prices->kinds[groups->items[i].kind].count;
        strategies += count;
        most = count > most ? count : most;
    }
    /* A virtual stage has at most one class a group and one of its first layer. */
    size_t classes = is_cut ? layers : groups->count;
    if (is_cut)
        strategies = classes * most;
    out->layers = calloc(layers, sizeof(*out->layers));
    out->layer_class = calloc(layers, sizeof(*out->layer_class));
    out->classes = calloc(classes, sizeof(*out->classes));
    out->strategies = calloc(strategies, sizeof(*out->strategies));
    out->origins = calloc(strategies, sizeof(*out->origins));
    out->rules = calloc(out->problem.stages, sizeof(*out->rules));
    out->transitions = calloc(spreads * spreads, sizeof(*out->transitions));
    if (is_cut)
        out->virtual_stages = calloc(layers, sizeof(*out->virtual_stages));
    if (!out->layers || !out->layer_class || !out->classes || !out->strategies || !out->origins ||
        !out->rules || !out->transitions || (is_cut && !out->virtual_stages))
        return error_memory(err, strategies * sizeof(*out->strategies), "the search");
    out->problem.layer_class = out->layer_class;
    out->problem.classes = out->classes;
    out->problem.rules = out->rules;
    return STATUS_OK;
}

static enum status build(struct building *building, bool *is_empty, struct error *err)
{
    const struct prices *prices = building->prices;
    const struct objective_rates *rates = building->rates;
    struct part_problem *out = building->out;
    struct problem *problem = &out->problem;
    double m = (double)prices->mesh.micro_batches;
    bool is_cut = out->shape->schedule == SCHEDULE_INTERLEAVED;
    TRY(alloc_problem(building, err));
    if (is_cut) {
        TRY(count_passes(building, err));
        order_layers(building);
    }
    *is_empty = !(is_cut ? fill_places(building) : fill_groups(building));
    if (*is_empty)
        return STATUS_OK;
    if (prices->mesh.tensor_parallel > 1)
        fill_transitions(building);
    problem->weight_tau = building->busy_rate * (is_cut ? m : m - 1);
    problem->weight_gamma = building->busy_rate;
    problem->weight_memory = rates->per_byte;
    problem->fixed_cost = rates->per_second * prices->other_s +
                          rates->per_byte * out->process_bytes.value +
                          (rates->per_joule > 0 ? rates->per_joule * prices->other_j : 0) +
                          (is_cut ? building->busy_rate * interleaved_fixed_s(building) : 0);
    if (building->has_budget) {
        problem->spend_tau = building->busy_w * (is_cut ? m : m - 1);
        problem->spend_gamma = building->busy_w;
        problem->spend_cap = out->space->request->energy_cap_j - prices->other_j -
                             (is_cut ? building->busy_w * interleaved_fixed_s(building) : 0);
    }
    for (size_t p = 0; p < problem->stages; p++) {
        out->rules[p].fixed_bytes = out->bytes_matter ? charged_bytes(building) : 0;
        out->rules[p].cap_bytes = layout_cap_bytes(out->space, out->process_bytes);
    }
    return STATUS_OK;
}

enum status part_open(struct part_problem *out, const struct space *space,
                      const struct shape *shape, const struct part *part,
                      const struct objective_rates *rates, bool *is_empty, struct error *err)
{
    const struct prices *prices = &space->prices[shape->prices];
    bool has_budget = space->request->energy_cap_j > 0;
    bool is_pipeline = prices->mesh.pipeline > 1, has_energy = rates->per_joule > 0 || has_budget;
    *out = (struct part_problem){.space = space, .shape = shape};
    *is_empty = has_energy && (isnan(prices->other_j) || (is_pipeline && isnan(prices->idle_w)));
    if (*is_empty)
        return STATUS_OK;
    struct building building = {.part = part,
                                .prices = prices,
                                .rates = rates,
                                .out = out,
                                .busy_rate = rates->per_second,
                                .has_budget = has_budget};
    if (has_energy && is_pipeline) {
        building.busy_w = prices->idle_w;
        building.busy_rate += rates->per_joule * prices->idle_w;
        building.idle_j_s = prices->idle_w / prices->mesh.pipeline;
    }
    out->bytes_matter = rates->per_byte > 0 || space->request->memory_cap_bytes > 0;
    out->process_bytes = charged_process(&building);
    out->problem.layer_count = model_layer_count(space->request->model);
    out->problem.stages = (size_t)prices->mesh.pipeline;
    out->problem.places = 1;
    out->problem.spend_cap = INFINITY;
    out->problem.needs = needed_traits(&building);
    enum status status = build(&building, is_empty, err);
    free(building.passes_before);
    if (status != STATUS_OK || *is_empty)
        part_close(out);
    return status;
}

void part_close(struct part_problem *problem)
{
    free(problem->layers);
    free(problem->virtual_stages);
    free(problem->layer_class);
    free(problem->classes);
    free(problem->strategies);
    free(problem->origins);
    free(problem->rules);
    free(problem->transitions);
    *problem = (struct part_problem){0};
}

/* ---- plans ---- */

enum status part_plan(const struct part_problem *problem, const struct assignment *assignment,
                      struct plan *out, struct error *err)
{
    const struct space *space = problem->space;
    size_t count = problem->problem.layer_count;
    *out = (struct plan){.layer_count = count};
    prices_plan(space->request, &space->prices[problem->shape->prices].mesh, out);
    out->schedule = problem->shape->schedule;
    out->virtual_stages = problem->shape->virtual_stages;
    out->layers = calloc(count, sizeof(*out->layers));
    if (!out->layers)
        return error_memory(err, count * sizeof(*out->layers), "a plan");
    for (size_t at = 0; at < count; at++) {
        const struct layer_class *of = &problem->classes[problem->layer_class[at]];
        size_t index = (size_t)(of->strategies - problem->strategies) + assignment->strategies[at];
        struct layer_strategy *strategy = &out->layers[problem->layers[at]];
        *strategy = problem->origins[index]->strategy;
        strategy->stage =
            problem->virtual_stages ? problem->virtual_stages[at] : (int)assignment->stages[at];
    }
    return STATUS_OK;
}

bool part_is_consistent(const struct plan *plan)
{
    const struct layer_strategy *embedding = &plan->layers[0];
    const struct layer_strategy *head = &plan->layers[plan->layer_count - 1];
    return !plan->model.tied_head || (embedding->tensor_parallel == head->tensor_parallel &&
                                      embedding->zero_stage == head->zero_stage);
}

/* ---- splitting ---- */

static size_t split_table(const struct prices *prices, const struct part *part,
                          struct part *children)
{
    const struct priced_kind *of = &prices->kinds[LAYER_EMBEDDING];
    size_t count = 0;
    for (size_t i = 0; i < of->count; i++) {
        const struct layer_strategy *strategy = &of->items[i].strategy;
        bool is_listed = false;
        for (size_t c = 0; c < count; c++)
            is_listed |= children[c].table_tensor_parallel == strategy->tensor_parallel &&
                         children[c].table_zero == strategy->zero_stage &&
                         children[c].table_gradients == of->items[i].table_gradients &&
                         (children[c].table_sequence == strategy->sequence_parallel ||
                          prices->mesh.pipeline > 1);
        if (is_listed)
            continue;
        assert(count < PART_CHILDREN_MAX);
        children[count] = *part;
        children[count].split_is_fixed = true;
        children[count].table_tensor_parallel = strategy->tensor_parallel;
        children[count].table_sequence = strategy->sequence_parallel;
        children[count].table_gradients = of->items[i].table_gradients;
        children[count++].table_zero = strategy->zero_stage;
    }
    return count;
}

/* Is what the embedding was charged not what every tied head makes of it? */
static bool has_uncharged_table(const struct prices *prices, const struct part *part,
                                const struct plan *plan)
{
    const struct priced_kind *of = &prices->kinds[LAYER_EMBEDDING];
    bool depends = plan->pipeline == 1 && plan->layers[0].tensor_parallel > 1;
    for (size_t i = 1; i < of->count; i++)
        depends |= of->items[i].table_gradients != of->items[0].table_gradients;
    return depends && plan->model.tied_head && !part->split_is_fixed;
}

static size_t split_rings(const struct part *part, struct part *children)
{
    enum { RINGS_MAX = 2 };
    for (int rings = 0; rings <= RINGS_MAX; rings++) {
        children[rings] = *part;
        children[rings].rings_are_fixed = true;
        children[rings].rings = rings;
        children[rings].zero_most = 1 + rings;
    }
    return RINGS_MAX + 1;
}

/* A pipeline's streams are as many whether alike or not: only whether all are narrow matters. */
static size_t split_streams(const struct prices *prices, const struct part *part,
                            struct part *children)
{
    size_t alike = prices->mesh.pipeline > 1 ? 1 : prices->spread_count, count = 0;
    for (size_t spread = 0; spread < alike; spread++) {
        children[count] = *part;
        children[count].streams = PART_STREAMS_ALIKE;
        children[count++].spread = spread;
    }
    if (prices->spread_count > 1) {
        children[count] = *part;
        children[count++].streams = PART_STREAMS_MIXED;
    }
    return count;
}

static size_t split_precision(const struct part *part, struct part *children)
{
    for (int has_16 = 0; has_16 <= 1; has_16++) {
        children[has_16] = *part;
        children[has_16].precision_is_fixed = true;
        children[has_16].has_16 = has_16 != 0;
    }
    return 2;
}

static bool has_uncharged_streams(const struct part *part, const struct plan *plan)
{
    bool is_narrow = footprint_stream_count(plan) == 1 || plan->pipeline > 1;
    for (size_t i = 0; i < plan->layer_count; i++)
        is_narrow &= strategy_spread(&plan->layers[i]) == 1;
    return part->streams == PART_STREAMS_FREE && !is_narrow;
}

size_t part_split(const struct space *space, const struct shape *shape, const struct part *part,
                  const struct plan *plan, struct part children[PART_CHILDREN_MAX])
{
    const struct prices *prices = &space->prices[shape->prices];
    const struct quantity half = process_16(space, shape);
    const struct quantity whole = prices->process_bytes[PRECISION_FP32];
    if (!part_is_consistent(plan) || has_uncharged_table(prices, part, plan))
        return split_table(prices, part, children);
    if (!part->rings_are_fixed && footprint_ring_count(plan) > 0)
        return split_rings(part, children);
    if (has_uncharged_streams(part, plan))
        return split_streams(prices, part, children);
    if (!part->precision_is_fixed &&
        (half.value != whole.value || half.deviation != whole.deviation))
        return split_precision(part, children);
    return 0;
}
