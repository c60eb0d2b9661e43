#include "planner/variation.h"
#include <stdio.h>

static const double gib_bytes = 1024.0 * 1024.0 * 1024.0; /* the unit of a raw memory weight */

void variation_fix_units(struct planner_request *request, const struct plan_objective *objective)
{
    request->raw_weights = true;
    request->weight_time = objective->weight_time / objective->time_unit_s;
    request->weight_memory = objective->weight_memory * gib_bytes / objective->memory_unit_bytes;
    request->weight_energy =
        objective->weight_energy > 0 ? objective->weight_energy / objective->energy_unit_j : 0;
}

struct labelled {
    const struct reporter *outer;
    const char *what;
};

static void progress_labelled(void *user, const char *what, size_t done, size_t total)
{
    const struct labelled *labelled = user;
    char words[128];
    (void)snprintf(words, sizeof(words), "%s: %s", labelled->what, what);
    report_progress(labelled->outer, words, done, total);
}

static void warn_labelled(void *user, const char *message)
{
    const struct labelled *labelled = user;
    report_warning(labelled->outer, "%s: %s", labelled->what, message);
}

enum status variation_search(const struct planner_request *request, const char *what,
                             struct planner_result *result, struct error *err)
{
    struct labelled labelled = {&request->reporter, what};
    struct planner_request varied = *request;
    varied.reporter = (struct reporter){&labelled, progress_labelled, warn_labelled};
    return planner_search(&varied, result, err);
}

enum status variation_try(const struct planner_request *request, const char *what,
                          struct planner_result *result, bool *found, struct error *err)
{
    struct error ignored = {0};
    *result = (struct planner_result){0};
    enum status status = variation_search(request, what, result, &ignored);
    *found = status == STATUS_OK;
    if (status == STATUS_OK || status == STATUS_INFEASIBLE || status == STATUS_INVALID)
        return STATUS_OK;
    *err = ignored;
    return status;
}

bool variation_is_stopped(const struct planner_request *request)
{
    return request->stop != NULL && *request->stop != 0;
}
