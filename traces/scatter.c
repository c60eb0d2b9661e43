#include "traces/scatter.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    ".mark{font-size:11px;fill:var(--ink);paint-order:stroke;stroke:var(--bg);stroke-width:2.5px}"
    ".grid{stroke:var(--grid)}.base,.tick{stroke:var(--line)}"
    "path{fill:none;stroke:var(--accent);stroke-width:1.4;stroke-opacity:.55;"
    "vector-effect:non-scaling-stroke}"
    "circle{fill:var(--c,var(--accent));stroke:var(--bg);stroke-width:1}"
    ".ring{fill:var(--bg);stroke:var(--c,var(--accent));stroke-width:1.8}"
    ".rest{fill:none;stroke:var(--soft);stroke-width:3.2;stroke-opacity:.28;stroke-linecap:round}"
    ".note{font-size:11.5px;font-weight:600;fill:var(--ink);paint-order:stroke;stroke:var(--bg);"
    "stroke-width:3px;stroke-linejoin:round}"
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

/* Between it and the title of the y axis: "o uniform". */
static void append_kinds(const struct scatter *scatter, struct text *out)
{
    enum { BEGIN_PX = LEFT_PX + 184, WORDS_PX = 10, CHARACTER_PX = 7, BETWEEN_PX = 16 };
    const char *const kinds[] = {scatter->filled, scatter->hollow};
    int y = TOP_PX - 18, x = BEGIN_PX;
    if (!scatter->filled || !scatter->hollow)
        return;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        text_printf(out, "<circle class=\"%s\" cx=\"%d\" cy=\"%d\" r=\"4\"/>\n",
                    i == 0 ? "dot" : "ring", x, y - 4);
        text_printf(out, "<text x=\"%d\" y=\"%d\">", x + WORDS_PX, y);
        text_append_html(out, kinds[i]);
        text_append(out, "</text>\n");
        x += WORDS_PX + CHARACTER_PX * (int)strlen(kinds[i]) + BETWEEN_PX;
    }
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

/* Where text stands already, in pixels; what finds no free place is left out. */
struct box {
    double left, right, top, bottom;
};

struct labels {
    struct box boxes[2 * LABELS_MAX]; /* [count] */
    size_t count;
};

static bool overlaps(const struct box *a, const struct box *b)
{
    return a->left < b->right && b->left < a->right && a->top < b->bottom && b->top < a->bottom;
}

static bool take_place(struct labels *labels, const struct box *box)
{
    if (labels->count == sizeof(labels->boxes) / sizeof(*labels->boxes))
        return false;
    for (size_t i = 0; i < labels->count; i++)
        if (overlaps(&labels->boxes[i], box))
            return false;
    labels->boxes[labels->count++] = *box;
    return true;
}

/* Of text whose baseline begins here. */
static struct box text_box(double x, double baseline, size_t characters)
{
    const double character_px = 7, ascent_px = 10, descent_px = 3;
    return (struct box){x, x + character_px * (double)characters, baseline - ascent_px,
                        baseline + descent_px};
}

/* Beside the dot, on the side where there is room. */
static void append_note(const struct plot *plot, const struct scatter_point *point,
                        struct labels *labels)
{
    enum { AWAY_PX = 10, MARGIN_PX = 20, FAR_DOWN_PX = PLOT_HEIGHT_PX - 8 };
    double x = plot_x(plot, point->x), x_px = x * PLOT_WIDTH_PX / 100;
    double y = plot_y(plot, point->y), baseline = y > FAR_DOWN_PX ? y - 4 : y + 4;
    struct box box = text_box(x_px + AWAY_PX, baseline, strlen(point->note));
    bool is_right = box.right > PLOT_WIDTH_PX + MARGIN_PX;
    if (is_right) { /* above the points on its left */
        baseline -= 13;
        box = text_box(x_px - AWAY_PX - (box.right - box.left), baseline, strlen(point->note));
    }
    (void)take_place(labels, &box);
    text_printf(plot->out,
                "<text class=\"note\" x=\"%.3f%%\" y=\"%.1f\" dx=\"%d\" text-anchor=\"%s\">", x,
                baseline, is_right ? -AWAY_PX : AWAY_PX, is_right ? "end" : "start");
    text_append_html(plot->out, point->note);
    text_append(plot->out, "</text>\n");
}

/* Above the dot or below it. */
static void append_label(const struct plot *plot, const struct scatter_point *point,
                         struct labels *labels)
{
    static const double places_px[] = {-6, 15};
    double x = plot_x(plot, point->x), y = plot_y(plot, point->y);
    for (size_t i = 0; i < sizeof(places_px) / sizeof(*places_px); i++) {
        const struct box box =
            text_box(x * PLOT_WIDTH_PX / 100 + 7, y + places_px[i], strlen(point->label));
        if (!take_place(labels, &box))
            continue;
        text_printf(plot->out, "<text class=\"mark\" x=\"%.3f%%\" y=\"%.1f\" dx=\"7\">", x,
                    y + places_px[i]);
        text_append_html(plot->out, point->label);
        text_append(plot->out, "</text>\n");
        return;
    }
}

static void append_labels(const struct scatter *scatter, const struct plot *plot)
{
    struct labels labels = {.count = 0};
    for (size_t i = 0; i < scatter->count; i++)
        if (scatter->points[i].note != NULL)
            append_note(plot, &scatter->points[i], &labels);
    for (size_t i = 0; scatter->count <= LABELS_MAX && i < scatter->count; i++)
        if (scatter->points[i].note == NULL)
            append_label(plot, &scatter->points[i], &labels);
}

static void append_point(const struct plot *plot, const struct scatter_point *point)
{
    struct text *out = plot->out;
    double x = plot_x(plot, point->x), y = plot_y(plot, point->y);
    const char *kind = point->is_hollow ? "ring" : "dot";
    text_printf(out, "<circle class=\"%s", kind);
    if (isfinite(point->shade))
        text_printf(out, " s%d", shade_of(point->shade));
    text_printf(out, "\" cx=\"%.3f%%\" cy=\"%.1f\" r=\"%s\"><title>", x, y,
                point->is_hollow ? "4" : "4.5");
    text_append_html(out, point->words);
    text_append(out, "</title></circle>\n");
}

/* One path of many dots; one dot for each cell of a fine grid, however many points are in it. */
static enum status append_rest(const struct scatter *scatter, const struct plot *plot,
                               struct error *err)
{
    enum {
        CELL_PX = 3,
        COLUMNS = PLOT_WIDTH_PX / CELL_PX + 1,
        ROWS = PLOT_HEIGHT_PX / CELL_PX + 1
    };
    if (scatter->rest_count == 0)
        return STATUS_OK;
    bool *is_drawn = calloc((size_t)COLUMNS * ROWS, sizeof(*is_drawn));
    if (!is_drawn)
        return error_memory(err, (size_t)COLUMNS * ROWS * sizeof(*is_drawn), "a drawing");
    text_append(plot->out, "<path class=\"rest\" d=\"");
    for (size_t i = 0; i < scatter->rest_count; i++) {
        double x = plot_x(plot, scatter->rest[i].x) * PLOT_WIDTH_PX / 100;
        double y = plot_y(plot, scatter->rest[i].y);
        if (!(x >= 0 && x <= PLOT_WIDTH_PX && y >= 0 && y <= PLOT_HEIGHT_PX))
            continue;
        size_t cell = (size_t)(y / CELL_PX) * COLUMNS + (size_t)(x / CELL_PX);
        if (!is_drawn[cell])
            text_printf(plot->out, "M%.0f %.0fh0", x, y);
        is_drawn[cell] = true;
    }
    text_append(plot->out, "\"/>\n");
    free(is_drawn);
    return STATUS_OK;
}

enum status scatter_append(const struct scatter *scatter, struct text *out, struct error *err)
{
    const struct plot plot = {
        .out = out, .height_px = PLOT_HEIGHT_PX, .x = scatter->x, .y = scatter->y};
    append_head(scatter, out);
    append_legend(scatter, out);
    append_kinds(scatter, out);
    text_printf(out, "<svg x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" overflow=\"visible\">\n",
                LEFT_PX, TOP_PX, PLOT_WIDTH_PX, PLOT_HEIGHT_PX);
    plot_axes(&plot);
    TRY(append_rest(scatter, &plot, err));
    if (scatter->has_stairs)
        append_stairs(scatter, &plot);
    for (size_t i = 0; i < scatter->count; i++)
        append_point(&plot, &scatter->points[i]);
    append_labels(scatter, &plot);
    text_append(out, "</svg>\n</svg>\n");
    return STATUS_OK;
}
