#include "cli/plan_cluster.h"

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/cluster_answer.h"
#include "cli/cluster_arithmetic.h"
#include "cli/cluster_front.h"
#include "cli/cluster_pins.h"
#include "cli/cluster_refusal.h"
#include "cli/interrupt.h"
#include "ir/plan_only.h"

#include <math.h>
#include <stdio.h>

/* ---- the request ---- */

/* What no plan of the executor has, before anything is priced. */
static enum status check_executable(const struct cluster_plan_options *options,
                                    const struct arithmetic_list *arithmetics,
                                    const struct layouts_request *request, struct error *err)
{
    TRY(model_check_executable(options->model, options->model_source, err));
    TRY(cluster_pins_check_executable(&request->pins, err));
    for (size_t i = 0; i < arithmetics->count; i++)
        if (arithmetic_is_plan_only(arithmetics->items[i]))
            return error_set(err, STATUS_USAGE,
                             "--arithmetic %s: %s is plan-only, and --executable leaves such plans "
                             "out; expected fp32, bf16 or fp16",
                             options->arithmetic, arithmetic_name(arithmetics->items[i]));
    return STATUS_OK;
}

static enum status make_request(const struct cluster_plan_options *options,
                                const struct cluster *cluster,
                                const struct arithmetic_list *arithmetics,
                                struct layouts_request *out, struct error *err)
{
    *out = (struct layouts_request){
        .cluster = cluster,
        .model = options->model,
        .global_batch = options->global_batch,
        .memory_cap_bytes = options->memory_cap_bytes,
        .risk = options->risk,
        .left_out = options->executable ? PLAN_ONLY_ALL : 0,
        .saves_memory = options->weights.memory > 0,
        .overlaps = true,
        .fused_cross_entropy = true,
        .limits = {.deadline_s =
                       options->time_limit_s > 0 ? clock_s() + options->time_limit_s : INFINITY,
                   .stop = &interrupt_requested},
        .reporter = console_reporter(),
    };
    if (!framework_parse(options->framework, &out->framework))
        return error_set(err, STATUS_USAGE, "--framework %s: expected megatron, deepspeed or fsdp",
                         options->framework);
    for (size_t i = 0; i < arithmetics->count; i++)
        TRY(cluster_check_planning(cluster, arithmetics->items[i], cluster->name, err));
    TRY(cluster_pins_take(options->pins, options->model, &out->pins, err));
    TRY(cluster_arithmetic_take(arithmetics, out, err));
    /* What is to be handed over must be a schedule that some target has. */
    if (options->handover->wanted && out->pins.schedule < 0)
        out->left_out |= 1U << PLAN_ONLY_SCHEDULE;
    return options->executable ? check_executable(options, arithmetics, out, err) : STATUS_OK;
}

/* ---- the answer ---- */

enum { FRONT_POINTS = 64 };

static enum status plan_front(const struct cluster_plan_options *options,
                              const struct cluster *cluster,
                              const struct cluster_search_request *search, struct error *err)
{
    const struct cluster_front_request request = {
        .search = search,
        .axes = options->axes,
        .points_most = options->points >= 0 ? (int)options->points : FRONT_POINTS,
    };
    struct cluster_front front;
    enum status status = cluster_front_find(&request, &front, err);
    console_progress_end();
    TRY(status);
    if (front.count == 0) {
        const struct cluster_answer answer = {.uniform = front.uniform, .is_whole = front.is_whole};
        status = cluster_refuse(cluster, search->layouts, &answer, err);
    } else {
        status = cluster_front_tell(options, cluster, &front, err);
    }
    cluster_front_free(&front);
    return status;
}

static enum status explain_and_tell(const struct cluster_plan_options *options,
                                    const struct cluster *cluster,
                                    const struct cluster_search_request *request,
                                    const struct cluster_answer *answer, struct error *err)
{
    struct cluster_explanation explanation;
    if (!options->explain)
        return cluster_answer_tell(options, cluster, answer, NULL, err);
    enum status status = cluster_explain(request, answer, &explanation, err);
    console_progress_end();
    TRY(status);
    return cluster_answer_tell(options, cluster, answer, &explanation, err);
}

static enum status plan_best(const struct cluster_plan_options *options,
                             const struct cluster *cluster,
                             const struct cluster_search_request *request, struct error *err)
{
    struct cluster_answer answer;
    enum status status = cluster_search(request, &answer, err);
    console_progress_end();
    TRY(status);
    status = cluster_answer_best(&answer) == NULL
                 ? cluster_refuse(cluster, request->layouts, &answer, err)
                 : explain_and_tell(options, cluster, request, &answer, err);
    cluster_answer_free(&answer);
    return status;
}

enum status plan_for_cluster(const struct cluster_plan_options *given, struct error *err)
{
    struct cluster cluster;
    struct cluster_plan_options options = *given;
    struct layouts_request layouts;
    struct cluster_search_request request = {
        .layouts = &layouts, .weights = given->weights, .gap_target = given->gap_target};
    TRY(cluster_load(&cluster, options.cluster, err));
    TRY(cluster_arithmetic_parse(options.arithmetic, &request.arithmetics, err));
    TRY(make_request(&options, &cluster, &request.arithmetics, &layouts, err));
    TRY(interrupt_catch(err));
    if (options.pareto == NULL)
        return plan_best(&options, &cluster, &request, err);
    TRY(cluster_front_check(&options, &cluster, &options.axes, err));
    layouts.saves_memory = (options.axes & FRONT_MEMORY) != 0;
    return plan_front(&options, &cluster, &request, err);
}
