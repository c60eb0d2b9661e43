#include "base/units.h"
#include "ir/mesh.h"
#include "traces/page_parts.h"
#include "traces/svg.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* More rows or pieces than this are not read by anyone and make the page heavy. */
enum { ROWS_MAX = 32, PIECES_ABOUT = 3000 };
enum {
    COMPUTE_ROW_PX = 30,
    COMM_ROW_PX = 14,
    ROW_GAP_PX = 3,
    RANK_GAP_PX = 12,
    STAGE_PX = 20,
    POSTED_PX = 3
};
/* A micro-batch's number is written where a pass is at least so wide for each of its digits. */
static const double DIGIT_PERCENT = 0.9;
/* Waiting that is narrower does not show within compute. */
static const double VEIL_PERCENT = 0.05;

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
    int stage_y_px[ROWS_MAX], stage_count; /* of the stages that are drawn */
    int ranks_left_out;
    int64_t resolution_ns; /* shorter neighbours of one phase are drawn as one piece */
    struct plot plot;
};

/* What of an event a rectangle shows: all of it, or of communication the part that compute hid or
 * the part after it that the rank waited for. */
enum part { PART_WHOLE, PART_HIDDEN, PART_EXPOSED };

/* Neighbouring events of one row and phase drawn as one. */
struct piece {
    const struct event *first;
    int64_t begin_ns, end_ns, busy_ns;
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

/* The rows of one rank, from *y_px on. */
static void lay_out_rank(struct timeline *timeline, int32_t rank, int *y_px)
{
    for (int stream = 0; stream < STREAM_COUNT; stream++) {
        if (!has_events(timeline, rank, stream))
            continue;
        int height_px = stream == STREAM_COMPUTE ? COMPUTE_ROW_PX : COMM_ROW_PX;
        timeline->rows[timeline->row_count++] =
            (struct row){rank, (enum event_stream)stream, *y_px, height_px};
        *y_px += height_px + ROW_GAP_PX;
    }
    *y_px += RANK_GAP_PX - ROW_GAP_PX;
}

/* Where not all ranks have room, each stage shows its first. */
static void lay_out_rows(struct timeline *timeline)
{
    const struct plan *plan = &timeline->page->record->plan;
    int y_px = 2, stage_ranks = mesh_stage_ranks(plan);
    int shown = ROWS_MAX / STREAM_COUNT / plan->pipeline;
    shown = shown < 1 ? 1 : shown > stage_ranks ? stage_ranks : shown;
    timeline->ranks_left_out = plan->ranks;
    for (int stage = 0; stage < plan->pipeline; stage++) {
        if (stage == ROWS_MAX || timeline->row_count + STREAM_COUNT > ROWS_MAX)
            break;
        timeline->stage_y_px[stage] = y_px;
        y_px += plan->pipeline > 1 ? STAGE_PX : 0;
        for (int place = 0; place < shown; place++) {
            lay_out_rank(timeline, mesh_rank_at(plan, stage, place), &y_px);
            timeline->ranks_left_out--;
        }
        timeline->stage_count++;
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

/* ---- pieces ---- */

/* Layers have no share in what the pipeline moves. */
static void append_single_title(const struct timeline *timeline, const struct event *event)
{
    const struct model *model = &timeline->page->record->plan.model;
    struct text *out = timeline->page->out;
    char label[FIGURE_TEXT_BYTES];
    if (event->layer >= 0 && times_is_of_layer((enum phase)event->phase))
        text_printf(out, "%s \xc2\xb7 ",
                    figure_layer(model_layer(model, (size_t)event->layer), label));
    text_printf(out, "%s \xc2\xb7 micro-batch %d", phase_looks[event->phase].label,
                (int)event->micro_batch);
}

static void append_piece_title(const struct timeline *timeline, const struct piece *piece,
                               enum part part)
{
    const struct event *event = piece->first;
    struct text *out = timeline->page->out;
    char time[UNIT_TEXT_BYTES], bytes[UNIT_TEXT_BYTES];
    if (piece->count > 1)
        text_printf(out, "%zu \xc3\x97 %s", piece->count, phase_looks[event->phase].label);
    else
        append_single_title(timeline, event);
    text_printf(out, " \xc2\xb7 %s", format_seconds((double)piece->busy_ns * 1e-9, time));
    if (part != PART_WHOLE)
        text_append(out, part == PART_HIDDEN ? " hidden" : " waited");
    if (piece->count > 1)
        return;
    if (part == PART_WHOLE && event->waited_ns > 0)
        text_printf(out, ", of which %s waited",
                    format_seconds((double)event->waited_ns * 1e-9, time));
    if (part != PART_WHOLE)
        text_printf(out, " of %s in flight",
                    format_seconds((double)(event->end_ns - event->start_ns) * 1e-9, time));
    if (event->live_bytes > 0)
        text_printf(out, " \xc2\xb7 %s %s", format_bytes((double)event->live_bytes, bytes),
                    event->stream == STREAM_COMM ? "moved" : "live");
}

static double x_of(const struct timeline *timeline, int64_t ns)
{
    return plot_x(&timeline->plot, (double)(ns - timeline->step.begin_ns) * 1e-9);
}

static bool is_pass(const struct event *event)
{
    return event->stream == STREAM_COMPUTE &&
           (event->phase == PHASE_FORWARD || event->phase == PHASE_BACKWARD);
}

/* Over the compute of the same rank, which stands still meanwhile. */
static void append_veil(const struct timeline *timeline, const struct row *row,
                        const struct piece *piece)
{
    double x = x_of(timeline, piece->begin_ns), end = x_of(timeline, piece->end_ns);
    if (end - x >= VEIL_PERCENT)
        text_printf(timeline->page->out,
                    "<rect class=\"veil\" x=\"%.3f%%\" y=\"%d\" width=\"%.3f%%\" height=\"%d\"/>\n",
                    x, row->y_px - ROW_GAP_PX - COMPUTE_ROW_PX, end - x, COMPUTE_ROW_PX);
}

static void append_piece(const struct timeline *timeline, const struct row *row,
                         const struct piece *piece, enum part part)
{
    if (piece->count == 0)
        return;
    double x = x_of(timeline, piece->begin_ns);
    int y_px = row->y_px, height_px = row->height_px;
    /* Receives are posted early: a line below what flies meanwhile. */
    if (part == PART_HIDDEN && piece->first->phase == PHASE_PIPELINE) {
        y_px += height_px - POSTED_PX;
        height_px = POSTED_PX;
    }
    const char *shade = "";
    if (part == PART_HIDDEN)
        shade = " bare hidden";
    else if (part == PART_EXPOSED)
        shade = " bare";
    else if (is_pass(piece->first) && piece->first->micro_batch % 2 == 1)
        shade = " odd";
    text_printf(timeline->page->out,
                "<rect class=\"%s%s\" x=\"%.3f%%\" y=\"%d\" width=\"%.3f%%\" height=\"%d\"><title>",
                phase_looks[piece->first->phase].class, shade, x, y_px,
                fmax(x_of(timeline, piece->end_ns) - x, 0.02), height_px);
    append_piece_title(timeline, piece, part);
    text_append(timeline->page->out, "</title></rect>\n");
    if (part == PART_EXPOSED && piece->first->phase != PHASE_PIPELINE)
        append_veil(timeline, row, piece);
}

/* The piece that shows this part of one event; of no count when there is nothing of it. */
static struct piece piece_of(const struct event *event, enum part part)
{
    int64_t wait_ns = event->end_ns - event->waited_ns;
    struct piece piece = {
        .first = event,
        .begin_ns = part == PART_EXPOSED ? wait_ns : event->start_ns,
        .end_ns = part == PART_HIDDEN ? wait_ns : event->end_ns,
    };
    piece.busy_ns = piece.end_ns - piece.begin_ns;
    piece.count = part == PART_WHOLE || piece.busy_ns > 0 ? 1 : 0;
    return piece;
}

static bool belongs(const struct timeline *timeline, const struct piece *piece,
                    const struct piece *next)
{
    return piece->count > 0 && next->first->phase == piece->first->phase &&
           next->begin_ns - piece->end_ns < timeline->resolution_ns &&
           next->busy_ns < timeline->resolution_ns;
}

static bool is_in_row(const struct timeline *timeline, const struct row *row,
                      const struct event *event)
{
    return event->step == timeline->step.step && event->rank == row->rank &&
           event->stream == row->stream;
}

static void draw_part(const struct timeline *timeline, const struct row *row, enum part part)
{
    const struct run_record *record = timeline->page->record;
    struct piece piece = {0};
    for (size_t i = 0; i < record->event_count; i++) {
        if (!is_in_row(timeline, row, &record->events[i]))
            continue;
        struct piece next = piece_of(&record->events[i], part);
        if (next.count == 0)
            continue;
        if (belongs(timeline, &piece, &next)) {
            piece.end_ns = next.end_ns > piece.end_ns ? next.end_ns : piece.end_ns;
            piece.busy_ns += next.busy_ns;
            piece.count++;
            continue;
        }
        append_piece(timeline, row, &piece, part);
        piece = next;
    }
    append_piece(timeline, row, &piece, part);
}

/* ---- micro-batches ---- */

static void append_number(const struct timeline *timeline, const struct row *row,
                          const struct piece *pass)
{
    if (pass->count == 0)
        return;
    double begin = x_of(timeline, pass->begin_ns), end = x_of(timeline, pass->end_ns);
    int digits = pass->first->micro_batch > 99 ? 3 : pass->first->micro_batch > 9 ? 2 : 1;
    if (end - begin < DIGIT_PERCENT * digits)
        return;
    text_printf(timeline->page->out,
                "<text class=\"batch\" x=\"%.3f%%\" y=\"%d\" text-anchor=\"middle\">%d</text>\n",
                (begin + end) / 2, row->y_px + row->height_px / 2 + 4,
                (int)pass->first->micro_batch);
}

/* On each pass, which is all that a rank does for one micro-batch in one direction on end. */
static void number_passes(const struct timeline *timeline, const struct row *row)
{
    const struct run_record *record = timeline->page->record;
    struct piece pass = {0};
    for (size_t i = 0; i < record->event_count; i++) {
        const struct event *event = &record->events[i];
        if (!is_in_row(timeline, row, event) || !is_pass(event))
            continue;
        if (pass.count == 0 || event->phase != pass.first->phase ||
            event->micro_batch != pass.first->micro_batch) {
            append_number(timeline, row, &pass);
            pass = piece_of(event, PART_WHOLE);
        }
        pass.end_ns = event->end_ns;
    }
    append_number(timeline, row, &pass);
}

static void draw_row(const struct timeline *timeline, const struct row *row)
{
    const char *words = row->stream == STREAM_COMPUTE ? "rank" : "comm";
    if (row->stream == STREAM_COMPUTE) {
        draw_part(timeline, row, PART_WHOLE);
    } else {
        draw_part(timeline, row, PART_HIDDEN);
        draw_part(timeline, row, PART_EXPOSED);
    }
    text_printf(timeline->page->out, "<text class=\"%s\" x=\"-8\" y=\"%d\" text-anchor=\"end\">%s",
                words, row->y_px + row->height_px / 2 + 4, words);
    if (row->stream == STREAM_COMPUTE)
        text_printf(timeline->page->out, " %d", (int)row->rank);
    text_append(timeline->page->out, "</text>\n");
}

/* "stage 1: mlp 1 - head" above its ranks; of several chunks each. */
static void name_stage(const struct timeline *timeline, int stage)
{
    const struct plan *plan = &timeline->page->record->plan;
    struct text *out = timeline->page->out;
    char label[FIGURE_TEXT_BYTES];
    text_printf(out, "<text class=\"stage\" x=\"0\" y=\"%d\">Stage %d:",
                timeline->stage_y_px[stage] + STAGE_PX - 7, stage);
    for (int chunk = 0; chunk < plan->virtual_stages; chunk++) {
        size_t first, end;
        mesh_chunk_layers(plan, stage, chunk, &first, &end);
        text_printf(out, "%s %s", chunk > 0 ? "," : "",
                    figure_layer(model_layer(&plan->model, first), label));
        if (end - first > 1)
            text_printf(out, " to %s", figure_layer(model_layer(&plan->model, end - 1), label));
    }
    text_append(out, "</text>\n");
}

/* ---- the section ---- */

/* Legend entries of the phases that are drawn, and of the shades of communication. */
static void append_keys(const struct timeline *timeline)
{
    const struct page *page = timeline->page;
    bool seen[PHASE_COUNT] = {false}, has_hidden = false;
    for (size_t i = 0; i < page->record->event_count; i++) {
        const struct event *event = &page->record->events[i];
        if (event->step != timeline->step.step)
            continue;
        seen[event->phase] = true;
        has_hidden = has_hidden || (event->stream == STREAM_COMM &&
                                    event->waited_ns < event->end_ns - event->start_ns);
    }
    text_append(page->out, "<div class=\"keys\">");
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        if (seen[phase])
            page_key(page, phase_looks[phase].class, phase_looks[phase].label);
    if (has_hidden) {
        page_key(page, "ink", "communication waited for");
        page_key(page, "ink soft", "hidden behind compute");
    }
    text_append(page->out, "</div>\n");
}

static void append_caption(const struct timeline *timeline)
{
    const struct page *page = timeline->page;
    char span[UNIT_TEXT_BYTES], step[UNIT_TEXT_BYTES], events[UNIT_TEXT_BYTES];
    double seconds = (double)(timeline->step.end_ns - timeline->step.begin_ns) * 1e-9;
    text_printf(page->out,
                "<p>Step %s, the recorded step whose time is nearest the median: %s events in "
                "%s. Point at a piece for its layer and time; a number is a micro-batch's, and "
                "every other one is paler.",
                format_grouped((uint64_t)timeline->step.step, step),
                format_grouped(timeline->step.event_count, events), format_seconds(seconds, span));
    if (timeline->resolution_ns > 0)
        text_printf(page->out, " Neighbours of one phase shorter than %s are drawn as one piece.",
                    format_seconds((double)timeline->resolution_ns * 1e-9, span));
    if (timeline->ranks_left_out > 0)
        text_printf(page->out, " %d more ranks are in the store but not drawn.",
                    timeline->ranks_left_out);
    text_append(page->out, "</p>\n");
    append_keys(timeline);
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
        for (int i = 0; i < timeline.stage_count && page->record->plan.pipeline > 1; i++)
            name_stage(&timeline, i);
        for (size_t i = 0; i < timeline.row_count; i++)
            draw_row(&timeline, &timeline.rows[i]);
        for (size_t i = 0; i < timeline.row_count; i++)
            number_passes(&timeline, &timeline.rows[i]);
        plot_end(&timeline.plot);
    }
    page_section_end(page);
    return text_check(page->out, err);
}
