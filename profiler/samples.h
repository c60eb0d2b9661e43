/* Repeated timings of one thing, and what is kept of them.
 *
 * The rule against a noisy machine (stolen time slices, a neighbour's burst of work): samples above
 * SAMPLE_CUTOFF times the lower quartile are dropped; n, mean and deviation are of the others. The
 * quartile holds where up to three quarters of the samples are disturbed, which the median does
 * not; what disturbs a sample only makes it slower. A run's step time is reported as a median, so
 * such interruptions are not in what is predicted either. Where ranks outnumber the cores, they
 * wait for a core in every step: there all samples are kept. */
#ifndef TEMPER_PROFILER_SAMPLES_H
#define TEMPER_PROFILER_SAMPLES_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAMPLE_CUTOFF 2.0

enum { SAMPLES_MINIMUM = 3 }; /* before a mean is believed */

/* Zero-initialise ({0}) before use; release with samples_free. */
struct samples {
    double *values; /* [count], owned; samples_summary reorders them */
    size_t count, capacity;
    bool keeps_all;
};

struct summary {
    uint64_t n; /* kept */
    uint64_t dropped;
    double mean, deviation;
};

enum status samples_add(struct samples *samples, double value, struct error *err);
void samples_clear(struct samples *samples); /* keeps the memory */
void samples_free(struct samples *samples);
struct summary samples_summary(struct samples *samples);
/* At least SAMPLES_MINIMUM kept and the mean known to this relative error. */
bool samples_settled(struct samples *samples, double relative_error);

#endif
