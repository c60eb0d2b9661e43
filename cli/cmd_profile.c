#include "base/clock.h"
#include "base/host.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/launch.h"
#include "cli/profile_links.h"
#include "cli/row_sink.h"
#include "executor/agree.h"
#include "executor/comm/binding.h"
#include "executor/comm/comm.h"
#include "executor/ops/device.h"
#include "ir/cluster.h"
#include "profiler/profiler.h"
#include "store/store.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RANK_COUNTS_MAX = 16 };

#define LEAST_BUDGET_S 0.1

/* How long a failed rank waits for rank 0 to fail as well and speak. */
#define ABORT_GRACE_S 2

struct profile_options {
    struct model_arguments model;
    const char *store;
    const char *ranks;
    int64_t threads;
    const char *micro_batches;
    const char *precision;
    double budget_s;
    double relative_error;
    uint64_t memory_limit_bytes;
    const char *cluster;
    double idle_watts, active_watts;
    bool no_bind, json;
};

static const struct option_spec model_rows[] = {MODEL_OPTION_ROWS(struct profile_options)};
static const struct option_spec what_rows[] = {
    STORE_OPTION_ROW(struct profile_options),
    {.name = "ranks",
     .type = OPTION_STRING,
     .offset = offsetof(struct profile_options, ranks),
     .metavar = "N,...",
     .doc =
         "rank counts to measure, each with all ranks working at once (1 to the cores, doubling)"},
    {.name = "threads",
     .type = OPTION_INT,
     .offset = offsetof(struct profile_options, threads),
     .metavar = "N",
     .doc = "compute threads of each rank (cores / ranks)",
     .minimum = 1,
     .maximum = 4096},
    {.name = "micro-batches",
     .type = OPTION_STRING,
     .offset = offsetof(struct profile_options, micro_batches),
     .metavar = "N,...",
     .doc = "micro-batch sizes to measure (chosen by the model's size and the budget)"},
    {.name = "precision",
     .type = OPTION_STRING,
     .offset = offsetof(struct profile_options, precision),
     .metavar = "P,...",
     .fallback = "fp32,bf16",
     .doc = "fp32, bf16, fp16; what this machine cannot compute is left out"},
};
static const struct option_spec effort_rows[] = {
    NO_BIND_OPTION_ROW(struct profile_options),
    {.name = "budget",
     .type = OPTION_REAL,
     .offset = offsetof(struct profile_options, budget_s),
     .metavar = "SECONDS",
     .doc = "time for everything (by the model's size: 20 s for small models, up to 98 s)",
     .minimum = LEAST_BUDGET_S,
     .maximum = 1e6},
    {.name = "relative-error",
     .type = OPTION_REAL,
     .offset = offsetof(struct profile_options, relative_error),
     .metavar = "SHARE",
     .fallback = "0.03",
     .doc = "repeat until the mean is known this well, or the time is up",
     .minimum = 0.0001,
     .maximum = 1},
    {.name = "memory-limit",
     .type = OPTION_BYTES,
     .offset = offsetof(struct profile_options, memory_limit_bytes),
     .metavar = "SIZE",
     .doc = "most memory of one rank while measuring (80 % of the host's, shared by its ranks)"},
};
static const struct option_spec energy_rows[] = {
    {.name = "cluster",
     .type = OPTION_STRING,
     .offset = offsetof(struct profile_options, cluster),
     .metavar = "FILE",
     .doc = "cluster file with the power of this node, for hosts without energy counters"},
    {.name = "idle-watts",
     .type = OPTION_REAL,
     .offset = offsetof(struct profile_options, idle_watts),
     .metavar = "W",
     .doc = "power of this host at rest; energy is then `modelled` where no counter is readable"},
    {.name = "active-watts",
     .type = OPTION_REAL,
     .offset = offsetof(struct profile_options, active_watts),
     .metavar = "W",
     .doc = "power of this host with all cores busy"},
    JSON_OPTION_ROW(struct profile_options),
};
static const struct option_table groups[] = {
    {.rows = model_rows, .count = COUNT_OF(model_rows), .heading = "Model"},
    {.rows = what_rows, .count = COUNT_OF(what_rows), .heading = "What to measure"},
    {.rows = effort_rows, .count = COUNT_OF(effort_rows), .heading = "Effort"},
    {.rows = energy_rows, .count = COUNT_OF(energy_rows), .heading = "Energy and output"},
};
static const struct command_spec spec = {
    .name = "profile",
    .summary = "measure this hardware and this model: time, memory, energy per layer; links",
    .synopsis = "--model MODEL [options]",
    .description =
        "Runs the layers of the model, forward and backward, by the functions that `temper run` "
        "executes, for each precision, recompute mode and micro-batch size, whole and in the parts "
        "that tensor parallelism leaves a rank, with as many ranks at once as a plan might use, "
        "and "
        "the collectives between the ranks by group and size. Every value goes "
        "into the store with its unit, count, mean, standard deviation and provenance.\n\n"
        "Without a launcher, one group of ranks after the other is started under mpirun. Under "
        "mpirun or srun, the group that was started is measured.",
    .groups = groups,
    .group_count = COUNT_OF(groups),
    .example = "temper profile --model gpt2 --seq-length 256 --micro-batches 1,4 --store t.db",
};

/* ---- what to measure ---- */

/* Of a node of the cluster's first group. */
static enum status read_cluster_power(const char *source, struct power_model *power,
                                      struct error *err)
{
    struct cluster cluster;
    TRY(cluster_load(&cluster, source, err));
    const struct node_group *group = &cluster.groups[0];
    if (group->device.peak_w <= 0)
        return error_set(err, STATUS_INVALID,
                         "%s: key 'groups[0].device.peak_w': missing; --cluster takes a node's "
                         "power from it",
                         source);
    double devices = (double)group->node_devices;
    *power = (struct power_model){devices * group->device.idle_w, devices * group->device.peak_w};
    return STATUS_OK;
}

static enum status read_power(const struct profile_options *options, struct power_model *power,
                              struct error *err)
{
    *power = (struct power_model){options->idle_watts, options->active_watts};
    if ((power->idle_watts < 0) != (power->active_watts < 0))
        return error_set(err, STATUS_USAGE,
                         "--idle-watts and --active-watts belong together: give both");
    if (power->idle_watts > power->active_watts)
        return error_set(err, STATUS_USAGE, "--idle-watts %g is above --active-watts %g",
                         power->idle_watts, power->active_watts);
    if (power->active_watts >= 0 || options->cluster == NULL)
        return STATUS_OK;
    return read_cluster_power(options->cluster, power, err);
}

/* Small models are measured in seconds; large ones get what the published target allows. */
static double default_budget_s(const struct model *model)
{
    double seconds = 20 + (double)model_parameter_count(model) / 1.2e6;
    return seconds < 98 ? seconds : 98;
}

static enum status fill_request(const struct profile_options *options, const struct model *model,
                                struct profile_request *out, struct error *err)
{
    *out = (struct profile_request){
        .model = model,
        .relative_error = options->relative_error,
        .reporter = console_reporter(),
        .memory_limit_bytes = options->memory_limit_bytes,
    };
    TRY(parse_precisions(options->precision, out->precisions, err));
    TRY(read_power(options, &out->power, err));
    if (options->micro_batches != NULL)
        TRY(parse_int_list(options->micro_batches, "micro-batches", out->micro_batches,
                           PROFILE_MICRO_BATCHES_MAX, &out->micro_batch_count, err));
    return STATUS_OK;
}

/* ---- one group of ranks ---- */

static void describe_session(struct profile_session *session, const struct profile_request *request,
                             struct comm *comm, struct device *device)
{
    memset(session, 0, sizeof *session);
    host_query(&session->host);
    session->host.cores = request->host_cores; /* a bound rank has only some */
    snprintf(session->libraries, sizeof session->libraries, "%s, %s", device_libraries(device),
             comm_library(comm));
    snprintf(session->revision, sizeof session->revision, "%s", temper_version());
    snprintf(session->model_name, sizeof session->model_name, "%s", request->model->name);
    snprintf(session->options, sizeof session->options, "ranks %d, threads %d", comm_size(comm),
             device_threads(device));
    session->started_unix_ms = clock_unix_ms();
}

static enum status write_rows(struct store *store, struct profile_session *session,
                              const struct row_sink *sink, struct error *err)
{
    TRY(store_profile_begin(store, session, err));
    for (size_t i = 0; i < sink->count; i++)
        TRY(store_measurement_add(store, session->id, &sink->rows[i], err));
    return STATUS_OK;
}

static enum status write_session(struct store *store, struct profile_session *session,
                                 const struct row_sink *sink, struct error *err)
{
    TRY(store_begin(store, err));
    enum status status = write_rows(store, session, sink, err);
    if (status == STATUS_OK)
        return store_commit(store, err);
    store_rollback(store);
    return status;
}

/* One rank's failure amid the measurements leaves the others waiting in a collective: end them all.
 */
static void abort_others(struct comm *comm, const struct error *err)
{
    if (comm_size(comm) == 1)
        return;
    if (comm_rank(comm) != 0)
        sleep(ABORT_GRACE_S);
    console_progress_end();
    fprintf(stderr, "temper profile: rank %d: %s\n", comm_rank(comm), err->message);
    comm_abort(comm, 1);
}

/* What is measured goes into the store at the end, in one transaction: measuring takes minutes, for
 * which a run that writes into the same store must not be locked out. */
static enum status measure_into_store(const struct profile_options *options,
                                      struct profile_request *request, struct comm *comm,
                                      struct device *device, struct error *err)
{
    struct store *store = NULL;
    struct profile_session session;
    struct row_sink rows = {0};
    struct measurement_sink sink = row_sink_into(&rows);
    enum status status = STATUS_OK;
    /* Opened before anything is measured, so that a store that cannot be written costs no time. */
    if (comm_rank(comm) == 0)
        status = store_open(&store, options->store, STORE_CREATE, err);
    status = agree(comm, status, err);
    describe_session(&session, request, comm, device);
    if (status == STATUS_OK) {
        status = profile_placement(request, comm, device, &sink, err);
        if (status != STATUS_OK)
            abort_others(comm, err);
        else if (store != NULL)
            status = write_session(store, &session, &rows, err);
        status = agree(comm, status, err);
    }
    store_close(store);
    row_sink_free(&rows);
    return status;
}

static enum status measure_group(const struct profile_options *options, const struct model *model,
                                 double budget_s, int64_t threads, struct error *err)
{
    struct comm *comm = NULL;
    struct device *device = NULL;
    struct profile_request request;
    struct host_info host;
    bool bound;
    host_query(&host);
    TRY(fill_request(options, model, &request, err));
    TRY(comm_open(&comm, err));
    int local = comm_local_size(comm);
    if (threads == 0)
        threads = host.cores > local ? host.cores / local : 1;
    request.budget_s = budget_s;
    if (request.memory_limit_bytes == 0)
        request.memory_limit_bytes = host.memory_bytes / 5 * 4 / (uint64_t)local;
    if (comm_rank(comm) != 0)
        request.reporter = (struct reporter){0};
    request.host_cores = host.cores;
    if (!options->no_bind)
        TRY(comm_bind(comm, (int)threads, BIND_NEAR, &bound, err));
    enum status status = agree(comm, device_open(&device, (int)threads, err), err);
    if (status == STATUS_OK)
        status = measure_into_store(options, &request, comm, device, err);
    console_progress_end();
    if (status != STATUS_OK && comm_rank(comm) != 0)
        err->message[0] = '\0'; /* rank 0 has the same message */
    device_close(device);
    comm_close(comm);
    return status;
}

/* ---- all groups ---- */

/* 1, 2, 4, ... up to the cores, and the cores themselves. */
static size_t default_rank_counts(int cores, int64_t out[RANK_COUNTS_MAX])
{
    size_t count = 0;
    for (int64_t ranks = 1; ranks <= cores && count + 1 < RANK_COUNTS_MAX; ranks *= 2)
        out[count++] = ranks;
    if (count == 0 || out[count - 1] != cores)
        out[count++] = cores;
    return count;
}

/* The same command for one group, whose share of the budget is stated. */
static enum status launch_group(int argc, char **argv, int ranks, int64_t threads, double budget_s,
                                struct error *err)
{
    char budget[32], thread_count[32];
    snprintf(budget, sizeof budget, "--budget=%.3f", budget_s);
    snprintf(thread_count, sizeof thread_count, "--threads=%lld", (long long)threads);
    char **arguments = calloc((size_t)argc + 2, sizeof *arguments);
    if (arguments == NULL)
        return error_memory(err, ((size_t)argc + 2) * sizeof *arguments, "the ranks' arguments");
    memcpy(arguments, argv, (size_t)argc * sizeof *arguments);
    arguments[argc] = budget;
    arguments[argc + 1] = thread_count;
    struct launch_request request = {
        .ranks = ranks,
        .threads = (int)threads,
        .command = "profile",
        .argc = argc + 2,
        .argv = arguments,
        .on_death = "what was measured before is in the store",
    };
    enum status status = launch_ranks(&request, NULL, err);
    free(arguments);
    return status;
}

/* The first group's share of the time that is left to all. Every rank computes whole micro-batches
 * with its part of the cores, so that a group takes as long as it has ranks. */
static double group_share(const int64_t *rank_counts, size_t count)
{
    double ranks = 0;
    for (size_t i = 0; i < count; i++)
        ranks += (double)rank_counts[i];
    return (double)rank_counts[0] / ranks;
}

static enum status measure_all(const struct profile_options *options, const struct model *model,
                               int argc, char **argv, struct error *err)
{
    int64_t rank_counts[RANK_COUNTS_MAX];
    struct host_info host;
    host_query(&host);
    size_t groups_count = default_rank_counts(host.cores, rank_counts);
    if (options->ranks != NULL)
        TRY(parse_int_list(options->ranks, "ranks", rank_counts, RANK_COUNTS_MAX, &groups_count,
                           err));
    double budget_s = options->budget_s > 0 ? options->budget_s : default_budget_s(model);
    double start_s = clock_s();
    for (size_t i = 0; i < groups_count; i++) {
        int64_t threads = options->threads > 0          ? options->threads
                          : host.cores > rank_counts[i] ? host.cores / rank_counts[i]
                                                        : 1;
        double left_s = budget_s - (clock_s() - start_s);
        double share_s = group_share(rank_counts + i, groups_count - i) * left_s;
        share_s = share_s > LEAST_BUDGET_S ? share_s : LEAST_BUDGET_S;
        if (rank_counts[i] == 1)
            TRY(measure_group(options, model, share_s, threads, err));
        else
            TRY(launch_group(argc, argv, (int)rank_counts[i], threads, share_s, err));
    }
    return STATUS_OK;
}

/* ---- what was measured ---- */

static void write_measurement(const struct measurement *row, struct jout *out)
{
    jout_begin_object(out, NULL);
    jout_string(out, "subject", row->subject);
    jout_string(out, "metric", metric_name(row->metric));
    jout_string(out, "unit", metric_unit(row->metric));
    jout_string(out, "precision", precision_name(row->precision));
    jout_string(out, "recompute", recompute_name(row->recompute));
    jout_string(out, "attention", attention_kernel_name(row->attention));
    jout_int(out, "micro_batch", row->micro_batch);
    jout_int(out, "ranks", row->ranks);
    jout_int(out, "threads", row->threads);
    jout_int(out, "bytes", row->bytes);
    jout_int(out, "n", (int64_t)row->n);
    if (row->provenance == PROVENANCE_ABSENT) {
        jout_null(out, "mean");
        jout_null(out, "deviation");
    } else {
        jout_real(out, "mean", row->mean);
        jout_real(out, "deviation", row->deviation);
    }
    jout_string(out, "provenance", provenance_name(row->provenance));
    jout_end(out);
}

/* Of the part that a subject names behind its layer's key: "tp2sp", "own"; NULL: not this layer's.
 */
static const char *split_of(const char *subject, const char *key)
{
    size_t bytes = strlen(key);
    if (strncmp(subject, key, bytes) != 0)
        return NULL;
    if (subject[bytes] == '\0')
        return "whole";
    return subject[bytes] == '/' ? subject + bytes + 1 : NULL;
}

static const struct measurement *backward_of(const struct measurement_list *list,
                                             const struct measurement *forward)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct measurement *row = &list->rows[i];
        if (row->metric == METRIC_BACKWARD_S && strcmp(row->subject, forward->subject) == 0 &&
            row->precision == forward->precision && row->recompute == forward->recompute &&
            row->attention == forward->attention && row->micro_batch == forward->micro_batch &&
            row->ranks == forward->ranks && row->threads == forward->threads)
            return row;
    }
    return NULL;
}

static void print_layer_rows(const struct model *model, const struct measurement_list *list)
{
    printf("%-10s %-9s %-5s %-16s %5s %6s %8s %12s %12s\n", "layer", "part", "prec", "recompute",
           "mb", "ranks", "threads", "forward", "backward");
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        char key[LAYER_KEY_BYTES];
        layer_key(model, (enum layer_kind)kind, key);
        for (size_t i = 0; i < list->count; i++) {
            const struct measurement *row = &list->rows[i];
            const char *split = split_of(row->subject, key);
            char forward[UNIT_TEXT_BYTES], backward[UNIT_TEXT_BYTES] = "-";
            if (row->metric != METRIC_FORWARD_S || split == NULL)
                continue;
            const struct measurement *other = backward_of(list, row);
            if (other != NULL)
                format_seconds(other->mean, backward);
            printf("%-10s %-9s %-5s %-16s %5lld %6d %8d %12s %12s\n",
                   layer_kind_name((enum layer_kind)kind), split, precision_name(row->precision),
                   layer_mode_text(row->recompute, row->attention), (long long)row->micro_batch,
                   row->ranks, row->threads, format_seconds(row->mean, forward), backward);
        }
    }
}

static enum status tell(const struct profile_options *options, const struct model *model,
                        double seconds, struct error *err)
{
    struct store *store = NULL;
    struct measurement_list list = {0};
    char host[64] = "", took[UNIT_TEXT_BYTES];
    TRY(store_open(&store, options->store, STORE_READ, err));
    enum status status = store_measurements_load(store, NULL, &list, host, err);
    store_close(store);
    if (status != STATUS_OK)
        return status;
    if (options->json) {
        struct jout *out = jout_new();
        jout_string(out, "store", options->store);
        jout_string(out, "host", host);
        jout_string(out, "model", model->name);
        jout_real(out, "seconds", seconds);
        jout_begin_array(out, "measurements");
        for (size_t i = 0; i < list.count; i++)
            write_measurement(&list.rows[i], out);
        jout_end(out);
        write_links(&list, out);
        status = console_json(out, err);
    } else {
        print_layer_rows(model, &list);
        print_links(&list);
        printf("\n%zu values of host %s in %s, measured in %s\n", list.count, host, options->store,
               format_seconds(seconds, took));
    }
    measurement_list_free(&list);
    return status;
}

static enum status run(int argc, char **argv, struct error *err)
{
    struct profile_options options = {.idle_watts = -1, .active_watts = -1};
    struct positionals positionals = {0};
    struct model model;
    TRY(options_parse(&spec, argc, argv, &options, &positionals, err));
    TRY(model_from_arguments(&options.model, &model, err));
    TRY(model_check_executable(&model, options.model.source, err));
    double budget_s = options.budget_s > 0 ? options.budget_s : default_budget_s(&model);
    double start_s = clock_s();
    if (comm_launched_ranks() == 0)
        TRY(measure_all(&options, &model, argc, argv, err));
    else
        TRY(measure_group(&options, &model, budget_s, options.threads, err));
    if (comm_launched_rank() > 0 || getenv(LAUNCHED_VARIABLE) != NULL)
        return STATUS_OK;
    return tell(&options, &model, clock_s() - start_s, err);
}

const struct command command_profile = {.spec = &spec, .run = run};
