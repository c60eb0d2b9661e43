#include "traces/curve.h"
#include <math.h>
#include <stdlib.h>

static enum status curve_allocate(struct curve *out, struct error *err)
{
    *out = (struct curve){.points = calloc(CURVE_POINTS_MAX, sizeof(struct point))};
    if (!out->points)
        return error_memory(err, CURVE_POINTS_MAX * sizeof(struct point), "a curve");
    return STATUS_OK;
}

static void curve_add(struct curve *curve, struct point point)
{
    curve->points[curve->count++] = point;
    if (!isfinite(point.y))
        return;
    curve->minimum = curve->has_values ? fmin(curve->minimum, point.y) : point.y;
    curve->maximum = curve->has_values ? fmax(curve->maximum, point.y) : point.y;
    curve->has_values = true;
}

/* Smallest and largest of [begin, end), in their order. */
static void add_extremes(struct curve *curve, curve_source *source, const void *series,
                         size_t begin, size_t end)
{
    struct point low = source(series, begin), high = low;
    for (size_t i = begin + 1; i < end; i++) {
        struct point point = source(series, i);
        if (!isfinite(point.y))
            continue;
        if (!isfinite(low.y) || point.y < low.y)
            low = point;
        if (!isfinite(high.y) || point.y > high.y)
            high = point;
    }
    bool low_is_first = low.x <= high.x;
    curve_add(curve, low_is_first ? low : high);
    curve_add(curve, low_is_first ? high : low);
}

enum status curve_reduce(struct curve *out, curve_source *source, const void *series, size_t count,
                         struct error *err)
{
    TRY(curve_allocate(out, err));
    if (count <= CURVE_POINTS_MAX) {
        for (size_t i = 0; i < count; i++)
            curve_add(out, source(series, i));
        return STATUS_OK;
    }
    enum { PIECES = CURVE_POINTS_MAX / 2 };
    for (size_t piece = 0; piece < PIECES; piece++)
        add_extremes(out, source, series, piece * count / PIECES, (piece + 1) * count / PIECES);
    return STATUS_OK;
}

/* A window's sum, moved along the series: entering and leaving values keep it current. */
struct window {
    double sum;
    size_t finite;
};

static void window_move(struct window *window, double y, bool enters)
{
    if (!isfinite(y))
        return;
    window->sum += enters ? y : -y;
    window->finite += enters ? 1 : (size_t)-1;
}

enum status curve_smooth(struct curve *out, curve_source *source, const void *series, size_t count,
                         size_t window, struct error *err)
{
    TRY(curve_allocate(out, err));
    size_t half = window / 2, begin = 0, end = 0;
    size_t stride = (count + CURVE_POINTS_MAX - 1) / CURVE_POINTS_MAX;
    struct window sum = {0};
    for (size_t i = 0; i < count; i++) {
        while (end < count && end <= i + half)
            window_move(&sum, source(series, end++).y, true);
        while (begin + half < i)
            window_move(&sum, source(series, begin++).y, false);
        if (i % stride != 0)
            continue;
        double mean = sum.finite > 0 ? sum.sum / (double)sum.finite : NAN;
        curve_add(out, (struct point){source(series, i).x, mean});
    }
    return STATUS_OK;
}

void curve_free(struct curve *curve)
{
    free(curve->points);
    *curve = (struct curve){0};
}
