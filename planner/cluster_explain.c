#include "planner/cluster_explain.h"

#include "base/clock.h"

static const double gib_bytes = 1024.0 * 1024.0 * 1024.0;

struct explaining {
    const struct cluster_search_request *request;
    const struct cluster_answer *answer;
    struct cluster_explanation *out;
    struct reporter reporter; /* the searches themselves are quiet */
};

/* The same search over changed layouts, in the units of the answer. */
static enum status search_again(struct explaining *explaining,
                                const struct layouts_request *layouts, struct cluster_answer *out,
                                struct error *err)
{
    struct cluster_search_request request = *explaining->request;
    request.layouts = layouts;
    request.units = &explaining->answer->units;
    explaining->out->searches++;
    return cluster_search(&request, out, err);
}

/* Numbers that follow from other choices are none. */
static bool is_choice(const struct layouts_request *layouts, const struct cluster_answer *answer,
                      enum layout_choice choice)
{
    bool is_tailored = answer->tailored.found;
    switch (choice) {
    case LAYOUT_MICRO_BATCHES:
        return false;
    case LAYOUT_RECOMPUTE:
        return !is_tailored;
    case LAYOUT_EXPERT:
        return layouts->model->experts > 0;
    case LAYOUT_ARITHMETIC:
        return layouts->others.count > 0;
    default:
        return true;
    }
}

static enum status compare_choice(struct explaining *explaining, enum layout_choice choice,
                                  struct error *err)
{
    const struct cluster_answer *answer = explaining->answer;
    const struct layout *best = &cluster_answer_best(answer)->layout;
    const struct layout_exclusion excluded = {choice, layout_choice_value(best, choice)};
    struct layouts_request layouts = *explaining->request->layouts;
    struct cluster_answer otherwise;
    struct cluster_choice row = {.choice = choice, .value = excluded.value};

    layouts.excluded = &excluded;
    TRY(search_again(explaining, &layouts, &otherwise, err));
    const struct priced_layout *other = cluster_answer_best(&otherwise);
    if (other) {
        row.is_compared = true;
        row.other = other->layout;
        row.other.own = NULL;
        row.gain = otherwise.objective / answer->objective - 1;
        row.least_gain = otherwise.bound / answer->objective - 1;
        row.time_s = other->time_s;
        row.memory_bytes = other->memory_bytes;
    }
    explaining->out->choices[explaining->out->count++] = row;
    cluster_answer_free(&otherwise);
    return STATUS_OK;
}

static enum status compare_memory(struct explaining *explaining, double more_bytes,
                                  struct error *err)
{
    struct layouts_request layouts = *explaining->request->layouts;
    struct cluster cluster = *layouts.cluster;
    struct cluster_answer otherwise;
    struct cluster_memory row = {.more_bytes = more_bytes};

    for (size_t i = 0; i < cluster.group_count; i++) {
        struct device_type *device = &cluster.groups[i].device;
        double bytes = (double)device->memory_bytes + more_bytes;
        device->memory_bytes = bytes > 1 ? (uint64_t)bytes : 1;
    }
    if (layouts.memory_cap_bytes > 0) {
        double bytes = (double)layouts.memory_cap_bytes + more_bytes;
        layouts.memory_cap_bytes = bytes > 1 ? (uint64_t)bytes : 1;
    }
    layouts.cluster = &cluster;
    TRY(search_again(explaining, &layouts, &otherwise, err));
    const struct priced_layout *other = cluster_answer_best(&otherwise);
    if (other) {
        row.fits = true;
        row.saving = 1 - otherwise.objective / explaining->answer->objective;
        row.time_s = other->time_s;
    }
    explaining->out->memory[explaining->out->memory_count++] = row;
    cluster_answer_free(&otherwise);
    return STATUS_OK;
}

static enum status explain_all(struct explaining *explaining, struct error *err)
{
    static const double changes_gib[CLUSTER_MEMORY_COUNT] = {-8, -2, 2, 8};
    const struct layouts_request *layouts = explaining->request->layouts;
    struct cluster_explanation *out = explaining->out;
    size_t steps = LAYOUT_CHOICE_COUNT + CLUSTER_MEMORY_COUNT;

    for (size_t i = 0; i < steps; i++) {
        enum layout_choice choice = (enum layout_choice)i;
        report_progress(&explaining->reporter, "explained", i, steps);
        if (limits_reached(&layouts->limits)) {
            out->is_stopped = true;
            return STATUS_OK;
        }
        if (i >= LAYOUT_CHOICE_COUNT)
            TRY(compare_memory(explaining, changes_gib[i - LAYOUT_CHOICE_COUNT] * gib_bytes, err));
        else if (is_choice(layouts, explaining->answer, choice))
            TRY(compare_choice(explaining, choice, err));
    }
    report_progress(&explaining->reporter, "explained", steps, steps);
    return STATUS_OK;
}

enum status cluster_explain(const struct cluster_search_request *request,
                            const struct cluster_answer *answer, struct cluster_explanation *out,
                            struct error *err)
{
    struct layouts_request quiet = *request->layouts;
    struct cluster_search_request again = *request;
    struct explaining explaining = {&again, answer, out, quiet.reporter};
    double start_s = clock_s();

    *out = (struct cluster_explanation){.count = 0};
    quiet.reporter = (struct reporter){.user = NULL};
    again.layouts = &quiet;
    enum status status = explain_all(&explaining, err);
    out->seconds = clock_s() - start_s;
    return status;
}
