/* Plain against tiled attention, forward and backward of the heads alone, in turns.
 *
 *     bench_attention [THREADS [SECONDS [PRECISION]]]
 *
 * FLOPs are those of the causal half: forward 2 s^2 head_dim for each head (two products over half
 * of the s x s scores), backward twice that, as everywhere in temper without what is recomputed;
 * tiled does 2.5 times forward in its backward. The rate is held against that of a large matrix
 * product in the same precision, measured in the same run. Of repeated runs the fastest counts.
 *
 * Times are CPU seconds of all threads, divided by their number, so that other programs on the
 * machine disturb little; alone on it, and with threads that wait by spinning, that is the time
 * that passes. SECONDS are those of each row. */
#include "heads.h"

#include "executor/ops/gemm.h"
#include "executor/ops/update.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double cpu_s(const struct device *device)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return ((double)time.tv_sec + 1e-9 * (double)time.tv_nsec) / device_threads(device);
}

struct times {
    double forward_s, backward_s; /* 0: none yet */
    int repeats;                  /* of what one time is of */
};

static void keep_least(double *least, double value)
{
    if (*least == 0.0 || value < *least)
        *least = value;
}

static void time_once(const struct heads *heads, const struct attention *attention,
                      struct times *best)
{
    struct attention backward = *attention;
    if (attention->tile == NULL)
        backward.context = NULL; /* kept */
    int repeats = best->repeats;
    double start = cpu_s(heads->device);
    for (int i = 0; i < repeats; i++)
        attention_heads_forward(heads->device, attention);
    double between = cpu_s(heads->device);
    for (int i = 0; i < repeats; i++)
        attention_heads_backward(heads->device, &backward);
    keep_least(&best->forward_s, (between - start) / repeats);
    keep_least(&best->backward_s, (cpu_s(heads->device) - between) / repeats);
}

/* Another thread's CPU time is known late, so what is short is repeated. */
static struct times times_start(const struct heads *heads, const struct attention *attention)
{
    const double batch_s = 0.02, least_s = 1e-4;
    struct times first = {.repeats = 1};
    time_once(heads, attention, &first);
    double run_s = first.forward_s > least_s ? first.forward_s : least_s;
    return (struct times){.repeats = 1 + (int)(batch_s / run_s)};
}

static enum status bench(const struct heads_shape *shape, double seconds, double rate,
                         struct error *err)
{
    struct heads heads;
    TRY(heads_open(&heads, shape, err));
    struct times plain = times_start(&heads, &heads.plain);
    struct times tiled = times_start(&heads, &heads.tiled);
    double end = cpu_s(heads.device) + seconds;
    for (int runs = 0; runs < 3 || cpu_s(heads.device) < end; runs++) {
        time_once(&heads, &heads.plain, &plain);
        time_once(&heads, &heads.tiled, &tiled);
    }
    double flops = 2.0 * (double)(shape->sequences * shape->heads * shape->head_dim) *
                   (double)(shape->length * shape->length);
    printf("%-5s %5zu %4zu %2zu/%-2zu | %8.3f %8.3f %5.2f %6.1f %4.0f%% | %8.3f %8.3f %5.2f %6.1f "
           "%4.0f%% | %5.2f\n",
           precision_name(shape->precision), shape->length, shape->sequences, shape->heads,
           shape->kv_heads, plain.forward_s * 1e3, tiled.forward_s * 1e3,
           plain.forward_s / tiled.forward_s, flops / tiled.forward_s * 1e-9,
           flops / tiled.forward_s / rate * 100.0, plain.backward_s * 1e3, tiled.backward_s * 1e3,
           plain.backward_s / tiled.backward_s, 2.0 * flops / tiled.backward_s * 1e-9,
           2.0 * flops / tiled.backward_s / rate * 100.0,
           (plain.forward_s + plain.backward_s) / (tiled.forward_s + tiled.backward_s));
    heads_close(&heads);
    return STATUS_OK;
}

/* FLOP/s of a product of two square matrices. */
static enum status measure_rate(struct device *device, enum precision precision, double *rate,
                                struct error *err)
{
    const size_t width = 2048, count = width * width;
    float *data = NULL;
    TRY(device_allocate(device, 2 * count * sizeof(float), (void **)&data, err));
    ops_fill_normal(device, data, 0, count, 1.0, 1, 0);
    if (precision != PRECISION_FP32)
        ops_cast_16(device, data, (uint16_t *)(void *)data, count, precision);
    const struct gemm gemm = {.m = width,
                              .n = width,
                              .k = width,
                              .a = data,
                              .b = data,
                              .c = data + count,
                              .operands = precision,
                              .result = PRECISION_FP32};
    double best_s = 0.0;
    enum status status = STATUS_OK;
    for (int i = 0; i < 8 && status == STATUS_OK; i++) {
        double start = cpu_s(device);
        status = gemm_run(device, &gemm, err);
        if (i > 0) /* the first prepares the library */
            keep_least(&best_s, cpu_s(device) - start);
    }
    device_free(device, data, 2 * count * sizeof(float));
    *rate = 2.0 * (double)count * (double)width / best_s;
    return status;
}

static enum status bench_precision(enum precision precision, int threads, double seconds,
                                   struct error *err)
{
    struct device *device = NULL;
    double rate = 0.0;
    TRY(device_open(&device, threads, err));
    device_claim(device);
    bool is_supported = device_supports(device, precision);
    enum status status = is_supported ? measure_rate(device, precision, &rate, err) : STATUS_OK;
    device_close(device);
    if (status != STATUS_OK || !is_supported)
        return status;
    printf("%s: matrix products at %.1f GFLOP/s, tiles by %s\n", precision_name(precision),
           rate * 1e-9, tile_ops_for(precision)->name);
    const size_t kv_heads[] = {12, 4};
    for (size_t i = 0; i < sizeof(kv_heads) / sizeof(kv_heads[0]); i++) {
        for (size_t length = 64; length <= 4096; length *= 2) {
            struct heads_shape shape = {.sequences = length < 512 ? 512 / length : 1,
                                        .length = length,
                                        .heads = 12,
                                        .kv_heads = kv_heads[i],
                                        .head_dim = 64,
                                        .precision = precision,
                                        .threads = threads};
            TRY(bench(&shape, seconds, rate, err));
        }
    }
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 2;
    double seconds = argc > 2 ? atof(argv[2]) : 2.0;
    struct error err = {0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("head_dim 64, %d threads; ms, ratio plain/tiled, GFLOP/s of tiled and its share of the "
           "matrix products' rate\n",
           threads);
    printf("%-5s %5s %4s %5s | %8s %8s %5s %6s %5s | %8s %8s %5s %6s %5s | %5s\n", "", "s", "b",
           "heads", "forward", "tiled", "ratio", "GF/s", "share", "backward", "tiled", "ratio",
           "GF/s", "share", "both");
    for (int precision = 0; precision < PRECISION_COUNT; precision++) {
        if (argc > 3 && strcmp(argv[3], precision_name((enum precision)precision)) != 0)
            continue;
        if (bench_precision((enum precision)precision, threads, seconds, &err) != STATUS_OK) {
            fprintf(stderr, "bench_attention: %s\n", err.message);
            return 1;
        }
    }
    return 0;
}
