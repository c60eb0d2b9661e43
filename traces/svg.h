/* Charts as inline SVG that keep their text's size at any width.
 *
 * Horizontal places are percentages of the chart's width and vertical ones pixels; only paths,
 * which know no percentages, stretch inside a viewBox of their own. Labels stand outside the plot's
 * box, in the padding that the class "plot" has (page_style.c). */
#ifndef TEMPER_TRACES_SVG_H
#define TEMPER_TRACES_SVG_H

#include "base/text.h"
#include <stdbool.h>

/* How an axis divides and writes its values; all but AXIS_PLAIN choose one unit for the whole axis.
 */
enum axis_unit {
    AXIS_PLAIN,
    AXIS_STEPS,
    AXIS_SECONDS,
    AXIS_BYTES,
    AXIS_JOULES,
    AXIS_GRAMS,
};

struct axis {
    double low, high; /* low < high: see axis_fit */
    enum axis_unit unit;
    const char *title; /* without the unit */
    bool is_log;       /* then low > 0 */
};

struct plot {
    struct text *out;
    int height_px;
    struct axis x, y;
};

/* low and high around the given values, made distinct and finite. */
struct axis axis_fit(double low, double high, enum axis_unit unit, const char *title);
/* For values from low to high, with a margin on both sides, logarithmic where they differ widely.
 */
struct axis axis_around(double low, double high, enum axis_unit unit, const char *title);
/* "activations (MiB)". */
void axis_title(const struct axis *axis, struct text *out);

double plot_x(const struct plot *plot, double x); /* percent of the width */
double plot_y(const struct plot *plot, double y); /* pixels from the top */

/* Grid, labels and titles alone, for an SVG element of the caller's. */
void plot_axes(const struct plot *plot);
/* The same in an element of their own. `name` is what a screen reader says. */
void plot_begin(const struct plot *plot, const char *name);
void plot_end(const struct plot *plot);

/* Straight lines through points; one whose value is not finite interrupts the line. `class` is the
 * path's CSS class. With `fills` the area down to the x axis is closed. */
struct path {
    const struct plot *plot;
    bool fills, is_down;
    double first_x, last_x; /* in the path's own units, of the piece at hand */
};
void path_begin(struct path *path, const struct plot *plot, const char *class, bool fills);
void path_point(struct path *path, double x, double y);
void path_end(struct path *path);

/* A horizontal line across the plot. Nothing when `y` lies outside the axis. */
void plot_level(const struct plot *plot, double y, const char *class);
/* A dot with a hover title (plain text of ours, not escaped). */
void plot_dot(const struct plot *plot, double x, double y, const char *class, const char *title);

#endif
