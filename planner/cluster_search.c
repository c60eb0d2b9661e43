#include "planner/cluster_search.h"

#include <math.h>
#include <stdlib.h>

/* Closer than this is equal: sums in another order differ by as much. */
static const double same_share = 1e-9;

bool cluster_search_has_uniform(const struct layouts_request *layouts)
{
    return layouts->pins.block_count == 0 && layouts->cluster->group_count == 1;
}

static enum status search_uniform(const struct cluster_search_request *request,
                                  struct cluster_answer *out, struct error *err)
{
    struct layout_list *list = &out->uniform;
    *list = (struct layout_list){.is_whole = true, .leanest_bytes = INFINITY};
    out->units = request->units ? *request->units : layouts_units(list, request->weights.raw);
    if (!cluster_search_has_uniform(request->layouts))
        return STATUS_OK;
    TRY(layouts_price(request->layouts, list, err));
    out->objectives = calloc(list->count + 1, sizeof(*out->objectives));
    if (!out->objectives)
        return error_memory(err, list->count * sizeof(*out->objectives), "the layouts");
    out->units = request->units ? *request->units : layouts_units(list, request->weights.raw);
    return layouts_rank(list, &request->weights, &out->units, out->objectives, err);
}

/* Without uniform layouts the quickest one's figures are the units. */
static enum status search_quickest(const struct tailor_request *tailor, struct cluster_answer *out,
                                   struct error *err)
{
    static const struct layout_weights time_alone = {.time = 1, .raw = true};
    struct tailor_request quickest = *tailor;
    quickest.weights = &time_alone;
    quickest.units = (struct priced_layout){.time_s = 1, .memory_bytes = 1, .energy_j = 1};
    return tailor_search(&quickest, &out->tailored, err);
}

static enum status search_tailored(const struct cluster_search_request *request,
                                   struct cluster_answer *out, struct error *err)
{
    const struct layout_weights *weights = &request->weights;
    struct tailor_request tailor = {
        .layouts = request->layouts,
        .weights = weights,
        .units = out->units,
        .best_objective = INFINITY,
        .arithmetics = request->arithmetics,
        .gap_target = request->gap_target,
    };
    if (out->uniform.count > 0) {
        tailor.best_objective = out->objectives[0];
    } else if (!weights->raw && !request->units) {
        TRY(search_quickest(&tailor, out, err));
        bool only_time = weights->memory == 0 && weights->energy == 0;
        out->units = tailor.units = out->tailored.priced;
        if (!out->tailored.found)
            return STATUS_OK;
        if (only_time) {
            double unit = weights->time / tailor.units.time_s;
            out->tailored.objective *= unit;
            out->tailored.bound *= unit;
            return STATUS_OK;
        }
        tailored_free(&out->tailored);
    }
    return tailor_search(&tailor, &out->tailored, err);
}

enum status cluster_search(const struct cluster_search_request *request, struct cluster_answer *out,
                           struct error *err)
{
    *out = (struct cluster_answer){.objective = INFINITY};
    enum status status = search_uniform(request, out, err);
    if (status == STATUS_OK)
        status = search_tailored(request, out, err);
    if (status != STATUS_OK) {
        cluster_answer_free(out);
        return status;
    }
    if (out->uniform.count > 0)
        out->objective = out->objectives[0];
    if (out->tailored.found)
        out->objective = out->tailored.objective;
    /* limits that ended the list of uniform layouts left some that nothing is known of */
    out->is_whole = out->uniform.is_whole && out->tailored.is_whole;
    out->bound = out->uniform.is_whole ? fmin(out->tailored.bound, out->objective) : 0;
    return STATUS_OK;
}

const struct priced_layout *cluster_answer_best(const struct cluster_answer *answer)
{
    if (answer->tailored.found)
        return &answer->tailored.priced;
    return answer->uniform.count > 0 ? &answer->uniform.rows[0] : NULL;
}

double cluster_answer_gap(const struct cluster_answer *answer)
{
    double gap = 1 - answer->bound / answer->objective;
    return gap > same_share ? gap : 0;
}

void cluster_answer_free(struct cluster_answer *answer)
{
    tailored_free(&answer->tailored);
    layouts_free(&answer->uniform);
    free(answer->objectives);
    answer->objectives = NULL;
}
