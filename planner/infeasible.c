#include "planner/infeasible.h"
#include "base/units.h"
#include <math.h>
#include <stdio.h>

/* ---- dropping single pins ---- */

/* Each tells whether there was anything to drop. */
static bool drop_micro_batch(struct pins *pins)
{
    bool was_set = pins->micro_batch > 0;
    pins->micro_batch = 0;
    return was_set;
}

static bool drop_micro_batches(struct pins *pins)
{
    bool was_set = pins->micro_batches > 0;
    pins->micro_batches = 0;
    return was_set;
}

static bool drop_data_parallel(struct pins *pins)
{
    bool was_set = pins->data_parallel > 0;
    pins->data_parallel = 0;
    return was_set;
}

static bool drop_threads(struct pins *pins)
{
    bool was_set = pins->threads > 0;
    pins->threads = 0;
    return was_set;
}

static bool drop_by_kind(bool fixed[LAYER_KIND_COUNT])
{
    bool was_set = false;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        was_set |= fixed[kind];
        fixed[kind] = false;
    }
    return was_set;
}

static bool drop_recompute(struct pins *pins)
{
    return drop_by_kind(pins->recompute_fixed);
}

static bool drop_precision(struct pins *pins)
{
    return drop_by_kind(pins->precision_fixed);
}

/* In the order in which we would rather give them up. */
static const struct {
    const char *name;
    bool (*drop)(struct pins *pins);
} pin_drops[] = {
    {"recompute", drop_recompute},
    {"micro-batch", drop_micro_batch},
    {"micro-batches", drop_micro_batches},
    {"precision", drop_precision},
    {"threads", drop_threads},
    {"dp", drop_data_parallel},
};

/* The leanest plan without one pin; none when that pin was not set. */
static enum status leanest_without(const struct space *space, size_t drop, struct leanest *out,
                                   struct error *err)
{
    struct planner_request relaxed = *space->request;
    struct space wider;
    *out = (struct leanest){.bytes = INFINITY};
    if (!pin_drops[drop].drop(&relaxed.pins))
        return STATUS_OK;
    TRY(space_open(&wider, &relaxed, err));
    enum status status = leanest_of_all(&wider, out, err);
    space_close(&wider);
    return status;
}

/* The first single pin whose dropping leaves a plan that fits; NULL: none does. */
static enum status find_drop(const struct space *space, const char **name, struct error *err)
{
    *name = NULL;
    for (size_t i = 0; !*name && i < sizeof(pin_drops) / sizeof(*pin_drops); i++) {
        struct leanest leanest;
        TRY(leanest_without(space, i, &leanest, err));
        if (leanest.fits)
            *name = pin_drops[i].name;
    }
    return STATUS_OK;
}

/* ---- memory ---- */

enum status leanest_of_all(const struct space *space, struct leanest *out, struct error *err)
{
    *out = (struct leanest){.bytes = INFINITY};
    for (size_t i = 0; i < space->count; i++) {
        struct leanest own;
        TRY(space_leanest(space, &space->candidates[i], &own, err));
        out->bytes = fmin(out->bytes, own.bytes);
        out->fits |= own.fits;
    }
    return STATUS_OK;
}

static enum status explain_memory(const struct space *space, double least,
                                  struct infeasibility *out, struct error *err)
{
    enum { MIB = 1 << 20 };
    double cap = (double)space->request->memory_cap_bytes;
    unsigned long long enough_mib = (unsigned long long)ceil(least / MIB);
    char needed[UNIT_TEXT_BYTES], allowed[UNIT_TEXT_BYTES];
    const char *pin;
    TRY(find_drop(space, &pin, err));
    out->leanest_bytes = (uint64_t)ceil(least);
    out->missing_bytes = out->leanest_bytes > space->request->memory_cap_bytes
                             ? out->leanest_bytes - space->request->memory_cap_bytes
                             : 1; /* by a fraction of a byte */
    (void)snprintf(out->constraint, sizeof(out->constraint),
                   "memory: the leanest plan%s needs %s a rank, the cap is %s",
                   space->request->pins_text ? " with these pins" : "", format_bytes(least, needed),
                   format_bytes(cap, allowed));
    if (pin)
        (void)snprintf(out->relaxation, sizeof(out->relaxation),
                       "drop the %s pin, or raise --memory-cap to %lluMiB", pin, enough_mib);
    else
        (void)snprintf(out->relaxation, sizeof(out->relaxation), "raise --memory-cap to %lluMiB",
                       enough_mib);
    return error_set(err, STATUS_INFEASIBLE, "no feasible plan: %s; %s", out->constraint,
                     out->relaxation);
}

/* ---- shapes ---- */

static enum status explain_ranks(const struct planner_request *request, struct infeasibility *out,
                                 struct error *err)
{
    int pinned = request->pins.data_parallel;
    (void)snprintf(out->constraint, sizeof(out->constraint),
                   "dp=%d is pinned, but only %d rank%s allowed", pinned, request->ranks,
                   request->ranks == 1 ? " is" : "s are");
    (void)snprintf(out->relaxation, sizeof(out->relaxation), "--ranks %d, or drop the dp pin",
                   pinned);
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

/* The global batch nearest to the one asked for that some placement and the pins divide. */
static int64_t nearest_global_batch(const struct space *space)
{
    const struct planner_request *request = space->request;
    const struct pins *pins = &request->pins;
    struct placement known[PLACEMENTS_SHOWN];
    size_t count = profile_placements(request->profile, known, PLACEMENTS_SHOWN);
    int64_t nearest = 0;
    for (size_t i = 0; i < count && i < PLACEMENTS_SHOWN; i++) {
        if (known[i].ranks > request->ranks ||
            (pins->data_parallel > 0 && known[i].ranks != pins->data_parallel) ||
            (pins->threads > 0 && known[i].threads != pins->threads))
            continue;
        int64_t unit = known[i].ranks * (pins->micro_batch > 0 ? pins->micro_batch : 1) *
                       (pins->micro_batches > 0 ? pins->micro_batches : 1);
        int64_t below = request->global_batch / unit * unit;
        bool fixed = pins->micro_batch > 0 && pins->micro_batches > 0;
        int64_t options[2] = {fixed || below == 0 ? unit : below, fixed ? unit : below + unit};
        for (int o = 0; o < 2; o++) {
            if (nearest == 0 || least_distance(options[o], request->global_batch) <
                                    least_distance(nearest, request->global_batch))
                nearest = options[o];
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
    struct leanest leanest;
    *out = (struct infeasibility){.constraint = ""};
    if (space->request->pins.data_parallel > space->request->ranks)
        return explain_ranks(space->request, out, err);
    if (!space->any_placement)
        return explain_placements(space, err);
    if (!space->any_shape)
        return explain_shape(space, out, err);
    if (space->count == 0) {
        *err = space->missing;
        return err->status;
    }
    TRY(leanest_of_all(space, &leanest, err));
    return explain_memory(space, leanest.bytes, out, err);
}
