#include "base/units.h"
#include "traces/page_parts.h"
#include "traces/svg.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* More rows or pieces than this are not read by anyone and make the page heavy. */
enum { ROWS_MAX = 32, PIECES_ABOUT = 3000 };
enum { COMPUTE_ROW_PX = 30, COMM_ROW_PX = 14, ROW_GAP_PX = 3, RANK_GAP_PX = 12 };

struct row {
    int32_t rank;
    enum event_stream stream;
    int y_px, height_px;
};

struct timeline {
    const struct page *page;
    struct shown_step step;
    struct row rows[ROWS_MAX];
    size_t row_count;
    int ranks_left_out;
    int64_t resolution_ns; /* shorter neighbours of one phase are drawn as one piece */
    struct plot plot;
};

/* Neighbouring events of one row and phase drawn as one. */
struct piece {
    const struct event *first;
    int64_t end_ns, busy_ns;
    size_t count;
};

static double step_seconds(const struct run_record *record, int64_t step)
{
    for (size_t i = 0; i < record->step_count; i++)
        if (record->steps[i].step == step)
            return record->steps[i].seconds;
    return NAN;
}

bool page_shown_step(const struct page *page, struct shown_step *out)
{
    const struct run_record *record = page->record;
    double median_s = page->comparison->step_time_s.measured.value, nearest_s = INFINITY;
    if (record->event_count == 0)
        return false;
    int64_t last = record->events[0].step - 1;
    *out = (struct shown_step){
        .step = record->events[0].step, .begin_ns = INT64_MAX, .end_ns = INT64_MIN};
    for (size_t i = 0; i < record->event_count; i++) {
        int64_t step = record->events[i].step;
        if (step == last)
            continue;
        last = step;
        double apart_s = fabs(step_seconds(record, step) - median_s);
        if (apart_s < nearest_s) {
            nearest_s = apart_s;
            out->step = step;
        }
    }
    for (size_t i = 0; i < record->event_count; i++) {
        const struct event *event = &record->events[i];
        if (event->step != out->step)
            continue;
        out->begin_ns = event->start_ns < out->begin_ns ? event->start_ns : out->begin_ns;
        out->end_ns = event->end_ns > out->end_ns ? event->end_ns : out->end_ns;
        out->event_count++;
    }
    return true;
}

static bool has_events(const struct timeline *timeline, int32_t rank, int stream)
{
    const struct run_record *record = timeline->page->record;
    for (size_t i = 0; i < record->event_count; i++) {
        const struct event *event = &record->events[i];
        if (event->step == timeline->step.step && event->rank == rank && event->stream == stream)
            return true;
    }
    return false;
}

static void lay_out_rows(struct timeline *timeline)
{
    int y_px = 2;
    int32_t ranks = timeline->page->record->plan.ranks;
    for (int32_t rank = 0; rank < ranks; rank++) {
        if (timeline->row_count + STREAM_COUNT > ROWS_MAX) {
            timeline->ranks_left_out = ranks - rank;
            break;
        }
        for (int stream = 0; stream < STREAM_COUNT; stream++) {
            if (!has_events(timeline, rank, stream))
                continue;
            int height_px = stream == STREAM_COMPUTE ? COMPUTE_ROW_PX : COMM_ROW_PX;
            timeline->rows[timeline->row_count++] =
                (struct row){rank, (enum event_stream)stream, y_px, height_px};
            y_px += height_px + ROW_GAP_PX;
        }
        y_px += RANK_GAP_PX - ROW_GAP_PX;
    }
    int64_t span_ns = timeline->step.end_ns - timeline->step.begin_ns;
    timeline->resolution_ns = timeline->step.event_count <= PIECES_ABOUT
                                  ? 0
                                  : span_ns * (int64_t)timeline->row_count / PIECES_ABOUT;
    timeline->plot = (struct plot){
        .out = timeline->page->out,
        .height_px = y_px,
        .x = axis_fit(0, (double)span_ns * 1e-9, AXIS_SECONDS, "time since the step began"),
    };
}

static void append_piece_title(const struct timeline *timeline, const struct piece *piece)
{
    const struct event *event = piece->first;
    const struct model *model = &timeline->page->record->plan.model;
    struct text *out = timeline->page->out;
    char label[FIGURE_TEXT_BYTES], time[UNIT_TEXT_BYTES], bytes[UNIT_TEXT_BYTES];
    if (piece->count > 1) {
        text_printf(out, "%zu \xc3\x97 %s", piece->count, phase_looks[event->phase].label);
    } else {
        if (event->layer >= 0 && (size_t)event->layer < model_layer_count(model))
            text_printf(out, "%s \xc2\xb7 ",
                        figure_layer(model_layer(model, (size_t)event->layer), label));
        text_printf(out, "%s \xc2\xb7 micro-batch %d", phase_looks[event->phase].label,
                    (int)event->micro_batch);
    }
    text_printf(out, " \xc2\xb7 %s", format_seconds((double)piece->busy_ns * 1e-9, time));
    if (piece->count == 1 && event->live_bytes > 0)
        text_printf(out, " \xc2\xb7 %s %s", format_bytes((double)event->live_bytes, bytes),
                    event->stream == STREAM_COMM ? "moved" : "live");
}

static void append_piece(const struct timeline *timeline, const struct row *row,
                         const struct piece *piece)
{
    if (piece->count == 0)
        return;
    double begin_s = (double)(piece->first->start_ns - timeline->step.begin_ns) * 1e-9;
    double end_s = (double)(piece->end_ns - timeline->step.begin_ns) * 1e-9;
    double x = plot_x(&timeline->plot, begin_s);
    enum phase phase = (enum phase)piece->first->phase;
    bool is_of_batch = phase == PHASE_FORWARD || phase == PHASE_BACKWARD;
    text_printf(timeline->page->out,
                "<rect class=\"%s%s\" x=\"%.3f%%\" y=\"%d\" width=\"%.3f%%\" height=\"%d\"><title>",
                phase_looks[phase].class,
                is_of_batch && piece->first->micro_batch % 2 == 1 ? " odd" : "", x, row->y_px,
                fmax(plot_x(&timeline->plot, end_s) - x, 0.02), row->height_px);
    append_piece_title(timeline, piece);
    text_append(timeline->page->out, "</title></rect>\n");
}

static bool belongs(const struct timeline *timeline, const struct piece *piece,
                    const struct event *event)
{
    return piece->count > 0 && event->phase == piece->first->phase &&
           event->start_ns - piece->end_ns < timeline->resolution_ns &&
           event->end_ns - event->start_ns < timeline->resolution_ns;
}

static void draw_row(const struct timeline *timeline, const struct row *row)
{
    const struct run_record *record = timeline->page->record;
    struct piece piece = {0};
    for (size_t i = 0; i < record->event_count; i++) {
        const struct event *event = &record->events[i];
        if (event->step != timeline->step.step || event->rank != row->rank ||
            event->stream != row->stream)
            continue;
        if (!belongs(timeline, &piece, event)) {
            append_piece(timeline, row, &piece);
            piece = (struct piece){.first = event, .end_ns = event->end_ns};
        }
        piece.end_ns = event->end_ns > piece.end_ns ? event->end_ns : piece.end_ns;
        piece.busy_ns += event->end_ns - event->start_ns;
        piece.count++;
    }
    append_piece(timeline, row, &piece);
    const char *words = row->stream == STREAM_COMPUTE ? "rank" : "comm";
    text_printf(timeline->page->out, "<text class=\"%s\" x=\"-8\" y=\"%d\" text-anchor=\"end\">%s",
                words, row->y_px + row->height_px / 2 + 4, words);
    if (row->stream == STREAM_COMPUTE)
        text_printf(timeline->page->out, " %d", (int)row->rank);
    text_append(timeline->page->out, "</text>\n");
}

static void append_caption(const struct timeline *timeline)
{
    const struct page *page = timeline->page;
    char span[UNIT_TEXT_BYTES], step[UNIT_TEXT_BYTES], events[UNIT_TEXT_BYTES];
    double seconds = (double)(timeline->step.end_ns - timeline->step.begin_ns) * 1e-9;
    text_printf(page->out,
                "<p>Step %s, the recorded step whose time is nearest the median: %s events in "
                "%s. Point at a piece for its layer and time; every other micro-batch is paler.",
                format_grouped((uint64_t)timeline->step.step, step),
                format_grouped(timeline->step.event_count, events), format_seconds(seconds, span));
    if (timeline->resolution_ns > 0)
        text_printf(page->out, " Neighbours of one phase shorter than %s are drawn as one piece.",
                    format_seconds((double)timeline->resolution_ns * 1e-9, span));
    if (timeline->ranks_left_out > 0)
        text_printf(page->out, " %d more ranks are in the store but not drawn.",
                    timeline->ranks_left_out);
    text_append(page->out, "</p>\n<div class=\"keys\">");
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        page_key(page, phase_looks[phase].class, phase_looks[phase].label);
    text_append(page->out, "</div>\n");
}

enum status page_timeline(const struct page *page, struct error *err)
{
    struct timeline timeline = {.page = page};
    text_append(page->out,
                "<section id=\"timeline\" class=\"time\">\n<h2>Timeline of a step</h2>\n");
    if (!page_shown_step(page, &timeline.step)) {
        text_append(page->out, "<p>No events were recorded in this run.</p>\n");
    } else {
        lay_out_rows(&timeline);
        append_caption(&timeline);
        plot_begin(&timeline.plot, "Timeline of one step by rank and stream");
        for (size_t i = 0; i < timeline.row_count; i++)
            draw_row(&timeline, &timeline.rows[i]);
        plot_end(&timeline.plot);
    }
    page_section_end(page);
    return text_check(page->out, err);
}
