#include "profiler/samples.h"
#include "base/stats.h"
#include <math.h>
#include <stdlib.h>

enum { SAMPLES_FIRST = 16 };

enum status samples_add(struct samples *samples, double value, struct error *err)
{
    if (samples->count == samples->capacity) {
        size_t capacity = samples->capacity > 0 ? 2 * samples->capacity : SAMPLES_FIRST;
        double *values = realloc(samples->values, capacity * sizeof(values[0]));
        if (!values)
            return error_memory(err, capacity * sizeof(values[0]), "timings");
        samples->values = values;
        samples->capacity = capacity;
    }
    samples->values[samples->count++] = value;
    return STATUS_OK;
}

void samples_clear(struct samples *samples)
{
    samples->count = 0;
}

void samples_free(struct samples *samples)
{
    free(samples->values);
    *samples = (struct samples){0};
}

static struct stats kept_stats(struct samples *samples)
{
    struct stats stats = {0};
    (void)stats_median(samples->values, samples->count); /* sorts them */
    double quartile = samples->count > 0 ? samples->values[(samples->count - 1) / 4] : 0.0;
    double cutoff = samples->keeps_all ? INFINITY : SAMPLE_CUTOFF * quartile;
    for (size_t i = 0; i < samples->count; i++) {
        if (samples->values[i] <= cutoff)
            stats_add(&stats, samples->values[i]);
    }
    return stats;
}

struct summary samples_summary(struct samples *samples)
{
    struct stats stats = kept_stats(samples);
    return (struct summary){
        .n = stats.n,
        .dropped = samples->count - stats.n,
        .mean = stats.mean,
        .deviation = stats_deviation(&stats),
    };
}

bool samples_settled(struct samples *samples, double relative_error)
{
    struct stats stats = kept_stats(samples);
    return stats.n >= SAMPLES_MINIMUM && stats_relative_error(&stats) < relative_error;
}
