#include "base/stats.h"
#include <math.h>
#include <stdlib.h>

void stats_add(struct stats *stats, double value)
{
    if (stats->n == 0 || value < stats->minimum)
        stats->minimum = value;
    if (stats->n == 0 || value > stats->maximum)
        stats->maximum = value;
    stats->n++;
    double before = value - stats->mean;
    stats->mean += before / (double)stats->n;
    stats->m2 += before * (value - stats->mean);
}

/* The pairwise update of Chan, Golub and LeVeque 1979. */
void stats_merge(struct stats *into, const struct stats *from)
{
    if (from->n == 0)
        return;
    if (into->n == 0) {
        *into = *from;
        return;
    }
    double n_into = (double)into->n, n_from = (double)from->n;
    double apart = from->mean - into->mean;
    into->n += from->n;
    into->mean += apart * n_from / (n_into + n_from);
    into->m2 += from->m2 + apart * apart * n_into * n_from / (n_into + n_from);
    into->minimum = fmin(into->minimum, from->minimum);
    into->maximum = fmax(into->maximum, from->maximum);
}

double stats_deviation(const struct stats *stats)
{
    return stats->n < 2 ? 0.0 : sqrt(stats->m2 / (double)(stats->n - 1));
}

double stats_relative_error(const struct stats *stats)
{
    if (stats->n < 2)
        return INFINITY;
    double error = stats_deviation(stats) / sqrt((double)stats->n);
    if (error == 0.0)
        return 0.0;
    return error / fabs(stats->mean);
}

/* NaN sorts last, so that the order is total. */
static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    if (isnan(a) || isnan(b))
        return (isnan(a) ? 1 : 0) - (isnan(b) ? 1 : 0);
    return (a > b) - (a < b);
}

double stats_median(double *values, size_t count)
{
    if (count == 0)
        return 0.0;
    qsort(values, count, sizeof(values[0]), compare_doubles);
    size_t middle = count / 2;
    if (count % 2 == 1)
        return values[middle];
    return values[middle - 1] + (values[middle] - values[middle - 1]) / 2;
}

/* Newton's method on the tail Q(z) = erfc(z / sqrt 2) / 2 from z = 0: the tail is convex there, so
 * that every step stays on the near side of the root. */
double normal_deviations(double risk)
{
    enum { STEPS_MAX = 200 };
    const double root_half = 0.70710678118654752440, root_two_pi = 2.50662827463100050242;
    if (risk > 0.5)
        return -normal_deviations(1 - risk);
    double z = 0;
    for (int i = 0; i < STEPS_MAX; i++) {
        double step = (0.5 * erfc(z * root_half) - risk) * root_two_pi * exp(0.5 * z * z);
        z += step;
        if (step <= 1e-15 * z)
            break;
    }
    return z;
}
