#include "base/units.h"
#include "traces/curve.h"
#include "traces/page_parts.h"
#include "traces/svg.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHART_PX = 190, BAR_PX = 20 };

static const char *const term_classes[MEMORY_TERM_COUNT] = {
    [MEMORY_PARAMETERS] = "m0",  [MEMORY_GRADIENTS] = "m1", [MEMORY_OPTIMIZER] = "m2",
    [MEMORY_ACTIVATIONS] = "m3", [MEMORY_SCRATCH] = "m4",   [MEMORY_PROCESS] = "m5",
};

/* A cap is drawn only where it does not squeeze everything else. */
static bool cap_fits(const struct page *page, double largest)
{
    double cap = (double)page->record->plan.memory_cap_bytes;
    return cap > 0 && cap <= 2 * largest;
}

static void append_cap_key(const struct page *page, double largest)
{
    char bytes[UNIT_TEXT_BYTES], words[96];
    if (page->record->plan.memory_cap_bytes == 0)
        return;
    bool fits = cap_fits(page, largest);
    (void)snprintf(words, sizeof(words), "cap %s%s",
                   format_bytes((double)page->record->plan.memory_cap_bytes, bytes),
                   fits ? "" : ", beyond the chart");
    page_key(page, "bad dash", words);
}

/* ---- the terms, stacked ---- */

static double stacked_bytes(const struct page *page)
{
    double predicted = 0, measured = 0;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        const struct comparison *bytes = &page->comparison->memory_term_bytes[term];
        predicted += page_largest(0, bytes->predicted);
        measured += page_largest(0, bytes->measured);
    }
    return page_largest(fmax(predicted, measured), page->comparison->peak_bytes.measured);
}

static void draw_stack(const struct plot *plot, const struct page *page, bool is_measured, int y_px)
{
    double begin = 0;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        const struct comparison *bytes = &page->comparison->memory_term_bytes[term];
        struct quantity quantity = is_measured ? bytes->measured : bytes->predicted;
        char value[FIGURE_TEXT_BYTES];
        if (quantity.provenance == PROVENANCE_ABSENT)
            continue;
        text_printf(page->out,
                    "<rect class=\"%s\" x=\"%.3f%%\" y=\"%d\" width=\"%.3f%%\" height=\"%d\">"
                    "<title>%s %s, %s</title></rect>\n",
                    term_classes[term], plot_x(plot, begin), y_px,
                    plot_x(plot, begin + quantity.value) - plot_x(plot, begin), BAR_PX,
                    is_measured ? "measured" : "predicted",
                    memory_term_name((enum memory_term)term),
                    figure_value(FIGURE_BYTES, quantity, value));
        begin += quantity.value;
    }
    text_printf(page->out, "<text x=\"-8\" y=\"%d\" text-anchor=\"end\">%s</text>\n",
                y_px + BAR_PX / 2 + 4, is_measured ? "meas." : "pred.");
}

static void append_stacks(const struct page *page)
{
    double largest = stacked_bytes(page);
    double cap = (double)page->record->plan.memory_cap_bytes;
    double end = cap_fits(page, largest) ? fmax(largest, cap) : largest;
    struct plot plot = {
        .out = page->out,
        .height_px = 2 * BAR_PX + 14,
        .x = axis_fit(0, end * 1.02, AXIS_BYTES, "memory of the fullest rank"),
    };
    text_append(page->out, "<div class=\"keys\">");
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        page_key(page, term_classes[term], memory_term_name((enum memory_term)term));
    append_cap_key(page, largest);
    text_append(page->out, "</div>\n");
    plot_begin(&plot, "Memory by term, predicted above measured");
    draw_stack(&plot, page, false, 2);
    draw_stack(&plot, page, true, 8 + BAR_PX);
    if (cap_fits(page, largest))
        text_printf(page->out,
                    "<line class=\"level bad\" x1=\"%.3f%%\" x2=\"%.3f%%\" y1=\"0\" y2=\"%d\"/>\n",
                    plot_x(&plot, cap), plot_x(&plot, cap), plot.height_px);
    plot_end(&plot);
}

static void append_terms(const struct page *page)
{
    const struct run_comparison *comparison = page->comparison;
    text_append(page->out, "<div class=\"scroll\"><table><thead><tr><th>memory</th>"
                           "<th>predicted</th><th>measured</th><th>error</th></tr></thead>"
                           "<tbody>\n");
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        text_printf(page->out, "<tr><td><span class=\"key %s\">%s</span></td>", term_classes[term],
                    memory_term_name((enum memory_term)term));
        page_comparison_cells(page, FIGURE_BYTES, &comparison->memory_term_bytes[term]);
        text_append(page->out, "</tr>\n");
    }
    text_append(page->out, "<tr class=\"sum\"><td>peak</td>");
    page_comparison_cells(page, FIGURE_BYTES, &comparison->peak_bytes);
    text_append(page->out, "</tr>\n</tbody></table></div>\n");
}

/* ---- within the step ---- */

/* The events of one rank and step that change what is alive. */
struct live_series {
    const struct event **events; /* owned */
    size_t count;
    int64_t begin_ns;
};

static bool changes_live(const struct event *event, const struct shown_step *step)
{
    return event->step == step->step && event->stream == STREAM_COMPUTE &&
           (event->phase == PHASE_FORWARD || event->phase == PHASE_BACKWARD);
}

/* The rank that held the most. */
static int32_t fullest_rank(const struct run_record *record, const struct shown_step *step)
{
    uint64_t most = 0;
    int32_t rank = 0;
    for (size_t i = 0; i < record->event_count; i++) {
        const struct event *event = &record->events[i];
        if (changes_live(event, step) && event->live_bytes > most) {
            most = event->live_bytes;
            rank = event->rank;
        }
    }
    return rank;
}

static enum status live_series_fill(struct live_series *series, const struct run_record *record,
                                    const struct shown_step *step, int32_t rank, struct error *err)
{
    *series = (struct live_series){.begin_ns = step->begin_ns};
    series->events = calloc(step->event_count + 1, sizeof(series->events[0]));
    if (!series->events)
        return error_memory(err, step->event_count * sizeof(series->events[0]), "a memory curve");
    for (size_t i = 0; i < record->event_count; i++) {
        const struct event *event = &record->events[i];
        if (event->rank == rank && changes_live(event, step))
            series->events[series->count++] = event;
    }
    return STATUS_OK;
}

static struct point live_point(const void *data, size_t index)
{
    const struct live_series *series = data;
    const struct event *event = series->events[index];
    return (struct point){(double)(event->end_ns - series->begin_ns) * 1e-9,
                          (double)event->live_bytes};
}

static void draw_live(const struct page *page, const struct curve *curve,
                      const struct shown_step *step)
{
    struct quantity predicted = page->comparison->memory_term_bytes[MEMORY_ACTIVATIONS].predicted;
    char words[96], value[FIGURE_TEXT_BYTES];
    double largest = page_largest(curve->maximum, predicted);
    struct plot plot = {
        .out = page->out,
        .height_px = CHART_PX,
        .x = axis_fit(0, (double)(step->end_ns - step->begin_ns) * 1e-9, AXIS_SECONDS,
                      "time since the step began"),
        .y = axis_fit(0, 1.06 * largest, AXIS_BYTES, "live activations"),
    };
    struct path path;
    text_append(page->out, "<div class=\"keys\">");
    struct quantity most = {curve->maximum, 0, PROVENANCE_MEASURED};
    (void)snprintf(words, sizeof(words), "alive, at most %s",
                   figure_value(FIGURE_BYTES, most, value));
    page_key(page, "warm line", words);
    (void)snprintf(words, sizeof(words), "predicted activations %s",
                   figure_value(FIGURE_BYTES, predicted, value));
    page_key(page, "accent dash", words);
    text_append(page->out, "</div>\n");
    plot_begin(&plot, "Live activation bytes within one step");
    path_begin(&path, &plot, "warm area", true);
    path_point(&path, 0, 0);
    for (size_t i = 0; i < curve->count; i++)
        path_point(&path, curve->points[i].x, curve->points[i].y);
    path_end(&path);
    if (predicted.provenance != PROVENANCE_ABSENT)
        plot_level(&plot, predicted.value, "level accent");
    plot_end(&plot);
}

static enum status append_live(const struct page *page, struct error *err)
{
    struct shown_step step;
    struct live_series series;
    struct curve curve;
    text_append(page->out, "<h3>Within the step of the timeline</h3>\n");
    if (!page_shown_step(page, &step)) {
        text_append(page->out, "<p>No events were recorded in this run.</p>\n");
        return STATUS_OK;
    }
    int32_t rank = fullest_rank(page->record, &step);
    TRY(live_series_fill(&series, page->record, &step, rank, err));
    enum status status = curve_reduce(&curve, live_point, &series, series.count, err);
    if (status == STATUS_OK) {
        draw_live(page, &curve, &step);
        curve_free(&curve);
    }
    free(series.events);
    return status;
}

/* ---- over the steps ---- */

static struct point resident_point(const void *series, size_t index)
{
    const struct run_step *step = &((const struct run_step *)series)[index];
    bool is_known = step->resident_bytes > 0;
    return (struct point){(double)step->step, is_known ? (double)step->resident_bytes : NAN};
}

static void draw_resident(const struct page *page, const struct curve *curve)
{
    const struct run_record *record = page->record;
    struct quantity predicted = page->comparison->peak_bytes.predicted;
    double largest = page_largest(curve->maximum, predicted);
    double cap = (double)record->plan.memory_cap_bytes;
    double end = cap_fits(page, largest) ? fmax(cap, largest) : largest;
    char words[96], value[FIGURE_TEXT_BYTES];
    struct plot plot = {
        .out = page->out,
        .height_px = CHART_PX,
        .x = axis_fit((double)record->steps[0].step,
                      (double)record->steps[record->step_count - 1].step, AXIS_STEPS, "step"),
        .y = axis_fit(0, 1.06 * end, AXIS_BYTES, "resident memory"),
    };
    struct path path;
    text_append(page->out, "<div class=\"keys\">");
    page_key(page, "optimizer line", "resident, fullest rank");
    (void)snprintf(words, sizeof(words), "predicted peak %s",
                   figure_value(FIGURE_BYTES, predicted, value));
    page_key(page, "accent dash", words);
    append_cap_key(page, largest);
    text_append(page->out, "</div>\n");
    plot_begin(&plot, "Resident memory over the steps");
    path_begin(&path, &plot, "optimizer", false);
    for (size_t i = 0; i < curve->count; i++)
        path_point(&path, curve->points[i].x, curve->points[i].y);
    path_end(&path);
    if (predicted.provenance != PROVENANCE_ABSENT)
        plot_level(&plot, predicted.value, "level accent");
    if (cap_fits(page, largest))
        plot_level(&plot, cap, "level bad");
    plot_end(&plot);
}

static enum status append_resident(const struct page *page, struct error *err)
{
    struct curve curve;
    text_append(page->out, "<h3>Over the run</h3>\n");
    TRY(curve_reduce(&curve, resident_point, page->record->steps, page->record->step_count, err));
    if (curve.has_values)
        draw_resident(page, &curve);
    else
        text_append(page->out, "<p>Resident memory by step is absent.</p>\n");
    curve_free(&curve);
    return STATUS_OK;
}

enum status page_memory(const struct page *page, struct error *err)
{
    page_section(page, "memory", "Memory",
                 "What the plan lays out is fixed before the first step; the process around it is "
                 "what else was resident at the peak.");
    append_stacks(page);
    append_terms(page);
    text_append(page->out, "<div class=\"two\" style=\"margin-top:18px\">\n<div>\n");
    TRY(append_live(page, err));
    text_append(page->out, "</div>\n<div>\n");
    TRY(append_resident(page, err));
    text_append(page->out, "</div>\n</div>\n");
    page_section_end(page);
    return STATUS_OK;
}
