/* Times whole training steps of a model on this machine: forward, backward, gradient norm, AdamW.
 *
 * The step is held against the limit that the machine's matrix-product rate, measured in the same
 * run, sets: three times the forward pass's FLOPs, divided by that rate. */
#include "chain.h"

#include "base/clock.h"
#include "base/options.h"
#include "base/stats.h"
#include "base/units.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_options {
    const char *model, *precision, *recompute;
    int64_t micro_batch, seq_length, threads, steps;
    double rate_seconds;
};

static const struct option_spec rows[] = {
    {.name = "model",
     .type = OPTION_STRING,
     .offset = offsetof(struct bench_options, model),
     .metavar = "NAME",
     .fallback = "gpt2",
     .doc = "Built-in model or config.json."},
    {.name = "micro-batch",
     .type = OPTION_INT,
     .offset = offsetof(struct bench_options, micro_batch),
     .metavar = "N",
     .fallback = "4",
     .doc = "Sequences a step.",
     .minimum = 1,
     .maximum = 1e6},
    {.name = "seq-length",
     .type = OPTION_INT,
     .offset = offsetof(struct bench_options, seq_length),
     .metavar = "N",
     .fallback = "64",
     .doc = "Tokens a sequence.",
     .minimum = 1,
     .maximum = 1e6},
    {.name = "threads",
     .type = OPTION_INT,
     .offset = offsetof(struct bench_options, threads),
     .metavar = "N",
     .fallback = "2",
     .doc = "Compute threads.",
     .minimum = 1,
     .maximum = 1024},
    {.name = "precision",
     .type = OPTION_STRING,
     .offset = offsetof(struct bench_options, precision),
     .metavar = "NAME",
     .fallback = "fp32",
     .doc = "fp32, bf16 or fp16."},
    {.name = "recompute",
     .type = OPTION_STRING,
     .offset = offsetof(struct bench_options, recompute),
     .metavar = "NAME",
     .fallback = "none",
     .doc = "none, selective or full."},
    {.name = "steps",
     .type = OPTION_INT,
     .offset = offsetof(struct bench_options, steps),
     .metavar = "N",
     .fallback = "5",
     .doc = "Steps that are timed, after one that is not.",
     .minimum = 1,
     .maximum = 10000},
    {.name = "rate-seconds",
     .type = OPTION_REAL,
     .offset = offsetof(struct bench_options, rate_seconds),
     .metavar = "S",
     .fallback = "1",
     .doc = "Time for each measurement of the matrix-product rate.",
     .minimum = 0.01,
     .maximum = 60},
};
static const struct option_table tables[] = {
    {rows, sizeof(rows) / sizeof(rows[0]), "Benchmark"},
};
static const struct command_spec command = {
    .name = "bench_step",
    .summary = "time whole training steps",
    .synopsis = "[options]",
    .description = "Time whole training steps of a model on this machine.",
    .groups = tables,
    .group_count = 1,
    .example = "bench_step --precision bf16",
};

/* Seconds of one step. */
struct timing {
    double forward_s[LAYER_KIND_COUNT], backward_s[LAYER_KIND_COUNT];
    double norm_s, adamw_s, total_s;
    double loss;
};

struct moments {
    float *first, *second;
};

static enum status run_layers(struct chain *chain, struct timing *timing, struct error *err)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct layer_call call = chain_call(chain, i);
        double start_s = clock_s();
        TRY(layer_forward(chain->device, &call, call.part.kind == LAYER_HEAD ? &timing->loss : NULL,
                          err));
        timing->forward_s[call.part.kind] += clock_s() - start_s;
    }
    for (size_t i = chain->layer_count; i > 0; i--) {
        struct layer_call call = chain_call(chain, i - 1);
        double start_s = clock_s();
        TRY(layer_backward(chain->device, &call, err));
        timing->backward_s[call.part.kind] += clock_s() - start_s;
    }
    return STATUS_OK;
}

static enum status run_step(struct chain *chain, struct moments moments, int64_t time,
                            struct timing *timing, struct error *err)
{
    *timing = (struct timing){0};
    double start_s = clock_s();
    TRY(run_layers(chain, timing, err));
    double layers_end_s = clock_s();
    double norm = sqrt(ops_sum_squares(chain->device, chain->gradients, chain->count));
    double norm_end_s = clock_s();
    struct adamw_call call = {
        .parameters = chain->parameters,
        .first_moment = moments.first,
        .second_moment = moments.second,
        .gradients = chain->gradients,
        .parameters_16 = chain->options.precision != PRECISION_FP32 ? chain->parameters_16 : NULL,
        .precision_16 = chain->options.precision,
        .count = chain->count,
        .learning_rate = 1e-4,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .epsilon = 1e-8,
        .weight_decay = 0.1,
        .time = time,
        .grad_scale = norm > 1.0 ? 1.0 / norm : 1.0,
    };
    ops_adamw(chain->device, &call);
    timing->norm_s = norm_end_s - layers_end_s;
    timing->adamw_s = clock_s() - norm_end_s;
    timing->total_s = clock_s() - start_s;
    timing->loss *= (double)chain->loss_scale;
    return STATUS_OK;
}

static double step_flops(const struct chain *chain)
{
    double flops = 0.0;
    for (size_t i = 0; i < chain->layer_count; i++) {
        flops += 3.0 * layer_forward_flops(&chain->model, chain->layers[i].layer.kind,
                                           &chain->options.shape);
    }
    return flops;
}

static void print_timing(const struct chain *chain, const struct timing *best, double median_s,
                         double flops_per_s)
{
    double flops = step_flops(chain), limit_s = flops / flops_per_s;
    printf("%-12s %12s %12s %12s\n", "layer kind", "forward ms", "backward ms", "GFLOP/s");
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        double kind_flops = 0.0;
        for (size_t i = 0; i < chain->layer_count; i++) {
            if ((int)chain->layers[i].layer.kind == kind) {
                kind_flops += 3.0 * layer_forward_flops(&chain->model, (enum layer_kind)kind,
                                                        &chain->options.shape);
            }
        }
        double seconds = best->forward_s[kind] + best->backward_s[kind];
        printf("%-12s %12.2f %12.2f %12.1f\n", layer_kind_name((enum layer_kind)kind),
               best->forward_s[kind] * 1e3, best->backward_s[kind] * 1e3,
               kind_flops / seconds * 1e-9);
    }
    printf("gradient norm %.2f ms, AdamW %.2f ms (%.1f GB/s)\n", best->norm_s * 1e3,
           best->adamw_s * 1e3,
           (double)chain->count * (chain->options.precision != PRECISION_FP32 ? 30.0 : 28.0) /
               best->adamw_s * 1e-9);
    printf("step: fastest %.1f ms, median %.1f ms; %.1f GFLOP\n", best->total_s * 1e3,
           median_s * 1e3, flops * 1e-9);
    printf("limit (FLOPs / measured rate) %.1f ms: the fastest step reaches %.1f %%, the median "
           "%.1f %% of the rate\n",
           limit_s * 1e3, 100.0 * limit_s / best->total_s, 100.0 * limit_s / median_s);
}

static enum status bench(struct chain *chain, const struct bench_options *options,
                         struct moments moments, struct error *err)
{
    enum precision precision = chain->options.precision;
    double before = 0.0, after = 0.0, copy = 0.0;
    TRY(device_measure_matmul(chain->device, precision, options->rate_seconds, &before, err));
    TRY(device_measure_copy(chain->device, options->rate_seconds, &copy, err));
    printf("%s; %d threads\n", device_libraries(chain->device), device_threads(chain->device));

    struct timing timing, best = {.total_s = INFINITY};
    double *totals = calloc((size_t)options->steps, sizeof(*totals));
    if (totals == NULL)
        return error_memory(err, (size_t)options->steps * sizeof(*totals), "step times");
    enum status status = run_step(chain, moments, 1, &timing, err);
    double first_loss = timing.loss;
    for (int64_t step = 0; status == STATUS_OK && step < options->steps; step++) {
        status = run_step(chain, moments, step + 2, &timing, err);
        totals[step] = timing.total_s;
        if (timing.total_s < best.total_s)
            best = timing;
    }
    double median_s = stats_median(totals, (size_t)options->steps);
    free(totals);
    TRY(status);
    TRY(device_measure_matmul(chain->device, precision, options->rate_seconds, &after, err));
    printf("%s matrix products: %.1f GFLOP/s before the steps, %.1f after; copy %.1f GB/s\n",
           precision_name(precision), before * 1e-9, after * 1e-9, copy * 1e-9);
    printf("loss: first %.4f, last %.4f\n", first_loss, timing.loss);
    print_timing(chain, &best, median_s, before > after ? before : after);
    return STATUS_OK;
}

static enum status run(const struct bench_options *options, struct error *err)
{
    struct model model;
    struct chain chain;
    struct model_overrides overrides = {.seq_length = options->seq_length};
    struct chain_options chain_options = {
        .shape = {options->micro_batch, options->seq_length, (int)options->threads}};
    if (!precision_parse(options->precision, &chain_options.precision) ||
        !recompute_parse(options->recompute, &chain_options.recompute)) {
        return error_set(err, STATUS_USAGE, "--precision %s --recompute %s: no such mode",
                         options->precision, options->recompute);
    }
    TRY(model_load(&model, options->model, &overrides, err));
    TRY(chain_open(&chain, &model, &chain_options, err));

    struct moments moments = {NULL, NULL};
    size_t bytes = (size_t)chain.count * sizeof(float);
    enum status status = chain_randomise(&chain, 1, err);
    if (status == STATUS_OK)
        status = device_allocate(chain.device, bytes, (void **)&moments.first, err);
    if (status == STATUS_OK)
        status = device_allocate(chain.device, bytes, (void **)&moments.second, err);
    if (status == STATUS_OK)
        status = bench(&chain, options, moments, err);
    device_free(chain.device, moments.second, bytes);
    device_free(chain.device, moments.first, bytes);
    chain_close(&chain);
    return status;
}

int main(int argc, char **argv)
{
    struct bench_options options;
    struct positionals positionals;
    struct error err;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        struct text help = {0};
        options_help(&command, &help);
        printf("%s", help.data != NULL ? help.data : "");
        text_free(&help);
        return 0;
    }
    memset(&options, 0, sizeof(options));
    if (options_parse(&command, argc - 1, argv + 1, &options, &positionals, &err) != STATUS_OK ||
        run(&options, &err) != STATUS_OK) {
        fprintf(stderr, "bench_step: %s\n", err.message);
        return err.status == STATUS_USAGE ? 2 : 1;
    }
    return 0;
}
