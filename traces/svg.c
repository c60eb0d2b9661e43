#include "traces/svg.h"
#include "base/units.h"
#include <math.h>
#include <stdio.h>

enum { PATH_WIDTH = 1000, TICKS_ABOUT = 5, TICKS_MAX = 24 };

struct unit {
    double size;
    const char *name;
};

enum { UNITS_MAX = 7 };

/* By enum axis_unit, ascending; those without a name have no units. */
static const struct unit axis_units[][UNITS_MAX] = {
    [AXIS_PLAIN] = {{1, NULL}},
    [AXIS_STEPS] = {{1, NULL}},
    [AXIS_SECONDS] = {{1e-9, "ns"}, {1e-6, "us"}, {1e-3, "ms"}, {1, "s"}},
    [AXIS_BYTES] =
        {{1, "B"}, {1024.0, "KiB"}, {1048576.0, "MiB"}, {1073741824.0, "GiB"}, {0x1p40, "TiB"}},
    [AXIS_JOULES] = {{1e-6, "uJ"}, {1e-3, "mJ"}, {1, "J"}, {1e3, "kJ"}, {1e6, "MJ"}, {1e9, "GJ"}},
    [AXIS_GRAMS] = {{1e-3, "mg"}, {1, "g"}, {1e3, "kg"}, {1e6, "t"}},
};

/* The largest unit that the axis's end fills at least once. */
static struct unit axis_scale(const struct axis *axis)
{
    const struct unit *units = axis_units[axis->unit];
    double end = fmax(fabs(axis->low), fabs(axis->high));
    size_t best = 0;
    for (size_t i = 1; i < UNITS_MAX && units[i].name; i++)
        if (end >= units[i].size)
            best = i;
    return units[best];
}

struct axis axis_fit(double low, double high, enum axis_unit unit, const char *title)
{
    struct axis axis = {.low = low, .high = high, .unit = unit, .title = title};
    if (!isfinite(low) || !isfinite(high) || low > high) {
        axis.low = 0;
        axis.high = 1;
    }
    /* Closer together than doubles can divide: show the value in the middle. */
    double size = fmax(fabs(axis.low), fabs(axis.high));
    if (axis.high - axis.low <= 1e-9 * size || size == 0) {
        double margin = size > 0 ? 0.5 * size : 1;
        axis.low -= axis.low > 0 ? margin : 0;
        axis.high += margin;
    }
    return axis;
}

struct axis axis_around(double low, double high, enum axis_unit unit, const char *title)
{
    const double share = 0.06, wide = 8; /* times */
    if (low > 0 && high > wide * low) {
        double margin = pow(high / low, share);
        struct axis axis = axis_fit(low / margin, high * margin, unit, title);
        axis.is_log = true;
        return axis;
    }
    double margin = share * (high - low);
    double from = low >= 0 ? fmax(0, low - margin) : low - margin;
    return axis_fit(from, high + margin, unit, title);
}

void axis_title(const struct axis *axis, struct text *out)
{
    struct unit unit = axis_scale(axis);
    text_append_html(out, axis->title);
    if (unit.name)
        text_printf(out, " (%s)", unit.name);
}

static double axis_share(const struct axis *axis, double value)
{
    if (axis->is_log)
        return log(value / axis->low) / log(axis->high / axis->low);
    return (value - axis->low) / (axis->high - axis->low);
}

double plot_x(const struct plot *plot, double x)
{
    return 100 * axis_share(&plot->x, x);
}

double plot_y(const struct plot *plot, double y)
{
    return plot->height_px * (1 - axis_share(&plot->y, y));
}

/* 1, 2 or 5 times a power of ten, so that about TICKS_ABOUT steps fill the range. */
static double tick_step(double range, bool is_whole)
{
    double rough = range / TICKS_ABOUT;
    double power = pow(10, floor(log10(rough)));
    double factor = rough / power;
    double step = power * (factor < 1.5 ? 1 : factor < 3.5 ? 2 : factor < 7.5 ? 5 : 10);
    return is_whole && step < 1 ? 1 : step;
}

static void tick_label(double value, double step, struct text *out)
{
    char grouped[UNIT_TEXT_BYTES];
    int decimals = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    if (fabs(value) < step * 1e-6)
        text_append(out, "0");
    else if (decimals > 5 || fabs(value) >= 1e12)
        text_printf(out, "%.3g", value);
    else if (decimals == 0 && value >= 0)
        text_append(out, format_grouped((uint64_t)llround(value), grouped));
    else
        text_printf(out, "%.*f", decimals, value);
}

static void draw_tick(const struct plot *plot, bool is_x, double at)
{
    struct text *out = plot->out;
    if (is_x) {
        double x = plot_x(plot, at);
        text_printf(out,
                    "<line class=\"tick\" x1=\"%.3f%%\" x2=\"%.3f%%\" y1=\"%d\" y2=\"%d\"/>"
                    "<text x=\"%.3f%%\" y=\"%d\" text-anchor=\"middle\">",
                    x, x, plot->height_px, plot->height_px + 5, x, plot->height_px + 18);
    } else {
        double y = plot_y(plot, at);
        text_printf(out,
                    "<line class=\"grid\" x1=\"0\" x2=\"100%%\" y1=\"%.1f\" y2=\"%.1f\"/>"
                    "<text x=\"-8\" y=\"%.1f\" text-anchor=\"end\">",
                    y, y, y + 4);
    }
}

/* 1, 2, 5, 10, 20 and so on; over many powers of ten these alone. */
static void draw_log_ticks(const struct plot *plot, bool is_x)
{
    static const double factors[] = {1, 2, 5};
    const struct axis *axis = is_x ? &plot->x : &plot->y;
    double scale = axis_scale(axis).size;
    double low = axis->low / scale, high = axis->high / scale;
    size_t used = log10(high / low) > 3 ? 1 : sizeof(factors) / sizeof(*factors);
    double power = pow(10, floor(log10(low)));
    for (int i = 0; i < TICKS_MAX && power <= high; i++, power *= 10) {
        for (size_t k = 0; k < used; k++) {
            double value = factors[k] * power;
            if (value < low || value > high)
                continue;
            draw_tick(plot, is_x, value * scale);
            text_printf(plot->out, "%.6g</text>\n", value);
        }
    }
}

static void draw_ticks(const struct plot *plot, bool is_x)
{
    const struct axis *axis = is_x ? &plot->x : &plot->y;
    double scale = axis_scale(axis).size;
    double low = axis->low / scale, high = axis->high / scale;
    double step = tick_step(high - low, axis->unit == AXIS_STEPS);
    double first = ceil(low / step - 1e-9);
    if (axis->is_log) {
        draw_log_ticks(plot, is_x);
        return;
    }
    for (int i = 0; i < TICKS_MAX; i++) {
        double value = (first + i) * step;
        if (value > high + 1e-9 * step)
            return;
        draw_tick(plot, is_x, value * scale);
        tick_label(value, step, plot->out);
        text_append(plot->out, "</text>\n");
    }
}

void plot_axes(const struct plot *plot)
{
    struct text *out = plot->out;
    if (plot->y.title) {
        draw_ticks(plot, false);
        text_append(out, "<text class=\"title\" x=\"-52\" y=\"-14\">");
        axis_title(&plot->y, out);
        text_append(out, "</text>\n");
    }
    draw_ticks(plot, true);
    text_printf(out,
                "<line class=\"base\" x1=\"0\" x2=\"100%%\" y1=\"%d\" y2=\"%d\"/>"
                "<text class=\"title\" x=\"100%%\" y=\"%d\" text-anchor=\"end\">",
                plot->height_px, plot->height_px, plot->height_px + 36);
    axis_title(&plot->x, out);
    text_append(out, "</text>\n");
}

void plot_begin(const struct plot *plot, const char *name)
{
    struct text *out = plot->out;
    text_printf(out,
                "<div class=\"plot\"><svg width=\"100%%\" height=\"%d\" role=\"img\" "
                "aria-label=\"",
                plot->height_px);
    text_append_html(out, name);
    text_append(out, "\">\n");
    plot_axes(plot);
}

void plot_end(const struct plot *plot)
{
    text_append(plot->out, "</svg></div>\n");
}

void path_begin(struct path *path, const struct plot *plot, const char *class, bool fills)
{
    *path = (struct path){.plot = plot, .fills = fills};
    text_printf(plot->out,
                "<svg width=\"100%%\" height=\"%d\" viewBox=\"0 0 %d %d\" "
                "preserveAspectRatio=\"none\"><path class=\"%s\" d=\"",
                plot->height_px, PATH_WIDTH, plot->height_px, class);
}

static void end_piece(struct path *path)
{
    if (path->is_down && path->fills)
        text_printf(path->plot->out, "L%.1f %dL%.1f %dZ", path->last_x, path->plot->height_px,
                    path->first_x, path->plot->height_px);
    path->is_down = false;
}

void path_point(struct path *path, double x, double y)
{
    const struct plot *plot = path->plot;
    if (!isfinite(x) || !isfinite(y)) {
        end_piece(path);
        return;
    }
    /* Far outside is drawn at the edge: a spike says that it left the chart. */
    double at_x = plot_x(plot, x) * PATH_WIDTH / 100;
    double at_y = fmin(fmax(plot_y(plot, y), 0), plot->height_px);
    path->last_x = at_x;
    if (!path->is_down) {
        path->first_x = at_x;
        /* The line of no length shows a lone point as a dot. */
        text_printf(plot->out, "M%.1f %.1fl0 0", at_x, at_y);
    } else {
        text_printf(plot->out, "L%.1f %.1f", at_x, at_y);
    }
    path->is_down = true;
}

void path_end(struct path *path)
{
    end_piece(path);
    text_append(path->plot->out, "\"/></svg>\n");
}

void plot_level(const struct plot *plot, double y, const char *class)
{
    if (!isfinite(y) || y < plot->y.low || y > plot->y.high)
        return;
    double at = plot_y(plot, y);
    text_printf(plot->out, "<line class=\"%s\" x1=\"0\" x2=\"100%%\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
                class, at, at);
}

void plot_dot(const struct plot *plot, double x, double y, const char *class, const char *title)
{
    if (!isfinite(x) || !isfinite(y))
        return;
    text_printf(plot->out,
                "<circle class=\"%s\" cx=\"%.3f%%\" cy=\"%.1f\" r=\"3.5\"><title>%s</title>"
                "</circle>\n",
                class, plot_x(plot, x), fmin(fmax(plot_y(plot, y), 0), plot->height_px), title);
}
