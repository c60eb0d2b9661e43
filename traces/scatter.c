#include "traces/scatter.h"
#include <math.h>

enum {
    WIDTH_PX = 860,
    HEIGHT_PX = 520,
    LEFT_PX = 76,
    TOP_PX = 104,
    PLOT_WIDTH_PX = 740,
    PLOT_HEIGHT_PX = 350,
    LABELS_MAX = 60, /* more are not to be read */
    SHADES = 5,
};

/* The third quantity from its least to its most. */
static const char style[] =
    "<style>:root{--bg:#fff;--ink:#1d1e22;--soft:#62666e;--line:#e2e2dc;--grid:#ededea;"
    "--accent:#2b5fb8}"
    "@media(prefers-color-scheme:dark){:root{--bg:#1b1c20;--ink:#e8e8ea;--soft:#9a9fa8;"
    "--line:#303238;--grid:#292b30;--accent:#8bb4f7}}"
    "text{font:12px system-ui,-apple-system,\"Segoe UI\",Roboto,\"Helvetica Neue\",Arial,"
    "\"DejaVu Sans\",sans-serif;fill:var(--soft);font-variant-numeric:tabular-nums}"
    ".paper{fill:var(--bg)}.name{font-size:17px;font-weight:600;fill:var(--ink)}"
    ".mark{font-size:11px;fill:var(--ink)}"
    ".grid{stroke:var(--grid)}.base,.tick{stroke:var(--line)}"
    "path{fill:none;stroke:var(--accent);stroke-width:1.4;stroke-opacity:.55;"
    "vector-effect:non-scaling-stroke}"
    "circle{fill:var(--c,var(--accent));stroke:var(--bg);stroke-width:1}"
    ".s0{--c:#3f7fd0}.s1{--c:#2f9aa8}.s2{--c:#7d9a3c}.s3{--c:#d2902f}.s4{--c:#c9503c}</style>\n";

static int shade_of(double shade)
{
    int step = (int)floor(shade * SHADES);
    return step < 0 ? 0 : step >= SHADES ? SHADES - 1 : step;
}

static void append_head(const struct scatter *scatter, struct text *out)
{
    text_printf(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
                "height=\"%d\" role=\"img\" aria-label=\"",
                WIDTH_PX, HEIGHT_PX, WIDTH_PX, HEIGHT_PX);
    text_append_html(out, scatter->title);
    text_append(out, "\">\n");
    text_append(out, style);
    text_printf(out, "<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n", WIDTH_PX, HEIGHT_PX);
    text_append(out, "<text class=\"name\" x=\"24\" y=\"34\">");
    text_append_html(out, scatter->title);
    text_append(out, "</text>\n<text x=\"24\" y=\"54\">");
    text_append_html(out, scatter->note);
    text_append(out, "</text>\n");
}

/* Right of the note: "least energy ooooo most energy". */
static void append_legend(const struct scatter *scatter, struct text *out)
{
    enum { RIGHT_PX = LEFT_PX + PLOT_WIDTH_PX, STEP_PX = 13 };
    int y = TOP_PX - 18, x = RIGHT_PX - 150 - SHADES * STEP_PX;
    if (!scatter->shade_low || !scatter->shade_high)
        return;
    text_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">", x - 8, y);
    text_append_html(out, scatter->shade_low);
    text_append(out, "</text>\n");
    for (int i = 0; i < SHADES; i++)
        text_printf(out, "<circle class=\"s%d\" cx=\"%d\" cy=\"%d\" r=\"4\"/>\n", i,
                    x + 4 + i * STEP_PX, y - 4);
    text_printf(out, "<text x=\"%d\" y=\"%d\">", x + SHADES * STEP_PX + 6, y);
    text_append_html(out, scatter->shade_high);
    text_append(out, "</text>\n");
}

static void append_stairs(const struct scatter *scatter, const struct plot *plot)
{
    struct path path;
    path_begin(&path, plot, "stairs", false);
    for (size_t i = 0; i < scatter->count; i++) {
        const struct scatter_point *point = &scatter->points[i];
        if (i > 0)
            path_point(&path, point->x, scatter->points[i - 1].y);
        path_point(&path, point->x, point->y);
    }
    path_end(&path);
}

/* So near to the one before that their labels would lie over each other. */
static bool is_crowded(const struct scatter *scatter, const struct plot *plot, size_t index)
{
    enum { NEAR_PX = 16 };
    const struct scatter_point *point = &scatter->points[index];
    if (index == 0)
        return false;
    double x = plot_x(plot, point->x) - plot_x(plot, point[-1].x);
    double y = plot_y(plot, point->y) - plot_y(plot, point[-1].y);
    return fabs(x) * PLOT_WIDTH_PX / 100 < NEAR_PX && fabs(y) < NEAR_PX;
}

static void append_point(const struct scatter *scatter, const struct plot *plot, size_t index)
{
    const struct scatter_point *point = &scatter->points[index];
    struct text *out = plot->out;
    double x = plot_x(plot, point->x), y = plot_y(plot, point->y);
    char class[8] = "dot";
    if (isfinite(point->shade)) {
        class[0] = 's';
        class[1] = (char)('0' + shade_of(point->shade));
        class[2] = '\0';
    }
    text_printf(out, "<circle class=\"%s\" cx=\"%.3f%%\" cy=\"%.1f\" r=\"4.5\"><title>", class, x,
                y);
    text_append_html(out, point->words);
    text_append(out, "</title></circle>\n");
    if (scatter->count > LABELS_MAX)
        return;
    text_printf(out, "<text class=\"mark\" x=\"%.3f%%\" y=\"%.1f\" dx=\"7\">", x,
                is_crowded(scatter, plot, index) ? y + 15 : y - 6);
    text_append_html(out, point->label);
    text_append(out, "</text>\n");
}

void scatter_append(const struct scatter *scatter, struct text *out)
{
    const struct plot plot = {
        .out = out, .height_px = PLOT_HEIGHT_PX, .x = scatter->x, .y = scatter->y};
    append_head(scatter, out);
    append_legend(scatter, out);
    text_printf(out, "<svg x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" overflow=\"visible\">\n",
                LEFT_PX, TOP_PX, PLOT_WIDTH_PX, PLOT_HEIGHT_PX);
    plot_axes(&plot);
    if (scatter->has_stairs)
        append_stairs(scatter, &plot);
    for (size_t i = 0; i < scatter->count; i++)
        append_point(scatter, &plot, i);
    text_append(out, "</svg>\n</svg>\n");
}
