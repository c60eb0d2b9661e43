/* What the device can do at best: the yardsticks that a step is held against. */
#include "base/clock.h"
#include "executor/ops/gemm.h"
#include "executor/ops/internal.h"
#include "executor/ops/update.h"
#include "executor/ops/vector.h"

enum { PRODUCT_WIDTH = 2048, REPEATS_MIN = 3 };
static const size_t COPY_BYTES = (size_t)256 << 20;

/* Of repeated runs over `seconds` the fastest counts: what disturbs a run only makes it slower. */
struct stopwatch {
    double deadline_s, started_s, best_s;
    int runs;
};

static struct stopwatch stopwatch_start(double seconds)
{
    double now = clock_s();
    return (struct stopwatch){.deadline_s = now + seconds, .started_s = now};
}

/* End a run; false when it was the last. */
static bool stopwatch_lap(struct stopwatch *watch)
{
    double now = clock_s(), run_s = now - watch->started_s;
    if (watch->runs == 0 || run_s < watch->best_s)
        watch->best_s = run_s;
    watch->started_s = now;
    watch->runs++;
    return now < watch->deadline_s || watch->runs < REPEATS_MIN;
}

static enum status time_products(struct device *device, const struct gemm *gemm, double seconds,
                                 double *flops, struct error *err)
{
    device_claim(device);
    TRY(gemm_run(device, gemm, err)); /* not timed: it prepares the library */
    struct stopwatch watch = stopwatch_start(seconds);
    do {
        TRY(gemm_run(device, gemm, err));
    } while (stopwatch_lap(&watch));
    *flops = 2.0 * (double)gemm->m * (double)gemm->n * (double)gemm->k / watch.best_s;
    return STATUS_OK;
}

enum status device_measure_matmul(struct device *device, enum precision precision, double seconds,
                                  double *flops, struct error *err)
{
    if (!device_supports(device, precision)) {
        return error_set(err, STATUS_UNSUPPORTED, "the rate of %s matrix products: not supported",
                         precision_name(precision));
    }
    size_t width = PRODUCT_WIDTH, count = width * width;
    float *data = NULL;
    TRY(device_allocate(device, 3 * count * sizeof(float), (void **)&data, err));
    float *result = data, *values = data + count;
    ops_fill_normal(device, values, 0, count, 1.0, 1, 0);
    const void *operand = values;
    if (precision != PRECISION_FP32) {
        uint16_t *rounded = (uint16_t *)(void *)(data + 2 * count);
        ops_cast_16(device, values, rounded, count, precision);
        operand = rounded;
    }
    struct gemm gemm = {.m = width,
                        .n = width,
                        .k = width,
                        .a = operand,
                        .b = operand,
                        .c = result,
                        .operands = precision,
                        .result = PRECISION_FP32};
    enum status status = time_products(device, &gemm, seconds, flops, err);
    device_free(device, data, 3 * count * sizeof(float));
    return status;
}

/* Not memcpy, which passes the caches by and so is no measure of what loops like ours can do. */
CLONES
static void copy_span(float *to, const float *from, size_t count, float factor)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        to[i] = factor * from[i];
}

static void copy(struct device *device, float *data, size_t count)
{
#pragma omp parallel num_threads(device->threads)
    {
        struct span span = span_of_thread(count, 1024);
        copy_span(data + count + span.begin, data + span.begin, span.end - span.begin, 2.0f);
    }
}

enum status device_measure_copy(struct device *device, double seconds, double *bytes_per_s,
                                struct error *err)
{
    float *data = NULL;
    size_t count = COPY_BYTES / sizeof(float);
    TRY(device_allocate(device, 2 * COPY_BYTES, (void **)&data, err));
    copy(device, data, count); /* not timed */
    struct stopwatch watch = stopwatch_start(seconds);
    do {
        copy(device, data, count);
    } while (stopwatch_lap(&watch));
    *bytes_per_s = 2.0 * (double)COPY_BYTES / watch.best_s;
    device_free(device, data, 2 * COPY_BYTES);
    return STATUS_OK;
}
