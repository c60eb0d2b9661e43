/* What the libraries' kernels make of the matrix products of a GPT-2 124M step, in turns with each
 * other and with what the executor chooses ("ours").
 *
 *     bench_products [THREADS [ROUNDS [PRECISION]]]
 *
 * GFLOP/s of each kernel; "(+ms)" is what preparing it takes: packing the weights, quantising the
 * activations. Of ROUNDS the fastest counts. Times are CPU seconds of all threads, divided by their
 * number, so that other programs on the machine disturb little; run it with OMP_WAIT_POLICY=passive
 * there, or waiting counts as work. */
#include "kernels.h"

#include "executor/ops/update.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct product_row {
    const char *layer;
    size_t in, out;
    bool out_major;      /* the weight is [out, in] */
    bool adds, y_is_16;  /* its forward adds to c; or leaves it in 16 bit */
    bool gradient_is_16; /* so does its backward by the input */
};
static const struct product_row rows[] = {
    {"qkv", 768, 2304, false, false, true, false},   {"out", 768, 768, false, true, false, false},
    {"up", 768, 3072, false, false, true, false},    {"down", 3072, 768, false, true, false, true},
    {"head", 768, 50257, true, false, false, false},
};

enum way { WAY_FORWARD, WAY_INPUT, WAY_WEIGHT, WAY_WEIGHT_ADD, WAY_COUNT };
static const char *const way_names[WAY_COUNT] = {"forward", "by input", "by weight",
                                                 "by weight, added"};

struct buffers {
    void *weight, *x, *y; /* as bf16, or fp32 */
    float *out;           /* large enough for any */
};

static struct gemm product_of(const struct product_row *row, enum way way, size_t tokens,
                              const struct buffers *buffers, enum precision precision)
{
    struct gemm gemm = {.operands = precision, .result = PRECISION_FP32, .c = buffers->out};
    if (way == WAY_FORWARD || way == WAY_INPUT) {
        bool is_16 = way == WAY_FORWARD ? row->y_is_16 : row->gradient_is_16;
        gemm.m = tokens;
        gemm.n = way == WAY_FORWARD ? row->out : row->in;
        gemm.k = way == WAY_FORWARD ? row->in : row->out;
        gemm.a = way == WAY_FORWARD ? buffers->x : buffers->y;
        gemm.b = buffers->weight;
        gemm.b_transposed = (way == WAY_FORWARD) == row->out_major;
        gemm.accumulate = way == WAY_FORWARD && row->adds;
        gemm.result = is_16 ? precision : PRECISION_FP32;
        return gemm;
    }
    gemm.m = row->out_major ? row->out : row->in;
    gemm.n = row->out_major ? row->in : row->out;
    gemm.k = tokens;
    gemm.a = row->out_major ? buffers->y : buffers->x;
    gemm.b = row->out_major ? buffers->x : buffers->y;
    gemm.a_transposed = true;
    gemm.accumulate = way == WAY_WEIGHT_ADD;
    return gemm;
}

static double cpu_s(const struct device *device)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return ((double)time.tv_sec + 1e-9 * (double)time.tv_nsec) / device_threads(device);
}

struct times {
    double ours_s, run_s[KERNEL_COUNT], prepare_s[KERNEL_COUNT]; /* INFINITY: there is none */
};

static enum status time_round(struct device *device, const struct gemm *gemm,
                              struct kernel *kernels[KERNEL_COUNT], struct times *best,
                              struct error *err)
{
    double start_s = cpu_s(device);
    TRY(gemm_run(device, gemm, err));
    best->ours_s = fmin(best->ours_s, cpu_s(device) - start_s);
    for (int kind = 0; kind < KERNEL_COUNT; kind++) {
        if (kernels[kind] == NULL)
            continue;
        start_s = cpu_s(device);
        bool is_prepared = kernel_prepare(kernels[kind]);
        double run_start_s = cpu_s(device);
        kernel_run(kernels[kind]);
        best->run_s[kind] = fmin(best->run_s[kind], cpu_s(device) - run_start_s);
        if (is_prepared)
            best->prepare_s[kind] = fmin(best->prepare_s[kind], run_start_s - start_s);
    }
    return STATUS_OK;
}

static void print_times(const struct gemm *gemm, const struct times *best)
{
    double flops = 2e-9 * (double)gemm->m * (double)gemm->n * (double)gemm->k;
    printf("%8.1f", flops / best->ours_s);
    for (int kind = 0; kind < KERNEL_COUNT; kind++) {
        if (!isfinite(best->run_s[kind]))
            continue;
        printf("  %s %.1f", kernel_name((enum kernel_kind)kind), flops / best->run_s[kind]);
        if (isfinite(best->prepare_s[kind]))
            printf(" (+%.2f ms)", best->prepare_s[kind] * 1e3);
    }
    printf("\n");
}

static enum status bench(struct device *device, const struct gemm *gemm, int rounds,
                         struct error *err)
{
    struct kernel *kernels[KERNEL_COUNT] = {NULL};
    struct times best = {.ours_s = INFINITY};
    enum status status = STATUS_OK;
    for (int kind = 0; kind < KERNEL_COUNT; kind++) {
        best.run_s[kind] = best.prepare_s[kind] = INFINITY;
        if (status == STATUS_OK)
            status = kernel_open(&kernels[kind], (enum kernel_kind)kind, gemm, err);
    }
    for (int round = 0; status == STATUS_OK && round < rounds; round++)
        status = time_round(device, gemm, kernels, &best, err);
    if (status == STATUS_OK)
        print_times(gemm, &best);
    for (int kind = 0; kind < KERNEL_COUNT; kind++)
        kernel_close(kernels[kind]);
    return status;
}

static enum status bench_tokens(struct device *device, size_t tokens, int rounds,
                                enum precision precision, struct error *err)
{
    const size_t widest = 50257, hidden = 768;
    size_t operand = widest * (tokens > hidden ? tokens : hidden);
    void *data[4] = {NULL};
    enum status status = STATUS_OK;
    for (size_t i = 0; i < 4 && status == STATUS_OK; i++)
        status = device_allocate(device, operand * sizeof(float), &data[i], err);
    struct buffers buffers = {data[0], data[1], data[2], data[3]};
    for (size_t i = 0; i < 3 && status == STATUS_OK; i++)
        ops_fill(device, data[i], operand, 1.0f);
    for (size_t i = 0; status == STATUS_OK && i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int way = 0; status == STATUS_OK && way < WAY_COUNT; way++) {
            struct gemm gemm = product_of(&rows[i], (enum way)way, tokens, &buffers, precision);
            printf("%-5s %-17s %5zu x %5zu x %5zu  ours", rows[i].layer, way_names[way], gemm.m,
                   gemm.n, gemm.k);
            status = bench(device, &gemm, rounds, err);
        }
    }
    for (size_t i = 0; i < 4; i++)
        device_free(device, data[i], operand * sizeof(float));
    return status;
}

static enum status run(int threads, int rounds, enum precision precision, struct error *err)
{
    struct device *device;
    TRY(device_open(&device, threads, err));
    enum status status = STATUS_OK;
    if (!device_supports(device, precision) || precision == PRECISION_FP16)
        status = error_set(err, STATUS_UNSUPPORTED, "no kernels in %s", precision_name(precision));
    else
        printf("%s; %d threads; %s\n", device_libraries(device), threads,
               precision_name(precision));
    for (size_t tokens = 256; status == STATUS_OK && tokens <= 1024; tokens *= 4)
        status = bench_tokens(device, tokens, rounds, precision, err);
    device_close(device);
    return status;
}

int main(int argc, char **argv)
{
    struct error err;
    enum precision precision = PRECISION_BF16;
    int threads = argc > 1 ? atoi(argv[1]) : 2, rounds = argc > 2 ? atoi(argv[2]) : 10;
    if (argc > 3 && !precision_parse(argv[3], &precision)) {
        fprintf(stderr, "bench_products: %s: no such precision\n", argv[3]);
        return 2;
    }
    if (run(threads, rounds, precision, &err) != STATUS_OK) {
        fprintf(stderr, "bench_products: %s\n", err.message);
        return 1;
    }
    return 0;
}
