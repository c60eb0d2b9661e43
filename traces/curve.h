/* A long series of values made short enough to draw. */
#ifndef TEMPER_TRACES_CURVE_H
#define TEMPER_TRACES_CURVE_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>

enum { CURVE_POINTS_MAX = 2000 };

struct point {
    double x, y; /* y is NaN where the series has a gap */
};

struct curve {
    struct point *points; /* owned */
    size_t count;         /* at most CURVE_POINTS_MAX */
    bool has_values;      /* any finite y: the two below are set */
    double minimum, maximum;
};

/* What a series holds at `index`. */
typedef struct point curve_source(const void *series, size_t index);

/* All points of a short series; else of each of CURVE_POINTS_MAX / 2 equal pieces the smallest and
 * the largest value, in their order. A piece without a finite value becomes a gap. */
enum status curve_reduce(struct curve *out, curve_source *source, const void *series, size_t count,
                         struct error *err);
/* Means over a window of `window` points centred on each of at most CURVE_POINTS_MAX points; values
 * that are not finite are left out of the means. */
enum status curve_smooth(struct curve *out, curve_source *source, const void *series, size_t count,
                         size_t window, struct error *err);
void curve_free(struct curve *curve);

#endif
