#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/plan_cluster.h"
#include "cli/plan_compare.h"
#include "cli/plan_explain.h"
#include "cli/plan_export.h"
#include "cli/plan_front.h"
#include "cli/plan_tell.h"
#include "cli/plan_text.h"
#include "cli/plan_top.h"
#include "planner/planner.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plan_options {
    struct model_arguments model;
    const char *store;
    const char *host;
    int64_t ranks;
    int64_t global_batch;
    uint64_t memory_cap_bytes;
    double risk;
    bool executable;
    const char *weights;
    bool raw_weights;
    const char *pins;
    double gap;
    double time_limit_s;
    const char *cluster, *framework, *arithmetic;
    const char *pareto;
    int64_t points;
    const char *csv, *svg;
    int64_t top;
    bool explain, compare;
    const char *output;
    const char *export_to;
    struct export_request handover; /* what export_to says */
    bool json;
};

static const struct option_spec model_rows[] = {MODEL_OPTION_ROWS(struct plan_options)};
static const struct option_spec step_rows[] = {
    STORE_OPTION_ROW(struct plan_options),
    {.name = "host",
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, host),
     .metavar = "NAME",
     .doc = "plan from the measurements of this host (the newest profile's)"},
    {.name = "ranks",
     .type = OPTION_INT,
     .offset = offsetof(struct plan_options, ranks),
     .metavar = "N",
     .fallback = "1",
     .doc = "ranks that may be used; fewer are taken when that is better, and said",
     .minimum = 1,
     .maximum = 1e6},
    {.name = "global-batch",
     .type = OPTION_INT,
     .offset = offsetof(struct plan_options, global_batch),
     .metavar = "N",
     .doc = "sequences of one training step, all ranks together (required)",
     .minimum = 1,
     .maximum = 1e9},
    {.name = "memory-cap",
     .type = OPTION_BYTES,
     .offset = offsetof(struct plan_options, memory_cap_bytes),
     .metavar = "SIZE",
     .doc = "most memory of one rank, such as 2GiB (none; with --cluster what a device has)"},
    {.name = "risk",
     .type = OPTION_REAL,
     .offset = offsetof(struct plan_options, risk),
     .metavar = "SHARE",
     .fallback = "0.05",
     .doc = "share of runs that may need more memory than the cap: 0.05 holds it at the 95th "
            "percentile of the predicted memory",
     .minimum = 1e-9,
     .maximum = 0.5},
    {.name = "executable",
     .type = OPTION_FLAG,
     .offset = offsetof(struct plan_options, executable),
     .doc = "leave out what `temper run` cannot execute and --cluster marks plan-only: context and "
            "expert parallelism, offload, fp8 and tf32, some schedules; plans from a store are all "
            "executable"},
};
static const struct option_spec search_rows[] = {
    {.name = "weights",
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, weights),
     .metavar = "T,M,E",
     .fallback = "1,0,0",
     .doc = "weights of time, memory and energy in the objective"},
    {.name = "raw-weights",
     .type = OPTION_FLAG,
     .offset = offsetof(struct plan_options, raw_weights),
     .doc = "weights multiply seconds, GiB and joules instead of shares of the best of each alone"},
    {.name = "pin",
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, pins),
     .metavar = "KEY=VALUE,...",
     .doc = "fix choices: pp, dp, v, schedule, micro-batch, micro-batches, threads, gradients, tp, "
            "sp, zero, recompute, precision, attention; the last six also for one kind of layer or "
            "for some blocks, as "
            "in zero:mlp=2, recompute:3-5=full or tp:attention:0=2; with --cluster also cp, ep, "
            "shard, offload, fused-attention and overlap"},
    {.name = "gap",
     .type = OPTION_REAL,
     .offset = offsetof(struct plan_options, gap),
     .metavar = "SHARE",
     .fallback = "0",
     .doc = "stop when the plan is proven this close to the optimum; 0 proves the optimum",
     .minimum = 0,
     .maximum = 1},
    {.name = "time-limit",
     .type = OPTION_REAL,
     .offset = offsetof(struct plan_options, time_limit_s),
     .metavar = "SECONDS",
     .fallback = "0",
     .doc = "stop the search after this long with the best so far and its gap; 0 is no limit",
     .minimum = 0,
     .maximum = 1e9},
};
static const struct option_spec cluster_rows[] = {
    {.name = "cluster",
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, cluster),
     .metavar = "CLUSTER",
     .doc = "plan from a description instead of a store: h100x1024, a100-80x64 and so on, or a "
            "cluster file"},
    {.name = "framework",
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, framework),
     .metavar = "NAME",
     .fallback = "megatron",
     .doc = "with --cluster: what runs there, megatron, deepspeed or fsdp"},
    {.name = "arithmetic",
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, arithmetic),
     .metavar = "NAMES",
     .fallback = "bf16",
     .doc = "with --cluster: what products are computed in, fp32, tf32, bf16, fp16 or fp8; of "
            "several, as in bf16,fp8 or tf32,bf16,fp8, layouts and their blocks choose"},
};
static const struct option_spec answer_rows[] = {
    {.name = "explain",
     .type = OPTION_FLAG,
     .offset = offsetof(struct plan_options, explain),
     .doc = "say what each choice of the plan gains over the best plan that chooses otherwise, and "
            "what more memory would save; one search for each, so it takes a while"},
    {.name = "top",
     .type = OPTION_INT,
     .offset = offsetof(struct plan_options, top),
     .metavar = "N",
     .doc = "the N best plans, each the best of its ranks, degrees, schedule, micro-batch and "
            "threads: two that differ only in stage boundaries or in what single layers do count "
            "as one",
     .minimum = 1,
     .maximum = 1000},
    {.name = "pareto",
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, pareto),
     .metavar = "AXES",
     .doc = "the plans that none is better than in all of two or more of time, memory, energy and, "
            "with --cluster, cost and carbon, such as time,memory; --weights play no part"},
    {.name = "points",
     .type = OPTION_INT,
     .offset = offsetof(struct plan_options, points),
     .metavar = "N",
     .doc = "with --pareto: sweep memory and energy in about so many steps (16; with --cluster "
            "memory in 64); 0 finds every point",
     .minimum = 0,
     .maximum = 1e6},
    {.name = "csv",
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, csv),
     .metavar = "FILE",
     .doc = "with --pareto: write the points here as a table"},
    {.name = "svg",
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, svg),
     .metavar = "FILE",
     .doc = "with --pareto: draw the points here"},
    {.name = "compare",
     .type = OPTION_FLAG,
     .offset = offsetof(struct plan_options, compare),
     .doc = "hold two plan files, or two answers of --cluster ... --json that were kept in files, "
            "against each other: which terms and which choices differ, and why one wins; needs no "
            "store"},
};
static const struct option_spec output_rows[] = {
    {.name = "output",
     .letter = 'o',
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, output),
     .metavar = "FILE",
     .doc = "write the plan here, for `temper run`; of several, plan.json becomes plan-1.json, "
            "plan-2.json and so on"},
    {.name = "export",
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, export_to),
     .metavar = "TARGET[=FILE]",
     .doc =
         "hand the plan over to megatron, deepspeed, torchtitan or nemo, and say what they cannot "
         "run and its price; also that of a plan file: temper plan PLAN.json --export TARGET"},
    JSON_OPTION_ROW(struct plan_options),
};
static const struct option_table groups[] = {
    {.rows = model_rows, .count = COUNT_OF(model_rows), .heading = "Model"},
    {.rows = step_rows, .count = COUNT_OF(step_rows), .heading = "What to plan for"},
    {.rows = search_rows, .count = COUNT_OF(search_rows), .heading = "Search"},
    {.rows = cluster_rows, .count = COUNT_OF(cluster_rows), .heading = "A cluster elsewhere"},
    {.rows = answer_rows, .count = COUNT_OF(answer_rows), .heading = "More than one plan"},
    {.rows = output_rows, .count = COUNT_OF(output_rows), .heading = "Output"},
};
static const struct command_spec spec = {
    .name = "plan",
    .summary = "find the plan that minimises time, memory and energy under the memory cap",
    .synopsis = "--model MODEL --global-batch N [options] | --cluster h100x64 ... | --compare "
                "A.json B.json",
    .description =
        "Predicts every executable plan from the measurements in the store and finds the one that "
        "minimises w1*T + w2*M + w3*E: ranks and threads, their split into pipeline stages, "
        "replicas and tensor-parallel shares, schedule, stage boundaries, micro-batch, and for "
        "each layer its tensor- and sequence-parallel degree, ZeRO stage, recompute mode and "
        "precision. The answer comes with "
        "a bound that no plan can be below; `optimal` is printed only when the two meet. When "
        "everything is pinned, the plan is only predicted.\n\n"
        "When no plan fits, the exit code is 3 and the message names the tightest constraint, how "
        "much memory is missing and the cheapest change that would help.\n\n"
        "--pareto, --top and --explain answer what one plan leaves open; Ctrl-C ends them with "
        "what was found so far. --compare reads two plan files or two answers of --cluster. "
        "--cluster plans for devices that are not at hand, from their description.",
    .groups = groups,
    .group_count = COUNT_OF(groups),
    .example = "temper plan --model gpt2 --seq-length 256 --ranks 2 --global-batch 16 "
               "--memory-cap 6GiB --weights 1,0,0 -o plan.json",
    .positional_maximum = 2,
};

static enum status parse_weights(const char *text, struct planner_request *request,
                                 struct error *err)
{
    double *weights[] = {&request->weight_time, &request->weight_memory, &request->weight_energy};
    const char *at = text;
    for (size_t i = 0; i < COUNT_OF(weights); i++) {
        char *end = NULL;
        *weights[i] = strtod(at, &end);
        bool is_last = i + 1 == COUNT_OF(weights);
        if (end == at || *end != (is_last ? '\0' : ',') ||
            !(*weights[i] >= 0 && *weights[i] < 1e12))
            return error_set(
                err, STATUS_USAGE,
                "option --weights: '%s' is not three numbers >= 0 such as 1,0,0 (time, "
                "memory, energy)",
                text);
        at = end + 1;
    }
    if (request->weight_time + request->weight_memory + request->weight_energy <= 0)
        return error_set(err, STATUS_USAGE,
                         "option --weights: at least one weight must be above 0");
    return STATUS_OK;
}

/* ---- the one plan ---- */

/* What is told besides the plan; NULL where it was not asked for. */
struct extras {
    const struct explanation *explanation;
    const struct exported *exported;
};

static enum status write_json(const struct plan_options *options,
                              const struct planner_result *result, const struct extras *extras,
                              struct error *err)
{
    struct jout *out = jout_new();
    enum status status = plan_tell_json(&result->plan, out, err);
    plan_tell_statistics_json(&result->statistics, out);
    jout_real(out, "risk", options->risk);
    if (extras->explanation != NULL)
        plan_explain_json(extras->explanation, out);
    if (extras->exported != NULL)
        exported_json(extras->exported, out);
    return plan_tell_done(out, status, err);
}

static enum status write_text(const struct plan_options *options,
                              const struct planner_result *result, const struct extras *extras,
                              struct error *err)
{
    struct text table = {0}, handover = {0};
    plan_text(&result->plan, &table);
    if (extras->explanation != NULL)
        plan_explain_text(extras->explanation, &table);
    if (extras->exported != NULL)
        exported_text(extras->exported, &handover);
    enum status status = text_check(&table, err);
    if (status == STATUS_OK)
        fputs(table.data, stdout);
    text_free(&table);
    plan_tell_statistics(&result->statistics);
    if (options->memory_cap_bytes > 0)
        printf("the memory cap holds in all but %g %% of runs\n", 100 * options->risk);
    if (options->output != NULL)
        printf("plan written to %s\n", options->output);
    if (status == STATUS_OK)
        status = text_check(&handover, err);
    if (status == STATUS_OK && handover.data != NULL)
        printf("\n%s", handover.data);
    text_free(&handover);
    return status;
}

static enum status tell_plan(const struct plan_options *options,
                             const struct planner_result *result, const struct extras *extras,
                             struct error *err)
{
    const struct plan *plan = &result->plan;
    if (options->output != NULL)
        TRY(plan_save(plan, options->output, err));
    if (plan->ranks < options->ranks)
        console_warning("this plan uses %d of %lld ranks: more would not lower the objective or "
                        "were not profiled (temper profile --ranks)",
                        plan->ranks, (long long)options->ranks);
    if (options->json)
        return write_json(options, result, extras, err);
    return write_text(options, result, extras, err);
}

/* A plan that cannot be handed over is told and written all the same. */
static enum status export_and_tell(const struct plan_options *options,
                                   const struct planner_request *request,
                                   const struct planner_result *result,
                                   const struct explanation *explanation, struct error *err)
{
    struct exported exported;
    struct extras extras = {.explanation = explanation};
    struct error told;
    if (!options->handover.wanted)
        return tell_plan(options, result, &extras, err);
    enum status status =
        plan_export(&options->handover, request->profile, &result->plan, &exported, err);
    if (status != STATUS_OK) {
        tell_plan(options, result, &extras, &told);
        return status;
    }
    extras.exported = &exported;
    status = tell_plan(options, result, &extras, err);
    exported_free(&exported);
    return status;
}

/* Ctrl-C before the plan is found leaves the plan alone; it is told even if it was not explained.
 */
static enum status explain_and_tell(const struct plan_options *options,
                                    const struct planner_request *request,
                                    const struct planner_result *result, struct error *err)
{
    struct explanation explanation = {0};
    if (!options->explain)
        return export_and_tell(options, request, result, NULL, err);
    enum status status = explain_plan(request, &result->plan, &explanation, err);
    console_progress_end();
    if (status == STATUS_OK)
        status = export_and_tell(options, request, result, &explanation, err);
    explanation_clear(&explanation);
    return status;
}

static enum status search_best(const struct plan_options *options,
                               const struct planner_request *request, struct error *err)
{
    struct planner_result result = {0};
    enum status status = planner_search(request, &result, err);
    console_progress_end();
    if (status == STATUS_INFEASIBLE)
        status = plan_tell_infeasible(&result.infeasibility, options->json, err);
    else if (status == STATUS_OK)
        status = explain_and_tell(options, request, &result, err);
    plan_clear(&result.plan);
    return status;
}

/* ---- all ---- */

enum { FRONT_POINTS = 16 };

static enum status search(const struct plan_options *options, struct planner_request *request,
                          struct error *err)
{
    const struct plan_front_options front = {
        .axes = options->pareto,
        .points_most = options->points >= 0 ? (int)options->points : FRONT_POINTS,
        .csv = options->csv,
        .svg = options->svg,
        .output = options->output,
        .json = options->json};
    const struct plan_top_options top = {
        .most = options->top, .output = options->output, .json = options->json};
    request->stop = &interrupt_requested;
    TRY(interrupt_catch(err));
    if (options->pareto != NULL)
        return plan_front(request, &front, err);
    if (options->top > 0)
        return plan_top(request, &top, err);
    return search_best(options, request, err);
}

static enum status plan_from_store(const struct plan_options *options, struct store *store,
                                   struct error *err)
{
    struct model model;
    struct profile *profile = NULL;
    struct planner_request request = {
        .model = &model,
        .ranks = (int)options->ranks,
        .global_batch = options->global_batch,
        .memory_cap_bytes = options->memory_cap_bytes,
        .risk = options->risk,
        .raw_weights = options->raw_weights,
        .pins_text = options->pins,
        .gap_target = options->gap,
        .time_limit_s = options->time_limit_s,
        .reporter = console_reporter(),
    };
    TRY(model_from_arguments(&options->model, &model, err));
    TRY(model_check_executable(&model, options->model.source, err));
    TRY(export_request_check(&options->handover, &model, err));
    TRY(parse_weights(options->weights, &request, err));
    if (options->pins != NULL)
        TRY(pins_parse(&request.pins, options->pins, err));
    TRY(pins_check_measured(&request.pins, err));
    TRY(pins_check_model(&request.pins, &model, err));
    TRY(profile_open(&profile, store, options->host, err));
    request.profile = profile;
    enum status status = search(options, &request, err);
    profile_close(profile);
    return status;
}

enum { CLUSTER_TOP = 10 };

static enum status plan_on_cluster(const struct plan_options *options, struct error *err)
{
    struct model model;
    struct pins pins = {.micro_batch = 0};
    struct planner_request request = {.model = &model};
    TRY(model_from_arguments(&options->model, &model, err));
    TRY(parse_weights(options->weights, &request, err));
    if (options->pins != NULL)
        TRY(pins_parse(&pins, options->pins, err));
    const struct cluster_plan_options cluster = {
        .model = &model,
        .model_source = options->model.source,
        .cluster = options->cluster,
        .framework = options->framework,
        .arithmetic = options->arithmetic,
        .global_batch = options->global_batch,
        .memory_cap_bytes = options->memory_cap_bytes,
        .risk = options->risk,
        .executable = options->executable,
        .weights = {.time = request.weight_time,
                    .memory = request.weight_memory,
                    .energy = request.weight_energy,
                    .raw = options->raw_weights},
        .pins = &pins,
        .pins_text = options->pins != NULL ? options->pins : "",
        .gap_target = options->gap,
        .time_limit_s = options->time_limit_s,
        .top = options->top > 0 ? options->top : CLUSTER_TOP,
        .explain = options->explain,
        .pareto = options->pareto,
        .csv = options->csv,
        .svg = options->svg,
        .points = options->points,
        .handover = &options->handover,
        .json = options->json,
    };
    TRY(export_request_check(&options->handover, &model, err));
    return plan_for_cluster(&cluster, err);
}

/* Which answers exclude each other, and which options belong to one of them. */
static enum status check_answers(const struct plan_options *options,
                                 const struct positionals *positionals, struct error *err)
{
    int answers =
        options->explain + options->compare + (options->top > 0) + (options->pareto != NULL);
    if (answers > 1)
        return error_set(err, STATUS_USAGE,
                         "--explain, --top, --pareto and --compare are different questions; ask "
                         "one at a time");
    if (options->compare && positionals->count != 2)
        return error_set(err, STATUS_USAGE,
                         "option --compare: expected two plan files or two answers of --cluster, "
                         "found %zu: temper plan --compare A.json B.json",
                         positionals->count);
    bool is_one = options->cluster != NULL || answers == options->explain;
    if (options->handover.wanted && !is_one)
        return error_set(err, STATUS_USAGE,
                         "--export hands over one plan; it does not go with --top, --pareto and "
                         "--compare");
    if (!options->compare && positionals->count > options->handover.wanted)
        return error_set(err, STATUS_USAGE,
                         "unexpected argument '%s'; plan files go with --compare A.json B.json",
                         positionals->values[0]);
    bool is_other = options->compare || options->output != NULL;
    if (options->cluster != NULL && is_other)
        return error_set(err, STATUS_USAGE,
                         "--cluster prints layouts for another machine's launch scripts: it goes "
                         "with --top, --pareto, --csv, --svg, --explain, --export and --json, not "
                         "with --compare or -o");
    if (options->pareto == NULL && (options->csv != NULL || options->svg != NULL))
        return error_set(err, STATUS_USAGE, "option --%s goes with --pareto AXES",
                         options->csv != NULL ? "csv" : "svg");
    return STATUS_OK;
}

static enum status run(int argc, char **argv, struct error *err)
{
    struct plan_options options = {.points = -1};
    struct positionals positionals = {0};
    struct store *store = NULL;
    TRY(options_parse(&spec, argc, argv, &options, &positionals, err));
    TRY(export_request_parse(&options.handover, options.export_to, err));
    options.handover.risk = options.risk;
    TRY(check_answers(&options, &positionals, err));
    if (options.handover.wanted && positionals.count == 1) {
        struct export_source source = {positionals.values[0], options.store, options.host,
                                       options.json};
        return plan_export_file(&options.handover, &source, err);
    }
    if (options.compare)
        return plan_compare(positionals.values[0], positionals.values[1], options.json, err);
    if (options.global_batch == 0)
        return error_set(err, STATUS_USAGE,
                         "--global-batch is missing: how many sequences is one training step?");
    if (options.cluster != NULL)
        return plan_on_cluster(&options, err);
    TRY(store_open(&store, options.store, STORE_READ, err));
    enum status status = plan_from_store(&options, store, err);
    store_close(store);
    return status;
}

const struct command command_plan = {.spec = &spec, .run = run};
