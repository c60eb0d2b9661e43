/* Running mean and variance (Welford 1962), order statistics of small samples, and the quantiles of
 * a normal distribution. */
#ifndef TEMPER_BASE_STATS_H
#define TEMPER_BASE_STATS_H

#include <stddef.h>
#include <stdint.h>

struct stats {
    uint64_t n;
    double mean;
    double m2; /* sum of squared differences from the mean */
    double minimum, maximum;
};

void stats_add(struct stats *stats, double value); /* start from {0} */
void stats_merge(struct stats *into, const struct stats *from);
double stats_deviation(const struct stats *stats);      /* sample standard deviation; 0 for n < 2 */
double stats_relative_error(const struct stats *stats); /* deviation / sqrt(n) / |mean|; infinite
                                                           for n < 2: nothing is known yet */
double stats_median(double *values, size_t count);      /* sorts `values`; 0 for count 0 */

/* How many deviations above its mean a normally distributed quantity is no more often than this:
 * 1.645 for 0.05. 0 < risk < 1; negative above 0.5. */
double normal_deviations(double risk);

#endif
