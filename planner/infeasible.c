#include "planner/infeasible.h"
#include "base/units.h"
#include "costmodel/predict.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the leanest plan ---- */

struct lean_search {
    const struct space *space;
    bool any_will_do; /* that fits */
    double bytes;     /* of the leanest plan, at the quantile that the cap is held at; INFINITY */
    bool fits;
};

static enum status lean_part(struct lean_search *search, const struct shape *shape,
                             const struct part *part, struct error *err);

/* What is charged too little splits the part, as in the search. */
static enum status lean_plan(struct lean_search *search, const struct shape *shape,
                             const struct part *part, const struct plan *plan, struct error *err)
{
    const struct planner_request *request = search->space->request;
    struct prediction prediction = {0};
    struct part *children = malloc(PART_CHILDREN_MAX * sizeof(*children));
    if (!children)
        return error_memory(err, PART_CHILDREN_MAX * sizeof(*children), "the leanest plan");
    enum status status = STATUS_OK;
    if (part_is_consistent(plan)) {
        status = predict_plan(request->profile, plan, &prediction, err);
        double bytes = status == STATUS_OK
                           ? memory_held_bytes(prediction.memory_bytes, request->risk)
                           : INFINITY;
        search->bytes = fmin(search->bytes, bytes);
        search->fits |=
            request->memory_cap_bytes == 0 || bytes <= (double)request->memory_cap_bytes;
    }
    size_t count = part_split(search->space, shape, part, plan, children);
    for (size_t i = 0; status == STATUS_OK && i < count; i++)
        status = lean_part(search, shape, &children[i], err);
    prediction_clear(&prediction);
    free(children);
    return status;
}

static enum status lean_work(struct lean_search *search, const struct shape *shape,
                             const struct part *part, const struct part_problem *work,
                             struct error *err)
{
    struct assignment assignment;
    struct plan plan;
    uint64_t bytes;
    TRY(assignment_alloc(&assignment, work->problem.layer_count, err));
    enum status status = problem_leanest(&work->problem, &bytes, &assignment, err);
    double least =
        (double)bytes + memory_held_bytes(work->process_bytes, search->space->request->risk);
    if (status == STATUS_OK && bytes < UINT64_MAX && least < search->bytes) {
        status = part_plan(work, &assignment, &plan, err);
        if (status == STATUS_OK) {
            status = lean_plan(search, shape, part, &plan, err);
            plan_clear(&plan);
        }
    }
    assignment_free(&assignment);
    return status;
}

static enum status lean_part(struct lean_search *search, const struct shape *shape,
                             const struct part *part, struct error *err)
{
    const struct objective_rates rates = {.per_byte = 1};
    struct part_problem work;
    bool is_empty;
    if (search->any_will_do && search->fits)
        return STATUS_OK;
    TRY(part_open(&work, search->space, shape, part, &rates, &is_empty, err));
    if (is_empty)
        return STATUS_OK;
    enum status status = lean_work(search, shape, part, &work, err);
    part_close(&work);
    return status;
}

static enum status find_leanest(const struct space *space, bool any_will_do,
                                struct lean_search *out, struct error *err)
{
    const struct part whole = part_whole();
    *out = (struct lean_search){.space = space, .any_will_do = any_will_do, .bytes = INFINITY};
    for (size_t i = 0; i < space->count; i++)
        TRY(lean_part(out, &space->shapes[i], &whole, err));
    return STATUS_OK;
}

enum status space_has_plan(const struct space *space, bool *out, struct error *err)
{
    struct lean_search search;
    TRY(find_leanest(space, true, &search, err));
    *out = search.fits;
    return STATUS_OK;
}

/* ---- relaxing the request ---- */

/* Each tells whether there was anything to drop. */
static bool drop_count(int64_t *pin)
{
    bool was_set = *pin > 0;
    *pin = 0;
    return was_set;
}

static bool drop_degree(int *pin)
{
    bool was_set = *pin > 0;
    *pin = 0;
    return was_set;
}

static bool drop_flag(bool *fixed)
{
    bool was_set = *fixed;
    *fixed = false;
    return was_set;
}

static bool drop_recompute(struct pins *pins)
{
    return pins_drop_mode(pins, PIN_RECOMPUTE);
}

static bool drop_zero(struct pins *pins)
{
    return pins_drop_mode(pins, PIN_ZERO);
}

static bool drop_sequence_parallel(struct pins *pins)
{
    return pins_drop_mode(pins, PIN_SEQUENCE_PARALLEL);
}

static bool drop_tensor_parallel(struct pins *pins)
{
    return pins_drop_mode(pins, PIN_TENSOR_PARALLEL);
}

static bool drop_micro_batch(struct pins *pins)
{
    return drop_count(&pins->micro_batch);
}

static bool drop_micro_batches(struct pins *pins)
{
    return drop_count(&pins->micro_batches);
}

static bool drop_precision(struct pins *pins)
{
    return pins_drop_mode(pins, PIN_PRECISION);
}

static bool drop_attention(struct pins *pins)
{
    return pins_drop_mode(pins, PIN_ATTENTION);
}

static bool drop_schedule(struct pins *pins)
{
    return drop_flag(&pins->schedule_fixed);
}

static bool drop_virtual_stages(struct pins *pins)
{
    return drop_degree(&pins->virtual_stages);
}

static bool drop_pipeline(struct pins *pins)
{
    return drop_degree(&pins->pipeline);
}

static bool drop_threads(struct pins *pins)
{
    return drop_degree(&pins->threads);
}

static bool drop_data_parallel(struct pins *pins)
{
    return drop_degree(&pins->data_parallel);
}

/* In the order in which we would rather give them up. */
static const struct {
    const char *name;
    bool (*drop)(struct pins *pins);
} pin_drops[] = {
    {"recompute", drop_recompute},
    {"attention", drop_attention},
    {"zero", drop_zero},
    {"sp", drop_sequence_parallel},
    {"micro-batch", drop_micro_batch},
    {"micro-batches", drop_micro_batches},
    {"schedule", drop_schedule},
    {"v", drop_virtual_stages},
    {"precision", drop_precision},
    {"tp", drop_tensor_parallel},
    {"pp", drop_pipeline},
    {"threads", drop_threads},
    {"dp", drop_data_parallel},
};

static enum status request_has_plan(const struct planner_request *request, bool *out,
                                    struct error *err)
{
    struct space space;
    TRY(space_open(&space, request, err));
    enum status status = space_has_plan(&space, out, err);
    space_close(&space);
    return status;
}

/* The first single pin whose dropping leaves a plan that fits; NULL: none does. */
static enum status find_drop(const struct space *space, const char **name, struct error *err)
{
    *name = NULL;
    for (size_t i = 0; !*name && i < sizeof(pin_drops) / sizeof(*pin_drops); i++) {
        struct planner_request relaxed = *space->request;
        bool fits = false;
        if (pin_drops[i].drop(&relaxed.pins))
            TRY(request_has_plan(&relaxed, &fits, err));
        if (fits)
            *name = pin_drops[i].name;
    }
    return STATUS_OK;
}

/* The fewest further measured ranks with which a plan fits; 0: none do. */
static enum status find_ranks(const struct space *space, int *ranks, struct error *err)
{
    enum { PLACEMENTS_MAX = 64 };
    struct placement known[PLACEMENTS_MAX];
    size_t count = profile_placements(space->request->profile, known, PLACEMENTS_MAX);
    *ranks = 0;
    for (size_t i = 0; *ranks == 0 && i < count && i < PLACEMENTS_MAX; i++) {
        struct planner_request relaxed = *space->request;
        bool fits = false;
        if (known[i].ranks <= relaxed.ranks || (i > 0 && known[i].ranks == known[i - 1].ranks))
            continue;
        relaxed.ranks = known[i].ranks;
        TRY(request_has_plan(&relaxed, &fits, err));
        if (fits)
            *ranks = relaxed.ranks;
    }
    return STATUS_OK;
}

/* ---- memory ---- */

/* The cheapest ways out, in words, each ending in ", or ". */
static enum status tell_ways_out(const struct space *space, char *out, size_t bytes,
                                 struct error *err)
{
    const char *pin;
    int ranks;
    char more_ranks[32] = "";
    TRY(find_drop(space, &pin, err));
    TRY(find_ranks(space, &ranks, err));
    if (ranks > 0)
        (void)snprintf(more_ranks, sizeof(more_ranks), "--ranks %d, or ", ranks);
    (void)snprintf(out, bytes, "%s%s%s%s", pin ? "drop the " : "", pin ? pin : "",
                   pin ? " pin, or " : "", more_ranks);
    return STATUS_OK;
}

static enum status explain_memory(const struct space *space, double least,
                                  struct infeasibility *out, struct error *err)
{
    enum { MIB = 1 << 20 };
    double cap = (double)space->request->memory_cap_bytes;
    unsigned long long enough_mib = (unsigned long long)ceil(least / MIB);
    char needed[UNIT_TEXT_BYTES], allowed[UNIT_TEXT_BYTES];
    char ways_out[96];
    TRY(tell_ways_out(space, ways_out, sizeof(ways_out), err));
    out->leanest_bytes = (uint64_t)ceil(least);
    out->missing_bytes = out->leanest_bytes > space->request->memory_cap_bytes
                             ? out->leanest_bytes - space->request->memory_cap_bytes
                             : 1; /* by a fraction of a byte */
    (void)snprintf(out->constraint, sizeof(out->constraint),
                   "memory: the leanest plan%s needs %s a rank, the cap is %s",
                   space->request->pins_text ? " with these pins" : "", format_bytes(least, needed),
                   format_bytes(cap, allowed));
    (void)snprintf(out->relaxation, sizeof(out->relaxation), "%sraise --memory-cap to %lluMiB",
                   ways_out, enough_mib);
    return error_set(err, STATUS_INFEASIBLE, "no feasible plan: %s; %s", out->constraint,
                     out->relaxation);
}

/* ---- shapes ---- */

/* Ranks that the pinned degrees need at least. */
static int64_t pinned_ranks(const struct pins *pins)
{
    int64_t widest = 1;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        if (pins->tensor_parallel[kind] > widest)
            widest = pins->tensor_parallel[kind];
    }
    for (size_t i = 0; i < pins->range_count; i++) {
        if (pins->ranges[i].mode == PIN_TENSOR_PARALLEL && pins->ranges[i].value > widest)
            widest = pins->ranges[i].value;
    }
    int64_t replicas = pins->data_parallel > 0 ? pins->data_parallel : 1;
    return replicas * widest * (pins->pipeline > 0 ? pins->pipeline : 1);
}

static enum status explain_ranks(const struct planner_request *request, struct infeasibility *out,
                                 struct error *err)
{
    long long pinned = pinned_ranks(&request->pins);
    (void)snprintf(out->constraint, sizeof(out->constraint),
                   "the pins '%s' need %lld ranks, but only %d %s allowed",
                   request->pins_text ? request->pins_text : "", pinned, request->ranks,
                   request->ranks == 1 ? "is" : "are");
    (void)snprintf(out->relaxation, sizeof(out->relaxation),
                   "--ranks %lld, or lower the pinned pp, dp or tp", pinned);
    return error_set(err, STATUS_INFEASIBLE, "no feasible plan: %s; %s", out->constraint,
                     out->relaxation);
}

/* The pins leave the measured ranks no way to be split, or the split no schedule. */
static enum status explain_pins(const struct space *space, const char *what,
                                struct infeasibility *out, struct error *err)
{
    const char *pin;
    TRY(find_drop(space, &pin, err));
    (void)snprintf(out->constraint, sizeof(out->constraint), "%s", what);
    (void)snprintf(out->relaxation, sizeof(out->relaxation), "drop the %s%s", pin ? pin : "",
                   pin ? " pin" : "pins");
    return error_set(err, STATUS_INFEASIBLE, "no feasible plan: %s; %s", out->constraint,
                     out->relaxation);
}

enum { PLACEMENTS_SHOWN = 16 };

static enum status explain_placements(const struct space *space, struct error *err)
{
    const struct planner_request *request = space->request;
    struct placement known[PLACEMENTS_SHOWN];
    char list[256] = "none";
    size_t used = 0, count = profile_placements(request->profile, known, PLACEMENTS_SHOWN);
    for (size_t i = 0; i < count && i < PLACEMENTS_SHOWN && used < sizeof(list) - 1; i++) {
        int written = snprintf(list + used, sizeof(list) - used, "%s%d x %d", i > 0 ? ", " : "",
                               known[i].ranks, known[i].threads);
        used += written > 0 ? (size_t)written : 0;
    }
    const struct pins *pins = &request->pins;
    char threads[32] = "";
    if (pins->threads > 0)
        (void)snprintf(threads, sizeof(threads), " --threads %d", pins->threads);
    return error_set(
        err, STATUS_INVALID,
        "the profile has no measurements with at most %d ranks%s (measured, ranks x threads: %s); "
        "measure what is wanted with: temper profile --ranks %d%s",
        request->ranks, pins->data_parallel || pins->threads ? " that fit the pins" : "", list,
        pins->data_parallel ? pins->data_parallel : request->ranks, threads);
}

static int64_t least_distance(int64_t from, int64_t to)
{
    return from > to ? from - to : to - from;
}

/* Can the ranks be so many replicas, as far as the pinned degrees tell? */
static bool may_be_replicas(const struct pins *pins, int ranks, int replicas)
{
    int64_t wanted = pinned_ranks(pins);
    if (pins->data_parallel > 0 && replicas != pins->data_parallel)
        return false;
    if (pins->data_parallel == 0)
        wanted *= replicas;
    return ranks % wanted == 0;
}

static int64_t nearer(int64_t to, int64_t before, int64_t offer)
{
    return before == 0 || least_distance(offer, to) < least_distance(before, to) ? offer : before;
}

/* The global batch nearest to the one asked for that some placement and the pins divide. */
static int64_t nearest_global_batch(const struct space *space)
{
    const struct planner_request *request = space->request;
    const struct pins *pins = &request->pins;
    struct placement known[PLACEMENTS_SHOWN];
    size_t count = profile_placements(request->profile, known, PLACEMENTS_SHOWN);
    int64_t nearest = 0, wanted = request->global_batch;
    for (size_t i = 0; i < count && i < PLACEMENTS_SHOWN; i++) {
        if (known[i].ranks > request->ranks ||
            (pins->threads > 0 && known[i].threads != pins->threads))
            continue;
        for (int replicas = 1; replicas <= known[i].ranks; replicas++) {
            int64_t unit = replicas * (pins->micro_batch > 0 ? pins->micro_batch : 1) *
                           (pins->micro_batches > 0 ? pins->micro_batches : 1);
            bool is_fixed = pins->micro_batch > 0 && pins->micro_batches > 0;
            int64_t below = is_fixed ? unit : wanted / unit * unit;
            if (known[i].ranks % replicas != 0 || !may_be_replicas(pins, known[i].ranks, replicas))
                continue;
            nearest = nearer(wanted, nearest, below > 0 ? below : unit);
            nearest = nearer(wanted, nearest, is_fixed ? unit : below + unit);
        }
    }
    return nearest;
}

static enum status explain_shape(const struct space *space, struct infeasibility *out,
                                 struct error *err)
{
    const struct planner_request *request = space->request;
    const char *pin;
    TRY(find_drop(space, &pin, err));
    (void)snprintf(out->constraint, sizeof(out->constraint),
                   "a global batch of %lld sequences does not divide into the measured rank "
                   "counts%s",
                   (long long)request->global_batch,
                   request->pins_text ? " and the pinned micro-batch figures" : "");
    long long nearest = nearest_global_batch(space);
    if (pin)
        (void)snprintf(out->relaxation, sizeof(out->relaxation),
                       "--global-batch %lld, or drop the %s pin", nearest, pin);
    else
        (void)snprintf(out->relaxation, sizeof(out->relaxation), "--global-batch %lld", nearest);
    return error_set(err, STATUS_INFEASIBLE, "no feasible plan: %s; %s", out->constraint,
                     out->relaxation);
}

enum status explain_infeasible(const struct space *space, struct infeasibility *out,
                               struct error *err)
{
    struct lean_search leanest;
    *out = (struct infeasibility){.constraint = ""};
    if (pinned_ranks(&space->request->pins) > space->request->ranks)
        return explain_ranks(space->request, out, err);
    if (!space->any_placement)
        return explain_placements(space, err);
    if (!space->any_mesh)
        return explain_pins(space,
                            "no measured number of ranks is a product of the pinned pp, dp "
                            "and tp",
                            out, err);
    if (!space->any_batch)
        return explain_shape(space, out, err);
    if (!space->any_schedule)
        return explain_pins(space,
                            "the pinned schedule or v fits no pipeline that the ranks allow "
                            "(interleaved: micro-batches in multiples of pp, and a layer of "
                            "a block for each chunk)",
                            out, err);
    if (space->count == 0) {
        *err = space->missing;
        return err->status;
    }
    TRY(find_leanest(space, false, &leanest, err));
    if (leanest.bytes == INFINITY)
        return explain_pins(space,
                            "the pins of embedding and tied head, which share a table, "
                            "exclude each other, or no layer may be shared by as many ranks",
                            out, err);
    return explain_memory(space, leanest.bytes, out, err);
}

enum status explain_energy(const struct planner_request *request, struct infeasibility *out,
                           struct error *err)
{
    char cap[UNIT_TEXT_BYTES];
    *out = (struct infeasibility){.relaxation = "raise the energy cap"};
    (void)snprintf(out->constraint, sizeof(out->constraint), "energy: no plan takes at most %s",
                   format_joules(request->energy_cap_j, cap));
    return error_set(err, STATUS_INFEASIBLE, "no feasible plan: %s; %s", out->constraint,
                     out->relaxation);
}
