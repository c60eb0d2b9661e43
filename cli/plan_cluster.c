#include "cli/plan_cluster.h"

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/cluster_answer.h"
#include "cli/cluster_front.h"
#include "cli/cluster_pins.h"
#include "cli/cluster_refusal.h"
#include "ir/plan_only.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the request ---- */

/* What no plan of the executor has, before anything is priced. */
static enum status check_executable(const struct cluster_plan_options *options,
                                    const struct layouts_request *request, struct error *err)
{
    TRY(model_check_executable(options->model, options->model_source, err));
    TRY(cluster_pins_check_executable(&request->pins, err));
    if (arithmetic_is_plan_only(request->arithmetic))
        return error_set(err, STATUS_USAGE,
                         "--arithmetic %s: it is plan-only, and --executable leaves such plans "
                         "out; expected fp32, bf16 or fp16",
                         options->arithmetic);
    return STATUS_OK;
}

/* One for all blocks, or 16 bit and fp8 to choose from block by block. */
static enum status parse_arithmetic(const char *text, enum arithmetic out[2], size_t *count,
                                    struct error *err)
{
    char first[8] = "";
    const char *comma = strchr(text, ',');
    size_t bytes = comma == NULL ? strlen(text) : (size_t)(comma - text);
    *count = comma == NULL ? 1 : 2;
    (void)snprintf(first, sizeof(first), "%.*s", (int)(bytes < INT_MAX ? bytes : INT_MAX), text);
    if (!arithmetic_parse(first, &out[0]) ||
        (comma != NULL && !arithmetic_parse(comma + 1, &out[1])))
        return error_set(err, STATUS_USAGE,
                         "--arithmetic %s: expected fp32, tf32, bf16, fp16 or fp8, or bf16,fp8 to "
                         "choose block by block",
                         text);
    bool is_16_bit = out[0] == ARITHMETIC_BF16 || out[0] == ARITHMETIC_FP16;
    if (comma != NULL && (!is_16_bit || out[1] != ARITHMETIC_FP8))
        return error_set(err, STATUS_USAGE,
                         "--arithmetic %s: blocks can choose between 16 bit and fp8: bf16,fp8 or "
                         "fp16,fp8",
                         text);
    return STATUS_OK;
}

static enum status make_request(const struct cluster_plan_options *options,
                                const struct cluster *cluster, const enum arithmetic *arithmetics,
                                size_t arithmetic_count, struct layouts_request *out,
                                struct error *err)
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
        .fused = true,
        .limits = {.deadline_s =
                       options->time_limit_s > 0 ? clock_s() + options->time_limit_s : INFINITY,
                   .stop = &interrupt_requested},
        .reporter = console_reporter(),
    };
    if (!framework_parse(options->framework, &out->framework))
        return error_set(err, STATUS_USAGE, "--framework %s: expected megatron, deepspeed or fsdp",
                         options->framework);
    out->arithmetic = arithmetics[0];
    for (size_t i = 0; i < arithmetic_count; i++)
        TRY(cluster_check_planning(cluster, arithmetics[i], cluster->name, err));
    TRY(cluster_pins_take(options->pins, options->model, &out->pins, err));
    /* What is to be handed over must be a schedule that some target has. */
    if (options->handover->wanted && out->pins.schedule < 0)
        out->left_out |= 1U << PLAN_ONLY_SCHEDULE;
    return options->executable ? check_executable(options, out, err) : STATUS_OK;
}

/* ---- the answer ---- */

/* The front is that of the uniform layouts, all of which are priced. */
static enum status plan_front(const struct cluster_plan_options *options,
                              const struct cluster *cluster, const struct layouts_request *request,
                              struct error *err)
{
    struct cluster_answer answer = {.is_whole = true};
    if (cluster->group_count > 1 || request->pins.block_count > 0)
        return error_set(err, STATUS_USAGE,
                         "--pareto: the front is of layouts that are the same for every block, on "
                         "a cluster of one group; leave out pins of single blocks");
    enum status status = layouts_price(request, &answer.uniform, err);
    console_progress_end();
    TRY(status);
    answer.is_whole = answer.uniform.is_whole;
    status = answer.uniform.count == 0 ? cluster_refuse(cluster, request, &answer, err)
                                       : cluster_front_tell(options, cluster, &answer.uniform, err);
    layouts_free(&answer.uniform);
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
    TRY(parse_arithmetic(options.arithmetic, request.arithmetics, &request.arithmetic_count, err));
    TRY(make_request(&options, &cluster, request.arithmetics, request.arithmetic_count, &layouts,
                     err));
    interrupt_catch();
    if (options.pareto == NULL)
        return plan_best(&options, &cluster, &request, err);
    TRY(cluster_front_check(&options, &cluster, &options.axes, err));
    layouts.saves_memory = (options.axes & FRONT_MEMORY) != 0;
    return plan_front(&options, &cluster, &layouts, err);
}
