#include "base/units.h"
#include "traces/curve.h"
#include "traces/page_parts.h"
#include "traces/svg.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { LOSS_PX = 280, SMALL_PX = 150, MARKS_MAX = 200, SMOOTH_SHARE = 50 };

static struct point loss_point(const void *series, size_t index)
{
    const struct run_step *step = &((const struct run_step *)series)[index];
    return (struct point){(double)step->step, step->loss};
}

static struct point rate_point(const void *series, size_t index)
{
    const struct run_step *step = &((const struct run_step *)series)[index];
    return (struct point){(double)step->step, step->learning_rate};
}

static struct point norm_point(const void *series, size_t index)
{
    const struct run_step *step = &((const struct run_step *)series)[index];
    return (struct point){(double)step->step, step->gradient_norm};
}

static struct point seconds_point(const void *series, size_t index)
{
    const struct run_step *step = &((const struct run_step *)series)[index];
    return (struct point){(double)step->step, step->seconds};
}

static struct point validation_point(const void *series, size_t index)
{
    const struct run_evaluation *evaluation = &((const struct run_evaluation *)series)[index];
    return (struct point){(double)evaluation->step, evaluation->loss};
}

static struct axis steps_axis(const struct run_record *record)
{
    double first = (double)record->steps[0].step;
    double last = (double)record->steps[record->step_count - 1].step;
    return axis_fit(first, last, AXIS_STEPS, "step");
}

static void draw_curve(const struct plot *plot, const struct curve *curve, const char *class)
{
    struct path path;
    path_begin(&path, plot, class, false);
    for (size_t i = 0; i < curve->count; i++)
        path_point(&path, curve->points[i].x, curve->points[i].y);
    path_end(&path);
}

/* ---- loss ---- */

struct loss_curves {
    struct curve each, smooth, validation;
};

static void loss_curves_free(struct loss_curves *curves)
{
    curve_free(&curves->each);
    curve_free(&curves->smooth);
    curve_free(&curves->validation);
}

static enum status loss_curves_fill(struct loss_curves *curves, const struct run_record *record,
                                    struct error *err)
{
    size_t count = record->step_count;
    TRY(curve_reduce(&curves->each, loss_point, record->steps, count, err));
    TRY(curve_smooth(&curves->smooth, loss_point, record->steps, count, count / SMOOTH_SHARE, err));
    return curve_reduce(&curves->validation, validation_point, record->evaluations,
                        record->evaluation_count, err);
}

static struct axis loss_axis(const struct loss_curves *curves)
{
    double low = INFINITY, high = -INFINITY;
    if (curves->each.has_values) {
        low = curves->each.minimum;
        high = curves->each.maximum;
    }
    if (curves->validation.has_values) {
        low = fmin(low, curves->validation.minimum);
        high = fmax(high, curves->validation.maximum);
    }
    double margin = 0.05 * (high - low);
    return axis_fit(low - margin, high + margin, AXIS_PLAIN, "loss (nats a token)");
}

static void draw_validation(const struct plot *plot, const struct curve *curve)
{
    draw_curve(plot, curve, "warm");
    for (size_t i = 0; i < curve->count && curve->count <= MARKS_MAX; i++) {
        char title[64];
        (void)snprintf(title, sizeof(title), "validation %.4f after %.0f steps", curve->points[i].y,
                       curve->points[i].x);
        plot_dot(plot, curve->points[i].x, curve->points[i].y, "warm", title);
    }
}

/* Steps whose update was skipped, as marks on the axis. */
static size_t draw_skipped(const struct plot *plot, const struct run_record *record)
{
    size_t drawn = 0;
    for (size_t i = 0; i < record->step_count && drawn < MARKS_MAX; i++) {
        const struct run_step *step = &record->steps[i];
        char title[64];
        if (!step->skipped)
            continue;
        (void)snprintf(title, sizeof(title), "step %" PRId64 " skipped: gradient not finite",
                       step->step);
        plot_dot(plot, (double)step->step, plot->y.low, "bad", title);
        drawn++;
    }
    return drawn;
}

static void draw_loss(const struct page *page, const struct loss_curves *curves)
{
    const struct run_record *record = page->record;
    struct plot plot = {
        .out = page->out,
        .height_px = LOSS_PX,
        .x = steps_axis(record),
        .y = loss_axis(curves),
    };
    text_append(page->out, "<div class=\"keys\">");
    page_key(page, "accent line soft", "training, each step");
    page_key(page, "accent line", "training, mean of neighbouring steps");
    page_key(page, "warm line", "validation");
    if (record->info.skipped_steps > 0)
        page_key(page, "bad dot", "skipped step");
    text_append(page->out, "</div>\n");
    plot_begin(&plot, "Training and validation loss over the steps");
    draw_curve(&plot, &curves->each, "accent thin");
    draw_curve(&plot, &curves->smooth, "accent");
    draw_validation(&plot, &curves->validation);
    (void)draw_skipped(&plot, record);
    plot_end(&plot);
}

static enum status append_loss(const struct page *page, struct error *err)
{
    struct loss_curves curves = {0};
    enum status status = loss_curves_fill(&curves, page->record, err);
    if (status == STATUS_OK && (curves.each.has_values || curves.validation.has_values))
        draw_loss(page, &curves);
    else if (status == STATUS_OK)
        text_append(page->out, "<p>No step had a finite loss.</p>\n");
    loss_curves_free(&curves);
    return status;
}

/* ---- what goes with it ---- */

struct small_chart {
    const char *title;
    const char *axis;
    enum axis_unit unit;
    const char *class;
    curve_source *source;
    double level; /* a prediction; NaN: none */
};

/* Rare spikes are cut: nineteen twentieths of the drawn points decide where the axis ends. */
static double upper_end(const struct curve *curve, double level)
{
    double low = isfinite(level) ? level : 0, high = curve->maximum;
    size_t allowed = curve->count / 20;
    for (int i = 0; i < 40; i++) {
        double middle = 0.5 * (low + high);
        size_t above = 0;
        for (size_t k = 0; k < curve->count; k++)
            above += curve->points[k].y > middle;
        if (above > allowed)
            low = middle;
        else
            high = middle;
    }
    return fmin(fmax(curve->maximum, isfinite(level) ? level : 0), 1.6 * high);
}

static enum status append_small(const struct page *page, const struct small_chart *chart,
                                struct error *err)
{
    struct curve curve;
    TRY(curve_reduce(&curve, chart->source, page->record->steps, page->record->step_count, err));
    text_printf(page->out, "<div>\n<h3>%s\n", chart->title);
    if (isfinite(chart->level)) {
        page_key(page, "forward line", "measured");
        page_key(page, "accent dash", "predicted");
    }
    text_append(page->out, "</h3>\n");
    if (curve.has_values) {
        struct plot plot = {
            .out = page->out,
            .height_px = SMALL_PX,
            .x = steps_axis(page->record),
            .y = axis_fit(0, 1.06 * upper_end(&curve, chart->level), chart->unit, chart->axis),
        };
        plot_begin(&plot, chart->title);
        draw_curve(&plot, &curve, chart->class);
        plot_level(&plot, chart->level, "level accent");
        plot_end(&plot);
    } else {
        text_append(page->out, "<p>absent</p>\n");
    }
    text_append(page->out, "</div>\n");
    curve_free(&curve);
    return STATUS_OK;
}

enum status page_training(const struct page *page, struct error *err)
{
    struct quantity predicted_s = page->comparison->step_time_s.predicted;
    bool has_level = predicted_s.provenance != PROVENANCE_ABSENT;
    const struct small_chart charts[] = {
        {"Step time", "time of a step", AXIS_SECONDS, "forward fine", seconds_point,
         has_level ? predicted_s.value : NAN},
        {"Learning rate", "learning rate", AXIS_PLAIN, "reduce", rate_point, NAN},
        {"Gradient norm", "gradient norm before clipping", AXIS_PLAIN, "optimizer fine", norm_point,
         NAN},
    };
    page_section(page, "training", "Training", "What the run learnt, step by step.");
    if (page->record->step_count == 0) {
        text_append(page->out, "<p>The run did no step.</p>\n");
        page_section_end(page);
        return STATUS_OK;
    }
    TRY(append_loss(page, err));
    text_append(page->out, "<div class=\"three\">\n");
    for (size_t i = 0; i < sizeof(charts) / sizeof(charts[0]); i++)
        TRY(append_small(page, &charts[i], err));
    text_append(page->out, "</div>\n");
    page_section_end(page);
    return STATUS_OK;
}
