/* temper bench ops: what the layers reach of what this machine's rates allow. */
#include "base/host.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/row_sink.h"
#include "executor/comm/comm.h"
#include "executor/ops/device.h"
#include "ir/layer_work.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct bench_options {
    struct model_arguments model;
    const char *precision;
    const char *micro_batches;
    int64_t threads;
    double budget_s;
    bool json;
};

static const struct option_spec model_rows[] = {MODEL_OPTION_ROWS(struct bench_options)};
static const struct option_spec what_rows[] = {
    {.name = "precision",
     .type = OPTION_STRING,
     .offset = offsetof(struct bench_options, precision),
     .metavar = "P,...",
     .fallback = "fp32,bf16",
     .doc = "fp32, bf16, fp16; what this machine cannot compute is left out"},
    {.name = "micro-batches",
     .type = OPTION_STRING,
     .offset = offsetof(struct bench_options, micro_batches),
     .metavar = "N,...",
     .fallback = "1,4",
     .doc = "micro-batch sizes"},
    {.name = "threads",
     .type = OPTION_INT,
     .offset = offsetof(struct bench_options, threads),
     .metavar = "N",
     .doc = "compute threads (cores)",
     .minimum = 1,
     .maximum = 4096},
    {.name = "budget",
     .type = OPTION_REAL,
     .offset = offsetof(struct bench_options, budget_s),
     .metavar = "SECONDS",
     .fallback = "20",
     .doc = "time for everything",
     .minimum = 0.1,
     .maximum = 1e6},
    JSON_OPTION_ROW(struct bench_options),
};
static const struct option_table groups[] = {
    {.rows = model_rows, .count = COUNT_OF(model_rows), .heading = "Model"},
    {.rows = what_rows, .count = COUNT_OF(what_rows), .heading = "What to measure"},
};
static const struct command_spec spec = {
    .name = "bench",
    .summary = "hold every layer's speed against this machine's matrix-product and copy rates",
    .synopsis = "ops --model MODEL [options]",
    .description =
        "Times each kind of layer, forward and backward, as `temper profile` does with one rank, "
        "and prints what it reaches beside the rates that this machine reaches in the same run: "
        "GFLOP/s of a large matrix product, GB/s (read + written) of a copy larger than the "
        "caches. The limit of a pass is the longer of its FLOPs at the one and its bytes at the "
        "other (the roofline); reached is that limit divided by the time it took. FLOPs are of "
        "the keys that a query sees, "
        "bytes what has to be read or written at least once: parameters, the residual stream, what "
        "is kept for the backward pass, gradients. A head's passes are one row, since its loss "
        "may be computed in either. Nothing is stored.",
    .groups = groups,
    .group_count = COUNT_OF(groups),
    .example = "temper bench ops --model gpt2 --seq-length 64 --micro-batches 4",
    .positional_minimum = 1,
    .positional_maximum = 1,
};

/* ---- what was measured ---- */

struct bench {
    const struct model *model;
    const struct row_sink *rows;
    int threads;
    double copy_bytes_s;
    double matmul_flops[PRECISION_COUNT]; /* 0: not measured */
};

/* One pass of one kind of layer against its limit. */
struct reached {
    enum layer_kind kind;
    const char *pass; /* "forward", "backward", "both", "optimizer" */
    const struct measurement *row;
    double seconds;
    struct layer_work work;
    struct machine_rates rates;
};

static void find_rates(struct bench *bench)
{
    for (size_t i = 0; i < bench->rows->count; i++) {
        const struct measurement *row = &bench->rows->rows[i];
        if (row->metric == METRIC_COPY_BYTES_S)
            bench->copy_bytes_s = row->mean;
        if (row->metric == METRIC_MATMUL_FLOPS)
            bench->matmul_flops[row->precision] = row->mean;
    }
}

static const struct measurement *find_row(const struct bench *bench, enum metric metric,
                                          const struct measurement *like)
{
    for (size_t i = 0; i < bench->rows->count; i++) {
        const struct measurement *row = &bench->rows->rows[i];
        if (row->metric == metric && strcmp(row->subject, like->subject) == 0 &&
            row->precision == like->precision && row->recompute == like->recompute &&
            row->attention == like->attention && row->micro_batch == like->micro_batch)
            return row;
    }
    return NULL;
}

static struct layer_work row_work(const struct bench *bench, enum layer_kind kind,
                                  const struct measurement *row, bool is_backward)
{
    struct layer_part whole = layer_whole(kind);
    struct layer_precision_mode mode = {row->precision, row->recompute, row->attention};
    struct micro_batch_shape shape = {.sequences = row->micro_batch,
                                      .seq_length = bench->model->seq_length,
                                      .threads = bench->threads};
    return is_backward ? layer_backward_work(bench->model, &whole, mode, &shape)
                       : layer_forward_work(bench->model, &whole, mode, &shape);
}

/* ---- walking over the rows ---- */

typedef void reached_visit(void *user, const struct bench *bench, const struct reached *reached);

static void visit_passes(const struct bench *bench, struct reached reached, reached_visit *visit,
                         void *user)
{
    const struct measurement *forward = reached.row;
    const struct measurement *backward = find_row(bench, METRIC_BACKWARD_S, forward);
    struct layer_work forward_work = row_work(bench, reached.kind, forward, false);
    if (backward == NULL)
        return;
    struct layer_work backward_work = row_work(bench, reached.kind, backward, true);
    if (reached.kind == LAYER_HEAD) {
        reached.pass = "both";
        reached.seconds = forward->mean + backward->mean;
        reached.work = layer_work_add(forward_work, backward_work);
        visit(user, bench, &reached);
        return;
    }
    reached.pass = "forward";
    reached.seconds = forward->mean;
    reached.work = forward_work;
    visit(user, bench, &reached);
    reached.pass = "backward";
    reached.seconds = backward->mean;
    reached.work = backward_work;
    visit(user, bench, &reached);
}

/* The rows of one metric. */
static void visit_kind(const struct bench *bench, enum layer_kind kind, enum metric metric,
                       reached_visit *visit, void *user)
{
    char key[LAYER_KEY_BYTES];
    layer_key(bench->model, kind, key);
    for (size_t i = 0; i < bench->rows->count; i++) {
        const struct measurement *row = &bench->rows->rows[i];
        struct reached reached = {
            .kind = kind,
            .pass = "optimizer",
            .row = row,
            .seconds = row->mean,
            .rates = {bench->matmul_flops[row->precision], bench->copy_bytes_s},
        };
        if (row->metric != metric || strcmp(row->subject, key) != 0)
            continue;
        if (metric == METRIC_FORWARD_S) {
            visit_passes(bench, reached, visit, user);
        } else {
            struct layer_part whole = layer_whole(kind);
            reached.work = layer_update_work(bench->model, &whole, row->precision, PRECISION_FP32);
            visit(user, bench, &reached);
        }
    }
}

static void visit_all(const struct bench *bench, reached_visit *visit, void *user)
{
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        visit_kind(bench, (enum layer_kind)kind, METRIC_FORWARD_S, visit, user);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        visit_kind(bench, (enum layer_kind)kind, METRIC_OPTIMIZER_S, visit, user);
}

static double share(const struct reached *reached)
{
    return reached->seconds > 0 ? roofline_s(reached->work, reached->rates) / reached->seconds : 0;
}

/* ---- output ---- */

static void print_reached(void *user, const struct bench *bench, const struct reached *reached)
{
    const struct measurement *row = reached->row;
    char seconds[UNIT_TEXT_BYTES], micro_batch[24] = "-";
    (void)user;
    (void)bench;
    if (row->micro_batch > 0)
        snprintf(micro_batch, sizeof micro_batch, "%lld", (long long)row->micro_batch);
    printf("%-10s %-9s %-5s %-16s %5s %11s %9.1f %7.1f %-7s %7.1f %%\n",
           layer_kind_name(reached->kind), reached->pass, precision_name(row->precision),
           layer_mode_text(row->recompute, row->attention), micro_batch,
           format_seconds(reached->seconds, seconds), reached->work.flops / reached->seconds / 1e9,
           reached->work.bytes / reached->seconds / 1e9,
           roofline_is_memory(reached->work, reached->rates) ? "memory" : "compute",
           100 * share(reached));
}

static void print_bench(const struct bench *bench, const char *libraries)
{
    printf("%s, %lld tokens a sequence, %d thread%s, %s\n", bench->model->name,
           (long long)bench->model->seq_length, bench->threads, bench->threads == 1 ? "" : "s",
           libraries);
    for (int p = 0; p < PRECISION_COUNT; p++)
        if (bench->matmul_flops[p] > 0)
            printf("matrix product, %s: %.1f GFLOP/s\n", precision_name((enum precision)p),
                   bench->matmul_flops[p] / 1e9);
    printf("copy: %.1f GB/s, read + written\n\n", bench->copy_bytes_s / 1e9);
    printf("%-10s %-9s %-5s %-16s %5s %11s %9s %7s %-7s %9s\n", "layer", "pass", "prec",
           "recompute", "mb", "time", "GFLOP/s", "GB/s", "limit", "reached");
    visit_all(bench, print_reached, NULL);
}

static void write_reached(void *user, const struct bench *bench, const struct reached *reached)
{
    struct jout *out = user;
    const struct measurement *row = reached->row;
    (void)bench;
    jout_begin_object(out, NULL);
    jout_string(out, "layer", layer_kind_name(reached->kind));
    jout_string(out, "pass", reached->pass);
    jout_string(out, "precision", precision_name(row->precision));
    jout_string(out, "recompute", recompute_name(row->recompute));
    jout_string(out, "attention", attention_kernel_name(row->attention));
    jout_int(out, "micro_batch", row->micro_batch);
    jout_real(out, "seconds", reached->seconds);
    jout_real(out, "flops", reached->work.flops);
    jout_real(out, "bytes", reached->work.bytes);
    jout_real(out, "limit_s", roofline_s(reached->work, reached->rates));
    jout_string(out, "limit",
                roofline_is_memory(reached->work, reached->rates) ? "memory" : "compute");
    jout_real(out, "reached", share(reached));
    jout_end(out);
}

static enum status write_bench(const struct bench *bench, const char *libraries, struct error *err)
{
    struct jout *out = jout_new();
    jout_string(out, "model", bench->model->name);
    jout_int(out, "seq_length", bench->model->seq_length);
    jout_int(out, "threads", bench->threads);
    jout_string(out, "libraries", libraries);
    jout_begin_object(out, "matmul_flops");
    for (int p = 0; p < PRECISION_COUNT; p++)
        if (bench->matmul_flops[p] > 0)
            jout_real(out, precision_name((enum precision)p), bench->matmul_flops[p]);
    jout_end(out);
    jout_real(out, "copy_bytes_s", bench->copy_bytes_s);
    jout_begin_array(out, "ops");
    visit_all(bench, write_reached, out);
    jout_end(out);
    return console_json(out, err);
}

/* ---- measuring ---- */

static enum status measure(const struct bench_options *options, const struct model *model,
                           struct comm *comm, struct device *device, struct row_sink *rows,
                           struct error *err)
{
    struct measurement_sink sink = row_sink_into(rows);
    struct host_info host;
    host_query(&host);
    struct profile_request request = {
        .model = model,
        .relative_error = 0.01,
        .budget_s = options->budget_s,
        .memory_limit_bytes = host.memory_bytes / 5 * 4,
        .power = {-1, -1},
        .reporter = console_reporter(),
    };
    TRY(parse_precisions(options->precision, request.precisions, err));
    TRY(parse_int_list(options->micro_batches, "micro-batches", request.micro_batches,
                       PROFILE_MICRO_BATCHES_MAX, &request.micro_batch_count, err));
    enum status status = profile_placement(&request, comm, device, &sink, err);
    console_progress_end();
    return status;
}

static enum status bench_ops(const struct bench_options *options, const struct model *model,
                             struct comm *comm, struct error *err)
{
    struct host_info host;
    struct device *device = NULL;
    struct row_sink rows = {0};
    host_query(&host);
    int threads = options->threads > 0 ? (int)options->threads : host.cores;
    TRY(device_open(&device, threads, err));
    enum status status = measure(options, model, comm, device, &rows, err);
    if (status == STATUS_OK) {
        struct bench bench = {.model = model, .rows = &rows, .threads = threads};
        find_rates(&bench);
        if (options->json)
            status = write_bench(&bench, device_libraries(device), err);
        else
            print_bench(&bench, device_libraries(device));
    }
    row_sink_free(&rows);
    device_close(device);
    return status;
}

static enum status run(int argc, char **argv, struct error *err)
{
    struct bench_options options = {0};
    struct positionals positionals = {0};
    struct model model;
    struct comm *comm = NULL;
    TRY(options_parse(&spec, argc, argv, &options, &positionals, err));
    if (strcmp(positionals.values[0], "ops") != 0)
        return error_set(err, STATUS_USAGE, "there is no benchmark '%s'; there is 'ops'",
                         positionals.values[0]);
    TRY(model_from_arguments(&options.model, &model, err));
    TRY(model_check_executable(&model, options.model.source, err));
    if (comm_launched_ranks() > 1)
        return error_set(err, STATUS_USAGE,
                         "temper bench ops measures one rank; start it without "
                         "a launcher");
    TRY(comm_open(&comm, err));
    enum status status = bench_ops(&options, &model, comm, err);
    comm_close(comm);
    return status;
}

const struct command command_bench = {.spec = &spec, .run = run};
