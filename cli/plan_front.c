#include "cli/plan_front.h"
#include "base/file.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/front_axes.h"
#include "cli/plan_tell.h"
#include "costmodel/predict.h"
#include "planner/front.h"
#include "traces/scatter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double value_on(const struct front_point *point, enum front_axis axis)
{
    return axis == FRONT_TIME     ? point->time_s
           : axis == FRONT_MEMORY ? point->memory_bytes
                                  : point->energy_j;
}

/* ---- table ---- */

static void append_row(const struct front_point *point, size_t number, struct text *out)
{
    char time[UNIT_TEXT_BYTES], memory[UNIT_TEXT_BYTES], energy[UNIT_TEXT_BYTES];
    text_printf(out, "  %5zu  %10s  %12s  %10s  %6.3g  ", number,
                format_seconds(point->time_s, time), format_bytes(point->memory_bytes, memory),
                plan_energy_cell(point->energy_j, energy), 100 * point->plan.objective.gap);
    plan_shape_cells(&point->plan, out);
    text_append(out, "\n");
}

/* What the reader may take for proven. */
static void append_claims(const struct front *front, struct text *out)
{
    char step[UNIT_TEXT_BYTES];
    bool has_gap = false;
    for (size_t i = 0; i < front->count; i++)
        has_gap |= front->points[i].plan.objective.gap > 0;
    if (has_gap)
        text_append(out, "gap: no plan of at most this memory (and energy) is better by more than "
                         "this share of what the point's search minimised\n");
    if (front->is_hull)
        text_append(out, "time against energy, with more than one stage: only the convex hull is "
                         "sure; between two neighbours there may be another plan, but none below "
                         "the line between them\n");
    if (front->is_stopped)
        text_append(out, "stopped: the rest of the front was not searched\n");
    else if (front->is_thinned && front->step_bytes > 0)
        text_printf(out, "thinned: points of memory at least %s apart; --points 0 finds all\n",
                    format_bytes(front->step_bytes, step));
    else if (front->is_thinned)
        text_append(out, "thinned: near points are left out; --points 0 finds all\n");
    else if (!front->is_hull && !has_gap)
        text_append(out, "complete: every plan that no other plan is better than in all of them\n");
}

static void append_table(const struct front *front, unsigned axes, double risk, struct text *out)
{
    char words[64], seconds[UNIT_TEXT_BYTES], memory[PERCENTILE_BYTES];
    front_axes_words(axes, words, sizeof(words));
    text_printf(out, "front of %s: %zu plan%s, none dominated by another\n\n", words, front->count,
                front->count == 1 ? "" : "s");
    text_printf(out, "  point        time  %12s      energy  gap %%   %s\n",
                plan_percentile_head(risk, memory), plan_shape_head);
    for (size_t i = 0; i < front->count; i++)
        append_row(&front->points[i], i + 1, out);
    text_printf(out,
                "\nmemory: of the fullest rank, in all but %g %% of runs, as --memory-cap holds "
                "it\n",
                100 * risk);
    append_claims(front, out);
    text_printf(out, "%zu searches, %s\n", front->searches,
                format_seconds(front->seconds, seconds));
}

/* ---- files ---- */

static void append_number(double value, struct text *out)
{
    if (isfinite(value))
        text_printf(out, "%.17g", value);
}

static enum status write_text(const char *path, struct text *text, struct error *err)
{
    enum status status = text_check(text, err);
    if (status == STATUS_OK)
        status = file_write(path, text->data, text->bytes, err);
    text_free(text);
    return status;
}

static enum status write_csv(const struct front *front, const char *path, struct error *err)
{
    struct text out = {0};
    text_append(&out, "point,time_s,memory_p95_bytes,memory_bytes,energy_j,gap,ranks,data_parallel,"
                      "tensor_parallel,pipeline,schedule,virtual_stages,micro_batch,micro_batches,"
                      "threads,memory_held_bytes\n");
    for (size_t i = 0; i < front->count; i++) {
        const struct front_point *point = &front->points[i];
        const struct plan *plan = &point->plan;
        text_printf(&out, "%zu,%.17g,%.17g,%.17g,", i + 1, point->time_s,
                    memory_quantile_bytes(plan->prediction.memory_bytes),
                    plan->prediction.memory_bytes.value);
        append_number(point->energy_j, &out);
        text_printf(&out, ",%.17g,%d,%d,%d,%d,%s,%d,%lld,%lld,%d,%.17g\n", plan->objective.gap,
                    plan->ranks, plan->data_parallel, plan->tensor_parallel, plan->pipeline,
                    schedule_name(plan->schedule), plan->virtual_stages,
                    (long long)plan->micro_batch, (long long)plan->micro_batches, plan->threads,
                    point->memory_bytes);
    }
    return write_text(path, &out, err);
}

static const char *title_of(const struct front_axis_row *row)
{
    return row->axis == FRONT_TIME     ? "time of a step"
           : row->axis == FRONT_MEMORY ? "memory of a rank, as the cap is held"
                                       : "energy of a step, all ranks";
}

static struct axis fit_axis(const struct front *front, const struct front_axis_row *row)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < front->count; i++) {
        low = fmin(low, value_on(&front->points[i], row->axis));
        high = fmax(high, value_on(&front->points[i], row->axis));
    }
    return axis_around(low, high, row->unit, title_of(row));
}

enum { LABEL_BYTES = 24, WORDS_BYTES = 256, NOTE_BYTES = 64 };

struct drawing {
    struct scatter_point *points; /* [count], owned */
    char (*labels)[LABEL_BYTES];  /* [count], owned */
    char (*words)[WORDS_BYTES];   /* [count], owned */
    struct front_view view;
    char notes[2][NOTE_BYTES]; /* of the least in y and in x */
};

static void free_drawing(struct drawing *drawing)
{
    free(drawing->points);
    free(drawing->labels);
    free(drawing->words);
}

static int compare_drawn(const void *a, const void *b)
{
    const struct scatter_point *p = a, *q = b;
    return (p->x > q->x) - (p->x < q->x);
}

/* The ends of the front, in words. Points are still in the front's order. */
static void note_extremes(const struct front *front, struct drawing *drawing)
{
    const struct front_axis_row *axes[] = {drawing->view.y, drawing->view.x};
    for (size_t i = 0; i < COUNT_OF(axes); i++) {
        char value[UNIT_TEXT_BYTES];
        if (axes[i] == NULL)
            continue;
        enum front_axis axis = axes[i]->axis;
        size_t least = 0;
        for (size_t k = 1; k < front->count; k++)
            if (value_on(&front->points[k], axis) < value_on(&front->points[least], axis))
                least = k;
        if (drawing->points[least].note != NULL)
            continue;
        double figure = value_on(&front->points[least], axis);
        (void)snprintf(drawing->notes[i], NOTE_BYTES, "%s: %s",
                       axis == FRONT_TIME     ? "fastest"
                       : axis == FRONT_MEMORY ? "leanest"
                                              : "least energy",
                       axis == FRONT_TIME     ? format_seconds(figure, value)
                       : axis == FRONT_MEMORY ? format_bytes(figure, value)
                                              : format_joules(figure, value));
        drawing->points[least].note = drawing->notes[i];
    }
}

static enum status make_drawing(const struct front *front, unsigned axes, struct drawing *out,
                                struct error *err)
{
    size_t count = front->count;
    *out = (struct drawing){.points = calloc(count, sizeof(*out->points)),
                            .labels = calloc(count, sizeof(*out->labels)),
                            .words = calloc(count, sizeof(*out->words))};
    if (!out->points || !out->labels || !out->words)
        return error_memory(err, count * sizeof(*out->words), "the drawing of the front");
    out->view = front_view_of(axes);
    if (!out->view.x || !out->view.y)
        return error_set(err, STATUS_USAGE, "a front has two axes at least");
    const struct front_axis_row *shade = out->view.shade;
    struct axis shades = shade ? fit_axis(front, shade) : (struct axis){.high = 1};
    for (size_t i = 0; i < count; i++) {
        const struct front_point *point = &front->points[i];
        const struct plan *plan = &point->plan;
        char time[UNIT_TEXT_BYTES], memory[UNIT_TEXT_BYTES], energy[UNIT_TEXT_BYTES];
        (void)snprintf(out->labels[i], LABEL_BYTES, "%zu", i + 1);
        (void)snprintf(out->words[i], WORDS_BYTES,
                       "point %zu: %s, %s a rank, energy %s; %d ranks = data %d x tensor %d x "
                       "pipeline %d, micro-batch %lld",
                       i + 1, format_seconds(point->time_s, time),
                       format_bytes(point->memory_bytes, memory),
                       plan_energy_cell(point->energy_j, energy), plan->ranks, plan->data_parallel,
                       plan->tensor_parallel, plan->pipeline, (long long)plan->micro_batch);
        out->points[i] = (struct scatter_point){
            .x = value_on(point, out->view.x->axis),
            .y = value_on(point, out->view.y->axis),
            .shade = shade
                         ? (value_on(point, shade->axis) - shades.low) / (shades.high - shades.low)
                         : NAN,
            .label = out->labels[i],
            .words = out->words[i],
        };
    }
    note_extremes(front, out);
    qsort(out->points, count, sizeof(*out->points), compare_drawn);
    return STATUS_OK;
}

static enum status write_svg(const struct front *front, unsigned axes, const char *path,
                             struct error *err)
{
    struct drawing drawing = {0};
    struct text out = {0};
    char words[64], title[96], note[256];
    const struct plan *plan = &front->points[0].plan;
    enum status status = make_drawing(front, axes, &drawing, err);
    if (status != STATUS_OK) {
        free_drawing(&drawing);
        return status;
    }
    front_axes_words(axes, words, sizeof(words));
    (void)snprintf(title, sizeof(title), "Pareto front of %s", words);
    (void)snprintf(note, sizeof(note), "%s, global batch %lld, host %s; %zu plans, predicted",
                   plan->model.name, (long long)plan->global_batch, plan->host, front->count);
    const struct scatter scatter = {
        .title = title,
        .note = note,
        .x = fit_axis(front, drawing.view.x),
        .y = fit_axis(front, drawing.view.y),
        .points = drawing.points,
        .count = front->count,
        .has_stairs = drawing.view.shade == NULL,
        .shade_low = drawing.view.shade ? "least energy" : NULL,
        .shade_high = drawing.view.shade ? "most energy" : NULL,
    };
    status = scatter_append(&scatter, &out, err);
    free_drawing(&drawing);
    if (status == STATUS_OK)
        return write_text(path, &out, err);
    text_free(&out);
    return status;
}

static enum status write_plans(const struct front *front, const char *path, struct error *err)
{
    char numbered[NUMBERED_PATH_BYTES];
    for (size_t i = 0; i < front->count; i++) {
        TRY(plan_numbered_path(path, i + 1, numbered, err));
        TRY(plan_save(&front->points[i].plan, numbered, err));
    }
    return STATUS_OK;
}

static enum status write_files(const struct front *front, unsigned axes,
                               const struct plan_front_options *options, struct error *err)
{
    if (options->csv)
        TRY(write_csv(front, options->csv, err));
    if (options->svg)
        TRY(write_svg(front, axes, options->svg, err));
    return options->output ? write_plans(front, options->output, err) : STATUS_OK;
}

/* ---- all ---- */

static enum status tell_json(const struct front *front, unsigned axes, double risk,
                             struct error *err)
{
    struct jout *out = jout_new();
    enum status status = STATUS_OK;
    jout_begin_array(out, "axes");
    for (size_t i = 0; i < FRONT_AXIS_COUNT; i++) {
        if (axes & front_axis_rows[i].axis)
            jout_string(out, NULL, front_axis_rows[i].name);
    }
    jout_end(out);
    jout_real(out, "risk", risk);
    jout_bool(out, "hull_only", front->is_hull);
    jout_bool(out, "thinned", front->is_thinned);
    jout_bool(out, "stopped", front->is_stopped);
    jout_real(out, "step_bytes", front->step_bytes);
    jout_int(out, "searches", (int64_t)front->searches);
    jout_real(out, "seconds", front->seconds);
    jout_begin_array(out, "points");
    for (size_t i = 0; status == STATUS_OK && i < front->count; i++) {
        jout_begin_object(out, NULL);
        jout_real(out, "memory_p95_bytes",
                  memory_quantile_bytes(front->points[i].plan.prediction.memory_bytes));
        jout_real(out, "memory_held_bytes", front->points[i].memory_bytes);
        status = plan_tell_json(&front->points[i].plan, out, err);
        jout_end(out);
    }
    jout_end(out);
    return plan_tell_done(out, status, err);
}

static enum status tell_text(const struct front *front, unsigned axes, double risk,
                             struct error *err)
{
    struct text table = {0};
    append_table(front, axes, risk, &table);
    enum status status = text_check(&table, err);
    if (status == STATUS_OK)
        fputs(table.data, stdout);
    text_free(&table);
    return status;
}

enum status plan_front(const struct planner_request *request,
                       const struct plan_front_options *options, struct error *err)
{
    struct front_request asked = {.search = *request, .points_most = options->points_most};
    struct front front = {0};
    TRY(front_axes_parse(options->axes, FRONT_MEASURED, &asked.axes, err));
    enum status status = front_find(&asked, &front, err);
    console_progress_end();
    if (status == STATUS_INFEASIBLE)
        return plan_tell_infeasible(&front.infeasibility, options->json, err);
    TRY(status);
    status = write_files(&front, asked.axes, options, err);
    if (status == STATUS_OK)
        status = options->json ? tell_json(&front, asked.axes, request->risk, err)
                               : tell_text(&front, asked.axes, request->risk, err);
    front_clear(&front);
    return status;
}
