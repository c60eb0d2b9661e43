#include "base/units.h"
#include "cli/cli.h"
#include "cli/plan_text.h"
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
    const char *weights;
    bool raw_weights;
    const char *pins;
    double gap;
    double time_limit_s;
    const char *output;
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
     .doc = "most memory of one rank, held at the 95th percentile, such as 2GiB (none)"},
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
     .doc = "fix choices: pp, dp, v, schedule, micro-batch, micro-batches, threads, tp, sp, zero, "
            "recompute, precision; the last five also for one kind, as in zero:mlp=2"},
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
static const struct option_spec output_rows[] = {
    {.name = "output",
     .letter = 'o',
     .type = OPTION_STRING,
     .offset = offsetof(struct plan_options, output),
     .metavar = "FILE",
     .doc = "write the plan here, for `temper run`"},
    JSON_OPTION_ROW(struct plan_options),
};
static const struct option_table groups[] = {
    {.rows = model_rows, .count = COUNT_OF(model_rows), .heading = "Model"},
    {.rows = step_rows, .count = COUNT_OF(step_rows), .heading = "What to plan for"},
    {.rows = search_rows, .count = COUNT_OF(search_rows), .heading = "Search"},
    {.rows = output_rows, .count = COUNT_OF(output_rows), .heading = "Output"},
};
static const struct command_spec spec = {
    .name = "plan",
    .summary = "find the plan that minimises time, memory and energy under the memory cap",
    .synopsis = "--model MODEL --global-batch N [options]",
    .description =
        "Predicts every executable plan from the measurements in the store and finds the one that "
        "minimises w1*T + w2*M + w3*E: ranks and threads, their split into pipeline stages, "
        "replicas and tensor-parallel shares, schedule, stage boundaries, micro-batch, and for "
        "each layer its tensor- and sequence-parallel degree, ZeRO stage, recompute mode and "
        "precision. The answer comes with "
        "a bound that no plan can be below; `optimal` is printed only when the two meet. When "
        "everything is pinned, the plan is only predicted.\n\n"
        "When no plan fits, the exit code is 3 and the message names the tightest constraint, how "
        "much memory is missing and the cheapest change that would help.",
    .groups = groups,
    .group_count = COUNT_OF(groups),
    .example = "temper plan --model gpt2 --seq-length 256 --ranks 2 --global-batch 16 "
               "--memory-cap 6GiB --weights 1,0,0 -o plan.json",
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

static void print_statistics(const struct search_statistics *statistics)
{
    char seconds[UNIT_TEXT_BYTES];
    printf("search: %llu candidates, %llu bounded away, %llu solved, %llu columns, %s\n",
           (unsigned long long)statistics->candidates, (unsigned long long)statistics->bounded_away,
           (unsigned long long)statistics->solved, (unsigned long long)statistics->columns,
           format_seconds(statistics->seconds, seconds));
}

static enum status write_json(const struct plan *plan, const struct search_statistics *statistics,
                              struct error *err)
{
    const struct prediction *prediction = &plan->prediction;
    struct text plan_text = {0};
    enum status status = plan_write_json(plan, &plan_text, err);
    if (status != STATUS_OK) {
        text_free(&plan_text);
        return status;
    }
    struct jout *out = jout_new();
    /* With everything pinned the searched space is this one plan, so it is the best of it. */
    bool is_gap = plan->status == PLAN_GAP;
    jout_string(out, "status", plan_status_name(is_gap ? PLAN_GAP : PLAN_OPTIMAL));
    jout_bool(out, "searched", plan->status != PLAN_PREDICTED);
    jout_real(out, "objective", plan->objective.value);
    jout_real(out, "bound", plan->objective.bound);
    jout_real(out, "gap", plan->objective.gap);
    jout_real(out, "time_s", prediction->time_s.value);
    jout_real(out, "memory_bytes", prediction->memory_bytes.value);
    write_energy(&prediction->energy_j, out);
    jout_begin_object(out, "search");
    jout_int(out, "candidates", (int64_t)statistics->candidates);
    jout_int(out, "bounded_away", (int64_t)statistics->bounded_away);
    jout_int(out, "solved", (int64_t)statistics->solved);
    jout_int(out, "columns", (int64_t)statistics->columns);
    jout_real(out, "seconds", statistics->seconds);
    jout_end(out);
    jout_raw(out, "plan", plan_text.data);
    text_free(&plan_text);
    return console_json(out, err);
}

/* The message and, under --json, the object for scripts; keeps STATUS_INFEASIBLE. */
static enum status tell_infeasible(const struct infeasibility *why, bool json, struct error *err)
{
    char missing[UNIT_TEXT_BYTES];
    if (json) {
        struct error json_err = {0};
        struct jout *out = jout_new();
        jout_string(out, "status", "infeasible");
        jout_null(out, "objective");
        jout_null(out, "bound");
        jout_null(out, "gap");
        jout_null(out, "time_s");
        jout_null(out, "memory_bytes");
        jout_null(out, "energy_j");
        jout_string(out, "energy_provenance", provenance_name(PROVENANCE_ABSENT));
        jout_string(out, "constraint", why->constraint);
        jout_int(out, "missing_bytes", (int64_t)why->missing_bytes);
        jout_int(out, "leanest_bytes", (int64_t)why->leanest_bytes);
        jout_string(out, "relaxation", why->relaxation);
        jout_null(out, "plan");
        if (console_json(out, &json_err) != STATUS_OK) {
            *err = json_err;
            return err->status;
        }
    }
    if (why->missing_bytes > 0)
        return error_set(
            err, STATUS_INFEASIBLE, "no feasible plan: %s; %s missing. Cheapest relaxation: %s",
            why->constraint, format_bytes((double)why->missing_bytes, missing), why->relaxation);
    return error_set(err, STATUS_INFEASIBLE, "no feasible plan: %s. Cheapest relaxation: %s",
                     why->constraint, why->relaxation);
}

static enum status tell_plan(const struct plan_options *options,
                             const struct planner_result *result, struct error *err)
{
    const struct plan *plan = &result->plan;
    if (options->output != NULL)
        TRY(plan_save(plan, options->output, err));
    if (plan->ranks < options->ranks)
        console_warning("this plan uses %d of %lld ranks: more would not lower the objective or "
                        "were not profiled (temper profile --ranks)",
                        plan->ranks, (long long)options->ranks);
    if (options->json)
        return write_json(plan, &result->statistics, err);
    struct text table = {0};
    plan_text(plan, &table);
    enum status status = text_check(&table, err);
    if (status == STATUS_OK)
        fputs(table.data, stdout);
    text_free(&table);
    print_statistics(&result->statistics);
    if (options->output != NULL)
        printf("plan written to %s\n", options->output);
    return status;
}

static enum status search(const struct plan_options *options, struct planner_request *request,
                          struct error *err)
{
    struct planner_result result = {0};
    request->stop = &interrupt_requested;
    interrupt_catch();
    enum status status = planner_search(request, &result, err);
    console_progress_end();
    if (status == STATUS_INFEASIBLE)
        status = tell_infeasible(&result.infeasibility, options->json, err);
    else if (status == STATUS_OK)
        status = tell_plan(options, &result, err);
    plan_clear(&result.plan);
    return status;
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
        .raw_weights = options->raw_weights,
        .pins_text = options->pins,
        .gap_target = options->gap,
        .time_limit_s = options->time_limit_s,
        .reporter = console_reporter(),
    };
    TRY(model_from_arguments(&options->model, &model, err));
    TRY(parse_weights(options->weights, &request, err));
    if (options->pins != NULL)
        TRY(pins_parse(&request.pins, options->pins, err));
    TRY(profile_open(&profile, store, options->host, err));
    request.profile = profile;
    enum status status = search(options, &request, err);
    profile_close(profile);
    return status;
}

static enum status run(int argc, char **argv, struct error *err)
{
    struct plan_options options = {0};
    struct positionals positionals = {0};
    struct store *store = NULL;
    TRY(options_parse(&spec, argc, argv, &options, &positionals, err));
    if (options.global_batch == 0)
        return error_set(err, STATUS_USAGE,
                         "--global-batch is missing: how many sequences is one training step?");
    TRY(store_open(&store, options.store, STORE_READ, err));
    enum status status = plan_from_store(&options, store, err);
    store_close(store);
    return status;
}

const struct command command_plan = {.spec = &spec, .run = run};
