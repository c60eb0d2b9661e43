#include "planner/space.h"
#include "costmodel/predict.h"
#include "ir/footprint.h"
#include <math.h>
#include <stdlib.h>

/* Beyond this many times the largest measured micro-batch, times are not extrapolated. */
enum { EXTRAPOLATION_MAX = 4, PLACEMENTS_MAX = 64 };

static double known_or_nan(struct quantity quantity)
{
    return quantity.provenance == PROVENANCE_ABSENT ? NAN : quantity.value;
}

/* ---- the modes that pins and kinds admit ---- */

static bool mode_is_allowed(const struct pins *pins, enum layer_kind kind,
                            struct layer_precision_mode mode)
{
    if (!layer_admits_precision(kind, mode.precision) ||
        !layer_admits_recompute(kind, mode.recompute))
        return false;
    if (pins->precision_fixed[kind]) {
        enum precision wanted = pins->precision[kind];
        if (!layer_admits_precision(kind, wanted))
            wanted = PRECISION_FP32;
        if (mode.precision != wanted)
            return false;
    }
    if (!pins->recompute_fixed[kind])
        return true;
    enum recompute wanted = pins->recompute[kind];
    if (!layer_admits_recompute(kind, wanted))
        wanted = RECOMPUTE_NONE;
    return mode.recompute == wanted;
}

static bool kind_may_be(const struct pins *pins, enum layer_kind kind, enum precision precision)
{
    for (int recompute = 0; recompute < RECOMPUTE_COUNT; recompute++) {
        struct layer_precision_mode mode = {precision, (enum recompute)recompute};
        if (mode_is_allowed(pins, kind, mode))
            return true;
    }
    return false;
}

/* ---- candidates ---- */

static struct mode_cost price_mode(const struct candidate *candidate,
                                   struct layer_precision_mode mode, const struct layer_cost *cost)
{
    double repeats = (double)candidate->micro_batches;
    double micro_batch_j = known_or_nan(cost->forward_j) + known_or_nan(cost->backward_j);
    return (struct mode_cost){
        .mode = mode,
        .micro_batch_s = cost->forward_s.value + cost->backward_s.value,
        .reduce_s = cost->grad_reduce_s.value,
        .optimizer_s = cost->optimizer_s.value,
        .step_j = candidate->placement.ranks *
                  (repeats * micro_batch_j + known_or_nan(cost->grad_reduce_j) +
                   known_or_nan(cost->optimizer_j)),
        .saved_bytes = cost->saved_bytes,
        .scratch_bytes = cost->scratch_bytes,
    };
}

/* A layer of a kind before the forced one stays in fp32: those plans are in that kind's part. */
static bool part_admits(const struct candidate *candidate, enum layer_kind kind,
                        enum precision precision)
{
    if (precision == PRECISION_FP32)
        return true;
    if (!candidate->bf16_copy)
        return false;
    return candidate->forced_kind == NOT_FORCED || (int)kind >= candidate->forced_kind;
}

/* Modes without measurements are left out and noted. */
static void price_kind(struct space *space, struct candidate *candidate, enum layer_kind kind)
{
    const struct planner_request *request = space->request;
    for (int p = 0; p < PRECISION_COUNT; p++) {
        for (int r = 0; r < RECOMPUTE_COUNT; r++) {
            const struct layer_work work = {.kind = kind,
                                            .mode = {(enum precision)p, (enum recompute)r},
                                            .micro_batch = candidate->micro_batch,
                                            .placement = candidate->placement,
                                            .bf16_copy = candidate->bf16_copy};
            struct layer_cost cost;
            struct error missing;
            if (!mode_is_allowed(&request->pins, kind, work.mode) ||
                !part_admits(candidate, kind, work.mode.precision))
                continue;
            if (cost_layer(request->profile, request->model, &work, &cost, &missing) == STATUS_OK)
                candidate->modes[kind][candidate->mode_count[kind]++] =
                    price_mode(candidate, work.mode, &cost);
            else if (space->missing.status == STATUS_OK)
                space->missing = missing;
        }
    }
}

static bool forced_layer_is_possible(const struct candidate *candidate)
{
    if (candidate->forced_kind == NOT_FORCED)
        return true;
    for (size_t i = 0; i < candidate->mode_count[candidate->forced_kind]; i++) {
        if (candidate->modes[candidate->forced_kind][i].mode.precision == PRECISION_BF16)
            return true;
    }
    return false;
}

/* False: some layer has no mode that was measured. */
static bool price_candidate(struct space *space, struct candidate *candidate)
{
    const struct planner_request *request = space->request;
    const struct model *model = request->model;
    const struct micro_batch_shape shape = {.sequences = candidate->micro_batch,
                                            .seq_length = model->seq_length,
                                            .threads = candidate->placement.threads};
    struct step_cost step;
    struct error missing;
    if (cost_step(request->profile, candidate->placement, candidate->bf16_copy, &step, &missing) !=
        STATUS_OK) {
        if (space->missing.status == STATUS_OK)
            space->missing = missing;
        return false;
    }
    candidate->other_s = step.other_s.value;
    candidate->other_j = known_or_nan(step.other_j);
    candidate->process_bytes = step.process_bytes;
    candidate->layout_bytes =
        4 * footprint_state_bytes(model) + footprint_shared_bytes(model, &shape);
    if (candidate->bf16_copy)
        candidate->layout_bytes += footprint_bf16_bytes(model);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        price_kind(space, candidate, (enum layer_kind)kind);
        if (candidate->mode_count[kind] == 0)
            return false;
    }
    return forced_layer_is_possible(candidate);
}

static enum status add_candidate(struct space *space, struct candidate candidate, struct error *err)
{
    if (space->count == space->capacity) {
        size_t capacity = space->capacity > 0 ? 2 * space->capacity : 32;
        struct candidate *grown = realloc(space->candidates, capacity * sizeof(*space->candidates));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the search space");
        space->candidates = grown;
        space->capacity = capacity;
    }
    if (price_candidate(space, &candidate))
        space->candidates[space->count++] = candidate;
    return STATUS_OK;
}

/* The parts of the bf16 partition; where pins leave a kind bf16 alone there is only one. */
static enum status add_shape(struct space *space, struct candidate shape, struct error *err)
{
    const struct pins *pins = &space->request->pins;
    bool all_may_be_fp32 = true;
    space->any_shape = true;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        all_may_be_fp32 &= kind_may_be(pins, (enum layer_kind)kind, PRECISION_FP32);
    shape.forced_kind = NOT_FORCED;
    shape.bf16_copy = !all_may_be_fp32;
    TRY(add_candidate(space, shape, err));
    shape.bf16_copy = true;
    for (int kind = 0; all_may_be_fp32 && kind < LAYER_KIND_COUNT; kind++) {
        shape.forced_kind = kind;
        if (kind_may_be(pins, (enum layer_kind)kind, PRECISION_BF16))
            TRY(add_candidate(space, shape, err));
    }
    return STATUS_OK;
}

/* ---- shapes: placements and micro-batches ---- */

static int64_t largest_measured(const struct planner_request *request, struct placement placement)
{
    int64_t least = INT64_MAX;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        char key[LAYER_KEY_BYTES];
        layer_key(request->model, (enum layer_kind)kind, key);
        int64_t largest = profile_largest_micro_batch(request->profile, key, placement);
        if (largest > 0 && largest < least)
            least = largest;
    }
    return least;
}

static enum status add_micro_batch(struct space *space, struct placement placement,
                                   int64_t micro_batch, int64_t largest, struct error *err)
{
    const struct pins *pins = &space->request->pins;
    int64_t micro_batches = space->request->global_batch / placement.ranks / micro_batch;
    bool pinned = pins->micro_batch > 0 || pins->micro_batches > 0;
    if (pins->micro_batch > 0 && micro_batch != pins->micro_batch)
        return STATUS_OK;
    if (pins->micro_batches > 0 && micro_batches != pins->micro_batches)
        return STATUS_OK;
    if (!pinned && (micro_batch - 1) / EXTRAPOLATION_MAX >= largest)
        return STATUS_OK;
    const struct candidate shape = {
        .placement = placement, .micro_batch = micro_batch, .micro_batches = micro_batches};
    return add_shape(space, shape, err);
}

static enum status add_placement(struct space *space, struct placement placement, struct error *err)
{
    const struct planner_request *request = space->request;
    const struct pins *pins = &request->pins;
    if (placement.ranks > request->ranks ||
        (pins->data_parallel > 0 && placement.ranks != pins->data_parallel) ||
        (pins->threads > 0 && placement.threads != pins->threads))
        return STATUS_OK;
    space->any_placement = true;
    if (request->global_batch % placement.ranks != 0)
        return STATUS_OK;
    int64_t share = request->global_batch / placement.ranks;
    int64_t largest = largest_measured(request, placement);
    for (int64_t divisor = 1; divisor <= share / divisor; divisor++) {
        if (share % divisor != 0)
            continue;
        TRY(add_micro_batch(space, placement, divisor, largest, err));
        if (divisor != share / divisor)
            TRY(add_micro_batch(space, placement, share / divisor, largest, err));
    }
    return STATUS_OK;
}

/* ---- classes ---- */

static enum status fill_classes(struct space *space, struct error *err)
{
    const struct model *model = space->request->model;
    space->layer_count = model_layer_count(model);
    for (int forced = 0; forced <= NOT_FORCED; forced++) {
        size_t *classes = malloc(space->layer_count * sizeof(*classes));
        if (!classes)
            return error_memory(err, space->layer_count * sizeof(*classes), "the search space");
        bool forced_seen = false;
        for (size_t l = 0; l < space->layer_count; l++) {
            enum layer_kind kind = model_layer(model, l).kind;
            bool is_forced = !forced_seen && (int)kind == forced;
            classes[l] = is_forced ? FORCED_CLASS : (size_t)kind;
            forced_seen |= is_forced;
        }
        space->layer_class[forced] = classes;
    }
    return STATUS_OK;
}

enum status space_open(struct space *out, const struct planner_request *request, struct error *err)
{
    struct placement placements[PLACEMENTS_MAX];
    *out = (struct space){.request = request};
    enum status status = fill_classes(out, err);
    size_t count = profile_placements(request->profile, placements, PLACEMENTS_MAX);
    if (count > PLACEMENTS_MAX)
        count = PLACEMENTS_MAX;
    for (size_t i = 0; status == STATUS_OK && i < count; i++)
        status = add_placement(out, placements[i], err);
    if (status != STATUS_OK)
        space_close(out);
    return status;
}

void space_close(struct space *space)
{
    for (int forced = 0; forced <= NOT_FORCED; forced++)
        free(space->layer_class[forced]);
    free(space->candidates);
    *space = (struct space){0};
}

/* ---- problems ---- */

static struct strategy make_strategy(const struct mode_cost *cost,
                                     const struct objective_rates *rates)
{
    double once_s = cost->micro_batch_s + cost->optimizer_s;
    double energy = rates->per_joule > 0 ? rates->per_joule * cost->step_j : 0;
    return (struct strategy){.cost = rates->per_second * once_s + energy,
                             .tau = cost->micro_batch_s,
                             .gamma = cost->reduce_s,
                             .inflight_bytes = cost->saved_bytes,
                             .scratch_bytes = cost->scratch_bytes};
}

static bool fill_class(const struct candidate *candidate, size_t class,
                       const struct objective_rates *rates, struct candidate_problem *out)
{
    bool forced = class == FORCED_CLASS;
    int kind = forced ? candidate->forced_kind : (int)class;
    size_t count = 0;
    for (size_t i = 0; i < candidate->mode_count[kind]; i++) {
        const struct mode_cost *cost = &candidate->modes[kind][i];
        if (forced && cost->mode.precision != PRECISION_BF16)
            continue;
        if (rates->per_joule > 0 && isnan(cost->step_j))
            continue;
        out->strategies[class][count] = make_strategy(cost, rates);
        out->modes[class][count++] = cost->mode;
    }
    out->classes[class] = (struct layer_class){count, out->strategies[class]};
    return count > 0;
}

/* What the cap leaves to the layout, the process's own memory taken at its quantile. */
static uint64_t layout_cap_bytes(const struct space *space, const struct candidate *candidate)
{
    uint64_t cap_bytes = space->request->memory_cap_bytes;
    if (cap_bytes == 0)
        return PROBLEM_NO_CAP;
    double left = (double)cap_bytes - memory_quantile_bytes(candidate->process_bytes);
    return left > 0 ? (uint64_t)left : 0;
}

bool space_problem(const struct space *space, const struct candidate *candidate,
                   const struct objective_rates *rates, struct candidate_problem *out)
{
    bool has_energy = rates->per_joule > 0;
    if (has_energy && isnan(candidate->other_j))
        return false;
    out->problem = (struct problem){
        .layer_count = space->layer_count,
        .layer_class = space->layer_class[candidate->forced_kind],
        .class_count = candidate->forced_kind == NOT_FORCED ? LAYER_KIND_COUNT : SPACE_CLASSES,
        .classes = out->classes,
        .stages = 1,
        .micro_batches = candidate->micro_batches,
        .weight_tau = rates->per_second * (double)(candidate->micro_batches - 1),
        .weight_gamma = rates->per_second,
        .weight_memory = rates->per_byte,
        .fixed_cost = rates->per_second * candidate->other_s +
                      (has_energy ? rates->per_joule * candidate->other_j : 0) +
                      rates->per_byte * candidate->process_bytes.value,
        .fixed_bytes = candidate->layout_bytes,
        .cap_bytes = layout_cap_bytes(space, candidate),
    };
    for (size_t class = 0; class < out->problem.class_count; class ++) {
        if (!fill_class(candidate, class, rates, out))
            return false;
    }
    return true;
}

enum status space_leanest(const struct space *space, const struct candidate *candidate,
                          struct leanest *out, struct error *err)
{
    const struct objective_rates rates = {.per_byte = 1};
    struct candidate_problem work;
    uint64_t layout_bytes;
    *out = (struct leanest){.bytes = INFINITY};
    if (!space_problem(space, candidate, &rates, &work))
        return STATUS_OK;
    TRY(problem_leanest(&work.problem, &layout_bytes, NULL, err));
    out->bytes = (double)layout_bytes + memory_quantile_bytes(candidate->process_bytes);
    out->fits = layout_bytes <= work.problem.cap_bytes;
    return STATUS_OK;
}
