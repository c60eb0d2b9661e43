#include "cli/cluster_front_draw.h"

#include "base/file.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/front_axes.h"
#include "cli/layout_rows.h"
#include "traces/scatter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LABEL_BYTES = 24, WORDS_BYTES = 320, NOTE_BYTES = 64, TITLE_BYTES = 64 };

struct drawing {
    const struct cluster_front *front;
    struct front_view view;
    struct scatter_point *points; /* [front->count], owned */
    char (*labels)[LABEL_BYTES];  /* likewise */
    char (*words)[WORDS_BYTES];   /* likewise */
    char notes[3][NOTE_BYTES];    /* of the least in y, x and shade */
    char x_title[TITLE_BYTES], y_title[TITLE_BYTES];
    struct scatter_dot *rest; /* [rest_count], owned */
    size_t rest_count;
};

static void free_drawing(struct drawing *drawing)
{
    free(drawing->points);
    free(drawing->labels);
    free(drawing->words);
    free(drawing->rest);
}

static const char *format_on(const struct front_axis_row *axis, double value,
                             const struct cluster *cluster, char out[UNIT_TEXT_BYTES])
{
    switch (axis->axis) {
    case FRONT_TIME:
        return format_seconds(value, out);
    case FRONT_MEMORY:
        return format_bytes(value, out);
    case FRONT_ENERGY:
        return format_joules(value, out);
    case FRONT_COST:
        (void)snprintf(out, UNIT_TEXT_BYTES, "%.3g %s", value, cluster->currency);
        return out;
    default:
        (void)snprintf(out, UNIT_TEXT_BYTES, value < 1e5 ? "%.3g g" : "%.3g kg",
                       value < 1e5 ? value : value / 1e3);
        return out;
    }
}

static void write_title(const struct front_axis_row *axis, const struct cluster *cluster,
                        char out[TITLE_BYTES])
{
    static const char *const titles[FRONT_AXIS_COUNT] = {"time of a step", "memory of a device",
                                                         "energy of a step, all devices",
                                                         "price of a step", "CO2e of a step"};
    const char *title = titles[axis - front_axis_rows];
    if (axis->axis == FRONT_COST)
        (void)snprintf(out, TITLE_BYTES, "%s (%s)", title, cluster->currency);
    else
        (void)snprintf(out, TITLE_BYTES, "%s", title);
}

/* What else fits, of the uniform ones. */
static enum status add_rest(const struct layout_list *list, struct drawing *out, struct error *err)
{
    if (list->count == 0)
        return STATUS_OK;
    out->rest = malloc(list->count * sizeof(*out->rest));
    if (!out->rest)
        return error_memory(err, list->count * sizeof(*out->rest), "the drawing of the front");
    out->rest_count = list->count;
    for (size_t i = 0; i < list->count; i++)
        out->rest[i] = (struct scatter_dot){priced_layout_value(&list->rows[i], out->view.x->axis),
                                            priced_layout_value(&list->rows[i], out->view.y->axis)};
    return STATUS_OK;
}

/* Of an axis: as far as the front, and some way on for what lies behind it. */
static struct axis fit_axis(const struct cluster_front *front, const struct front_axis_row *row,
                            const char *title)
{
    const double beyond = 0.3; /* of its length */
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < front->count; i++) {
        low = fmin(low, priced_layout_value(&front->rows[i].priced, row->axis));
        high = fmax(high, priced_layout_value(&front->rows[i].priced, row->axis));
    }
    return axis_around(low, high + beyond * (high > low ? high - low : high), row->unit, title);
}

static size_t least_on(const struct cluster_front *front, const struct front_axis_row *row)
{
    size_t least = 0;
    for (size_t i = 1; i < front->count; i++)
        if (priced_layout_value(&front->rows[i].priced, row->axis) <
            priced_layout_value(&front->rows[least].priced, row->axis))
            least = i;
    return least;
}

static const char *const superlatives[FRONT_AXIS_COUNT] = {"fastest", "leanest", "least energy",
                                                           "cheapest", "least carbon"};

static void note_extremes(const struct cluster *cluster, struct drawing *drawing)
{
    const struct front_axis_row *axes[] = {drawing->view.y, drawing->view.x, drawing->view.shade};
    for (size_t i = 0; i < COUNT_OF(axes); i++) {
        if (axes[i] == NULL)
            continue;
        char value[UNIT_TEXT_BYTES];
        size_t at = least_on(drawing->front, axes[i]);
        if (drawing->points[at].note != NULL)
            continue;
        (void)snprintf(
            drawing->notes[i], NOTE_BYTES, "%s: %s", superlatives[axes[i] - front_axis_rows],
            format_on(axes[i], priced_layout_value(&drawing->front->rows[at].priced, axes[i]->axis),
                      cluster, value));
        drawing->points[at].note = drawing->notes[i];
    }
}

static void describe(const struct priced_layout *row, size_t number, const struct cluster *cluster,
                     char out[WORDS_BYTES])
{
    struct text words = {0};
    char value[UNIT_TEXT_BYTES];
    text_printf(&words, "%zu: ", number);
    for (size_t i = 0; i < FRONT_AXIS_COUNT; i++) {
        double figure = priced_layout_value(row, front_axis_rows[i].axis);
        if (!isnan(figure))
            text_printf(&words, "%s%s", i > 0 ? ", " : "",
                        format_on(&front_axis_rows[i], figure, cluster, value));
    }
    text_append(&words, "; ");
    layout_words(&row->layout, &words);
    (void)snprintf(out, WORDS_BYTES, "%s", words.data != NULL ? words.data : "");
    text_free(&words);
}

static int compare_points(const void *a, const void *b)
{
    const struct scatter_point *p = a, *q = b;
    return (p->x > q->x) - (p->x < q->x);
}

static enum status make_points(const struct cluster *cluster, struct drawing *out,
                               struct error *err)
{
    const struct cluster_front *front = out->front;
    const struct front_view *view = &out->view;
    out->points = calloc(front->count, sizeof(*out->points));
    out->labels = calloc(front->count, sizeof(*out->labels));
    out->words = calloc(front->count, sizeof(*out->words));
    if (!out->points || !out->labels || !out->words)
        return error_memory(err, front->count * sizeof(*out->words), "the drawing of the front");
    double least = INFINITY, most = -INFINITY;
    for (size_t i = 0; view->shade && i < front->count; i++) {
        least = fmin(least, priced_layout_value(&front->rows[i].priced, view->shade->axis));
        most = fmax(most, priced_layout_value(&front->rows[i].priced, view->shade->axis));
    }
    for (size_t i = 0; i < front->count; i++) {
        const struct priced_layout *row = &front->rows[i].priced;
        (void)snprintf(out->labels[i], LABEL_BYTES, "%zu", i + 1);
        describe(row, i + 1, cluster, out->words[i]);
        out->points[i] = (struct scatter_point){
            .x = priced_layout_value(row, view->x->axis),
            .y = priced_layout_value(row, view->y->axis),
            .shade = view->shade == NULL ? NAN
                     : most > least
                         ? (priced_layout_value(row, view->shade->axis) - least) / (most - least)
                         : 0,
            .is_hollow = row->layout.own == NULL,
            .label = out->labels[i],
            .words = out->words[i],
        };
    }
    note_extremes(cluster, out);
    qsort(out->points, front->count, sizeof(*out->points), compare_points);
    return STATUS_OK;
}

static enum status draw(const struct cluster_plan_options *options, const struct cluster *cluster,
                        struct drawing *drawing, struct error *err)
{
    const struct front_axis_row *shade = drawing->view.shade;
    char words[64], title[96], note[256], low[48], high[48];
    struct text out = {0};
    TRY(add_rest(&drawing->front->uniform, drawing, err));
    TRY(make_points(cluster, drawing, err));
    front_axes_words(options->axes, words, sizeof(words));
    (void)snprintf(title, sizeof(title), "Pareto front of %s", words);
    (void)snprintf(note, sizeof(note),
                   "%s on %s, %s, %s, global batch %lld; %zu uniform layouts fit, those not on the "
                   "front grey; modelled%s",
                   options->model->name, cluster->name, options->framework, options->arithmetic,
                   (long long)options->global_batch, drawing->rest_count,
                   drawing->front->is_whole ? "" : "; the search was stopped");
    write_title(drawing->view.x, cluster, drawing->x_title);
    write_title(drawing->view.y, cluster, drawing->y_title);
    if (shade != NULL) {
        (void)snprintf(low, sizeof(low), "least %s", shade->name);
        (void)snprintf(high, sizeof(high), "most %s", shade->name);
    }
    const struct scatter scatter = {
        .title = title,
        .note = note,
        .x = fit_axis(drawing->front, drawing->view.x, drawing->x_title),
        .y = fit_axis(drawing->front, drawing->view.y, drawing->y_title),
        .points = drawing->points,
        .count = drawing->front->count,
        .rest = drawing->rest,
        .rest_count = drawing->rest_count,
        .has_stairs = shade == NULL,
        .filled = "blocks differ",
        .hollow = "uniform",
        .shade_low = shade != NULL ? low : NULL,
        .shade_high = shade != NULL ? high : NULL,
    };
    enum status status = scatter_append(&scatter, &out, err);
    if (status != STATUS_OK) {
        text_free(&out);
        return status;
    }
    status = text_check(&out, err);
    if (status == STATUS_OK)
        status = file_write(options->svg, out.data, out.bytes, err);
    text_free(&out);
    return status;
}

enum status cluster_front_draw(const struct cluster_plan_options *options,
                               const struct cluster *cluster, const struct cluster_front *front,
                               struct error *err)
{
    struct drawing drawing = {.front = front, .view = front_view_of(options->axes)};
    enum status status = draw(options, cluster, &drawing, err);
    free_drawing(&drawing);
    return status;
}
