/* Times whole training steps of a model on this machine: forward, backward, gradient norm, AdamW.
 *
 * The step is held against the limit that the machine's rates, measured in the same run, set: three
 * times the forward pass's FLOPs at the rate of a large matrix product, and then the bytes that
 * norm and AdamW cannot do without at the rate of a large copy: the gradients must be read for the
 * norm before the first of them can be clipped. */
#include "chain.h"

#include "base/clock.h"
#include "base/host.h"
#include "base/json.h"
#include "base/options.h"
#include "base/stats.h"
#include "base/units.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_options {
    const char *model, *precision, *gradients, *recompute, *attention;
    int64_t micro_batch, seq_length, threads, head_tokens, steps;
    double rate_seconds;
    bool json;
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
    {.name = "head-tokens",
     .type = OPTION_INT,
     .offset = offsetof(struct bench_options, head_tokens),
     .metavar = "N",
     .fallback = "0",
     .doc = "Tokens whose logits are made at once; 0: as in training.",
     .minimum = 0,
     .maximum = 1e9},
    {.name = "precision",
     .type = OPTION_STRING,
     .offset = offsetof(struct bench_options, precision),
     .metavar = "NAME",
     .fallback = "fp32",
     .doc = "fp32, bf16 or fp16."},
    {.name = "gradients",
     .type = OPTION_STRING,
     .offset = offsetof(struct bench_options, gradients),
     .metavar = "NAME",
     .fallback = "fp32",
     .doc = "Of matrices: fp32, or bf16 with --precision bf16."},
    {.name = "recompute",
     .type = OPTION_STRING,
     .offset = offsetof(struct bench_options, recompute),
     .metavar = "NAME",
     .fallback = "none",
     .doc = "none, selective or full."},
    {.name = "attention",
     .type = OPTION_STRING,
     .offset = offsetof(struct bench_options, attention),
     .metavar = "NAME",
     .fallback = "plain",
     .doc = "plain or tiled."},
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
    {.name = "json",
     .type = OPTION_FLAG,
     .offset = offsetof(struct bench_options, json),
     .doc = "Print one JSON object and nothing else."},
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

/* What a whole bench has found. */
struct figures {
    struct timing best; /* of the fastest step */
    double median_s;
    double matmul_before, matmul_after; /* FLOP/s */
    double copy_bytes_per_s;
    double first_loss, last_loss;
    uint64_t peak_bytes; /* of the process in its steps */
};

/* Bytes of a parameter that AdamW must move besides its gradient: moments and parameter there and
 * back, and the 16-bit copy. */
enum { ADAMW_BYTES = 24, COPY_16_BYTES = 2 };

static enum status run_layers(struct chain *chain, struct timing *timing, struct error *err)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct layer_call call = chain_call(chain, i);
        double start_s = clock_s();
        TRY(layer_forward(chain->device, &call, NULL, err));
        timing->forward_s[call.part.kind] += clock_s() - start_s;
    }
    for (size_t i = chain->layer_count; i > 0; i--) {
        struct layer_call call = chain_call(chain, i - 1);
        double start_s = clock_s();
        TRY(layer_backward(chain->device, &call,
                           call.part.kind == LAYER_HEAD ? &timing->loss : NULL, err));
        timing->backward_s[call.part.kind] += clock_s() - start_s;
    }
    return STATUS_OK;
}

static double gradient_norm(struct chain *chain)
{
    double squares = 0.0;
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct layer_call layer = chain_call(chain, i);
        const struct part_counts *counts = &chain->layers[i].counts;
        squares += ops_sum_squares(chain->device, layer.matrix_gradients, layer.gradient_precision,
                                   counts->matrices);
        squares +=
            ops_sum_squares(chain->device, layer.vector_gradients, PRECISION_FP32, counts->vectors);
    }
    return sqrt(squares);
}

/* [at, at + count) of the flat arrays. */
static void update(struct chain *chain, struct moments moments, struct adamw_call call, size_t at,
                   uint64_t count)
{
    call.parameters = chain->parameters + at;
    call.first_moment = moments.first + at;
    call.second_moment = moments.second + at;
    call.parameters_16 =
        chain->options.precision != PRECISION_FP32 ? chain->parameters_16 + at : NULL;
    call.count = count;
    ops_adamw(chain->device, &call);
}

static void update_layers(struct chain *chain, struct moments moments,
                          const struct adamw_call *common)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct layer_call layer = chain_call(chain, i);
        const struct chain_layer *at = &chain->layers[i];
        struct adamw_call call = *common;
        call.gradients = layer.matrix_gradients;
        call.gradient_precision = layer.gradient_precision;
        update(chain, moments, call, at->at, at->counts.matrices);
        call.gradients = layer.vector_gradients;
        call.gradient_precision = PRECISION_FP32;
        update(chain, moments, call, at->at + (size_t)at->counts.matrices, at->counts.vectors);
    }
}

static enum status run_step(struct chain *chain, struct moments moments, int64_t time,
                            struct timing *timing, struct error *err)
{
    *timing = (struct timing){0};
    double start_s = clock_s();
    TRY(run_layers(chain, timing, err));
    double layers_end_s = clock_s();
    double norm = gradient_norm(chain);
    double norm_end_s = clock_s();
    const struct adamw_call call = {
        .precision_16 = chain->options.precision,
        .learning_rate = 1e-4,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .epsilon = 1e-8,
        .weight_decay = 0.1,
        .time = time,
        .grad_scale = norm > 1.0 ? 1.0 / norm : 1.0,
    };
    update_layers(chain, moments, &call);
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

static double kind_flops(const struct chain *chain, enum layer_kind kind)
{
    double flops = 0.0;
    for (size_t i = 0; i < chain->layer_count; i++)
        if (chain->layers[i].layer.kind == kind)
            flops += 3.0 * layer_forward_flops(&chain->model, kind, &chain->options.shape);
    return flops;
}

static double adamw_bytes(const struct chain *chain)
{
    bool has_copy = chain->options.precision != PRECISION_FP32;
    return (double)chain->count * (ADAMW_BYTES + (has_copy ? COPY_16_BYTES : 0)) +
           (double)chain->gradient_bytes;
}

static double matmul_rate(const struct figures *figures)
{
    return fmax(figures->matmul_before, figures->matmul_after);
}

static double limit_s(const struct chain *chain, const struct figures *figures)
{
    double bytes = adamw_bytes(chain) + (double)chain->gradient_bytes;
    return step_flops(chain) / matmul_rate(figures) + bytes / figures->copy_bytes_per_s;
}

static void print_figures(const struct chain *chain, const struct figures *figures)
{
    const struct timing *best = &figures->best;
    double limit = limit_s(chain, figures), products = step_flops(chain) / matmul_rate(figures);
    char peak[UNIT_TEXT_BYTES];
    printf("%s; %d threads\n", device_libraries(chain->device), device_threads(chain->device));
    printf("%s matrix products: %.1f GFLOP/s before the steps, %.1f after; copy %.1f GB/s\n",
           precision_name(chain->options.precision), figures->matmul_before * 1e-9,
           figures->matmul_after * 1e-9, figures->copy_bytes_per_s * 1e-9);
    printf("loss: first %.4f, last %.4f\n", figures->first_loss, figures->last_loss);
    printf("%-12s %12s %12s %12s\n", "layer kind", "forward ms", "backward ms", "GFLOP/s");
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        double seconds = best->forward_s[kind] + best->backward_s[kind];
        printf("%-12s %12.2f %12.2f %12.1f\n", layer_kind_name((enum layer_kind)kind),
               best->forward_s[kind] * 1e3, best->backward_s[kind] * 1e3,
               kind_flops(chain, (enum layer_kind)kind) / seconds * 1e-9);
    }
    printf("gradient norm %.2f ms, AdamW %.2f ms (%.1f GB/s)\n", best->norm_s * 1e3,
           best->adamw_s * 1e3, adamw_bytes(chain) / best->adamw_s * 1e-9);
    printf("step: fastest %.1f ms, median %.1f ms; %.1f GFLOP; %.0f tokens/s; peak memory %s\n",
           best->total_s * 1e3, figures->median_s * 1e3, step_flops(chain) * 1e-9,
           (double)chain->tokens / best->total_s, format_bytes((double)figures->peak_bytes, peak));
    printf("limit (FLOPs / measured rate) %.1f ms: the fastest step reaches %.1f %%, the median "
           "%.1f %% of the rate\n",
           products * 1e3, 100.0 * products / best->total_s, 100.0 * products / figures->median_s);
    printf("limit with norm and AdamW at the copy rate %.1f ms: the fastest step reaches %.1f %%, "
           "the median %.1f %%\n",
           limit * 1e3, 100.0 * limit / best->total_s, 100.0 * limit / figures->median_s);
}

static void write_kinds(const struct chain *chain, const struct timing *best, struct jout *out)
{
    jout_begin_object(out, "kinds");
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        jout_begin_object(out, layer_kind_name((enum layer_kind)kind));
        jout_real(out, "forward_s", best->forward_s[kind]);
        jout_real(out, "backward_s", best->backward_s[kind]);
        jout_real(out, "flops", kind_flops(chain, (enum layer_kind)kind));
        jout_end(out);
    }
    jout_end(out);
}

static enum status print_json(const struct chain *chain, const struct figures *figures,
                              struct error *err)
{
    const struct timing *best = &figures->best;
    struct text text = {0};
    struct jout *out = jout_new();
    jout_string(out, "libraries", device_libraries(chain->device));
    jout_int(out, "threads", device_threads(chain->device));
    jout_string(out, "precision", precision_name(chain->options.precision));
    jout_string(out, "gradients", precision_name(chain->options.gradients));
    jout_int(out, "parameters", (int64_t)model_parameter_count(&chain->model));
    jout_real(out, "step_flops", step_flops(chain));
    jout_real(out, "fastest_s", best->total_s);
    jout_real(out, "median_s", figures->median_s);
    jout_real(out, "tokens_per_s", (double)chain->tokens / best->total_s);
    jout_int(out, "peak_bytes", (int64_t)figures->peak_bytes);
    jout_real(out, "matmul_flops", matmul_rate(figures));
    jout_real(out, "copy_bytes_per_s", figures->copy_bytes_per_s);
    jout_real(out, "limit_s", limit_s(chain, figures));
    jout_real(out, "first_loss", figures->first_loss);
    jout_real(out, "last_loss", figures->last_loss);
    write_kinds(chain, best, out);
    jout_real(out, "norm_s", best->norm_s);
    jout_real(out, "adamw_s", best->adamw_s);
    enum status status = jout_finish(out, 2, &text, err);
    if (status == STATUS_OK)
        puts(text.data);
    text_free(&text);
    return status;
}

static enum status run_steps(struct chain *chain, struct moments moments, int64_t steps,
                             struct figures *out, struct error *err)
{
    struct timing timing;
    double *totals = calloc((size_t)steps, sizeof(*totals));
    if (totals == NULL)
        return error_memory(err, (size_t)steps * sizeof(*totals), "step times");
    out->best.total_s = INFINITY;
    enum status status = run_step(chain, moments, 1, &timing, err);
    out->first_loss = timing.loss;
    for (int64_t step = 0; status == STATUS_OK && step < steps; step++) {
        status = run_step(chain, moments, step + 2, &timing, err);
        totals[step] = timing.total_s;
        if (timing.total_s < out->best.total_s)
            out->best = timing;
    }
    out->last_loss = timing.loss;
    out->median_s = stats_median(totals, (size_t)steps);
    free(totals);
    return status;
}

static enum status bench(struct chain *chain, const struct bench_options *options,
                         struct moments moments, struct error *err)
{
    enum precision precision = chain->options.precision;
    double seconds = options->rate_seconds;
    struct figures figures = {0};
    TRY(device_measure_matmul(chain->device, precision, seconds, &figures.matmul_before, err));
    TRY(device_measure_copy(chain->device, seconds, &figures.copy_bytes_per_s, err));
    host_reset_peak_rss(); /* the operands were none of the training's memory */
    TRY(run_steps(chain, moments, options->steps, &figures, err));
    figures.peak_bytes = host_process_peak_rss_bytes();
    TRY(device_measure_matmul(chain->device, precision, seconds, &figures.matmul_after, err));
    if (options->json)
        return print_json(chain, &figures, err);
    print_figures(chain, &figures);
    return STATUS_OK;
}

static enum status run(const struct bench_options *options, struct error *err)
{
    struct model model;
    struct chain chain;
    struct model_overrides overrides = {.seq_length = options->seq_length};
    struct chain_options chain_options = {.shape = {.sequences = options->micro_batch,
                                                    .seq_length = options->seq_length,
                                                    .threads = (int)options->threads,
                                                    .head_tokens = options->head_tokens}};
    if (!precision_parse(options->precision, &chain_options.precision) ||
        !precision_parse(options->gradients, &chain_options.gradients) ||
        !recompute_parse(options->recompute, &chain_options.recompute) ||
        !attention_kernel_parse(options->attention, &chain_options.attention)) {
        return error_set(
            err, STATUS_USAGE,
            "--precision %s --gradients %s --recompute %s --attention %s: no such mode",
            options->precision, options->gradients, options->recompute, options->attention);
    }
    if (chain_options.gradients != PRECISION_FP32 &&
        (chain_options.gradients != PRECISION_BF16 || chain_options.precision != PRECISION_BF16))
        return error_set(err, STATUS_USAGE, "--gradients %s with --precision %s: no such training",
                         options->gradients, options->precision);
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
