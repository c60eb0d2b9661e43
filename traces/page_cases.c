#include "traces/page_cases.h"

#include "base/units.h"
#include "traces/page_parts.h"
#include "traces/svg.h"
#include <math.h>
#include <stdio.h>

enum { SCATTER_PX = 440, FARTHEST = 15, REASONS_MAX = 64, TICKS_MAX = 64 };

static const double GIB = 1073741824.0;

/* The tables in the order given, by colour; more than these share them again. */
static const char *const colours[] = {"forward",   "backward", "pipeline", "reduce",
                                      "optimizer", "tensor",   "gather",   "other"};
static const char *colour_of(size_t table)
{
    return colours[table % (sizeof(colours) / sizeof(colours[0]))];
}

struct cases_page {
    const struct case_table *tables;
    size_t count;
    struct page page; /* of it, the pieces of page_parts.h use `out` alone */
    struct text *out;
};

/* ---- figures ---- */

/* What a scatter is of. */
struct measure {
    const char *id, *title, *lead, *axis;
    double unit; /* of the axis, in the figure's own unit */
    bool is_time;
};
static const struct measure measures[] = {
    {"time", "Step time",
     "A dot is a run. On the line it takes as long as predicted; the faint "
     "lines are 10 % above and below.",
     "step time", 1, true},
    {"memory", "Memory of the fullest device",
     "A dot is a run. On the line it needs what is predicted; the faint lines are 10 % above and "
     "below.",
     "memory (GiB)", GIB, false},
};

struct dot {
    double measured, predicted; /* in the measure's unit */
};

/* False: one of the two is absent. */
static bool dot_of(const struct measure *measure, const struct case_table *table, size_t index,
                   struct dot *out)
{
    const struct run_case *row = &table->cases.rows[index];
    const struct case_result *result = &table->results[index];
    struct quantity measured = measure->is_time ? row->step_s : row->memory_bytes;
    struct quantity predicted = measure->is_time ? result->time_s : result->memory_bytes;
    if (row->skipped[0] != '\0' || isnan(case_error(predicted, measured)))
        return false;
    *out = (struct dot){measured.value / measure->unit, predicted.value / measure->unit};
    return out->predicted > 0;
}

static const struct case_errors *errors_of(const struct measure *measure,
                                           const struct case_table *table)
{
    return measure->is_time ? &table->summary.time : &table->summary.memory;
}

/* ---- scatter ---- */

static void widen(double value, double *low, double *high)
{
    *low = fmin(*low, log10(value));
    *high = fmax(*high, log10(value));
}

/* One range for both axes, so that equal is a diagonal. False: no dot. */
static bool find_range(const struct cases_page *page, const struct measure *measure, double *low,
                       double *high)
{
    struct dot dot;
    *low = INFINITY;
    *high = -INFINITY;
    for (size_t t = 0; t < page->count; t++) {
        for (size_t i = 0; i < page->tables[t].cases.count; i++) {
            if (!dot_of(measure, &page->tables[t], i, &dot))
                continue;
            widen(dot.measured, low, high);
            widen(dot.predicted, low, high);
        }
    }
    *low -= 0.08;
    *high += 0.08;
    return *low < *high;
}

static void tick_words(const struct measure *measure, double value, struct text *out)
{
    if (measure->is_time && value < 0.9995)
        text_printf(out, "%g ms", value * 1000);
    else
        text_printf(out, measure->is_time ? "%g s" : "%g", value);
}

static void draw_tick(const struct plot *plot, const struct measure *measure, double value)
{
    double x = plot_x(plot, log10(value)), y = plot_y(plot, log10(value));
    text_printf(plot->out,
                "<line class=\"grid\" x1=\"%.3f%%\" x2=\"%.3f%%\" y1=\"0\" y2=\"%d\"/>"
                "<text x=\"%.3f%%\" y=\"%d\" text-anchor=\"middle\">",
                x, x, plot->height_px, x, plot->height_px + 18);
    tick_words(measure, value, plot->out);
    text_printf(plot->out,
                "</text><line class=\"grid\" x1=\"0\" x2=\"100%%\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<text x=\"-8\" y=\"%.1f\" text-anchor=\"end\">",
                y, y, y + 4);
    tick_words(measure, value, plot->out);
    text_append(plot->out, "</text>\n");
}

/* At so many of these of each decade: of few decades at more. */
static void draw_ticks(const struct plot *plot, const struct measure *measure)
{
    static const double parts[] = {1, 2, 5, 3, 4, 6, 8};
    double decades = plot->x.high - plot->x.low;
    size_t part_count = decades > 3.2 ? 1 : decades > 1.1 ? 3 : sizeof(parts) / sizeof(parts[0]);
    int drawn = 0;
    int last = (int)floor(plot->x.high);
    for (int decade = (int)floor(plot->x.low); decade <= last; decade++) {
        for (size_t i = 0; i < part_count && drawn < TICKS_MAX; i++) {
            double value = parts[i] * pow(10, (double)decade);
            if (log10(value) < plot->x.low || log10(value) > plot->x.high)
                continue;
            draw_tick(plot, measure, value);
            drawn++;
        }
    }
}

static void begin_scatter(const struct plot *plot, const struct measure *measure)
{
    text_printf(plot->out,
                "<div class=\"plot\"><svg width=\"100%%\" height=\"%d\" role=\"img\" "
                "aria-label=\"%s, predicted against measured\">\n",
                plot->height_px, measure->title);
    draw_ticks(plot, measure);
    text_printf(plot->out,
                "<text class=\"title\" x=\"-52\" y=\"-14\">predicted %s</text>\n"
                "<text class=\"title\" x=\"100%%\" y=\"%d\" text-anchor=\"end\">measured %s</text>"
                "\n<line class=\"base\" x1=\"0\" x2=\"100%%\" y1=\"%d\" y2=\"%d\"/>",
                measure->axis, plot->height_px + 36, measure->axis, plot->height_px,
                plot->height_px);
}

/* predicted = factor x measured. */
static void draw_line(const struct plot *plot, double factor, const char *class)
{
    double low = plot->x.low, high = plot->x.high, shift = log10(factor);
    struct path path;
    path_begin(&path, plot, class, false);
    path_point(&path, fmax(low, low - shift), fmax(low, low + shift));
    path_point(&path, fmin(high, high - shift), fmin(high, high + shift));
    path_end(&path);
}

static void draw_dots(const struct cases_page *page, const struct plot *plot,
                      const struct measure *measure, size_t table)
{
    const struct case_table *of = &page->tables[table];
    struct dot dot;
    for (size_t i = 0; i < of->cases.count; i++) {
        struct text title = {0};
        if (!dot_of(measure, of, i, &dot))
            continue;
        figure_clean_html(of->cases.name, &title);
        text_printf(&title, " line %zu: ", of->cases.rows[i].line);
        figure_clean_html(of->cases.rows[i].name, &title);
        text_printf(&title, "; measured %.4g, predicted %.4g %s (%+.1f %%)", dot.measured,
                    dot.predicted, measure->is_time ? "s" : "GiB",
                    100 * (dot.predicted / dot.measured - 1));
        if (title.data != NULL && !title.failed)
            plot_dot(plot, log10(dot.measured), log10(dot.predicted), colour_of(table), title.data);
        text_free(&title);
    }
}

static void append_scatter(const struct cases_page *page, const struct measure *measure)
{
    struct plot plot = {.out = page->out, .height_px = SCATTER_PX};
    double low, high;
    page_section(&page->page, measure->id, measure->title, measure->lead);
    if (!find_range(page, measure, &low, &high)) {
        text_append(page->out, "<p>No run of which it was measured.</p>\n");
        page_section_end(&page->page);
        return;
    }
    plot.x = plot.y = (struct axis){.low = low, .high = high, .unit = AXIS_PLAIN};
    text_append(page->out, "<div class=\"keys\">");
    for (size_t t = 0; t < page->count; t++) {
        struct text class = {0};
        text_printf(&class, "%s dot", colour_of(t));
        if (errors_of(measure, &page->tables[t])->count > 0 && !class.failed)
            page_key(&page->page, class.data, page->tables[t].cases.name);
        text_free(&class);
    }
    text_append(page->out, "</div>\n");
    begin_scatter(&plot, measure);
    draw_line(&plot, 1.1, "ink thin");
    draw_line(&plot, 1, "ink fine");
    draw_line(&plot, 1 / 1.1, "ink thin");
    for (size_t t = 0; t < page->count; t++)
        draw_dots(page, &plot, measure, t);
    plot_end(&plot);
    page_section_end(&page->page);
}

/* ---- tables ---- */

static void append_share(const struct cases_page *page, double share, bool is_signed)
{
    if (isnan(share)) {
        text_append(page->out, "<td class=\"absent\">\xe2\x80\x93</td>");
        return;
    }
    double size = fabs(share);
    text_printf(page->out, "<td><span class=\"err %s\">",
                size < 0.0505   ? "e0"
                : size < 0.1005 ? "e1"
                                : "e2");
    text_printf(page->out, is_signed ? "%+.1f %%</span></td>" : "%.1f %%</span></td>", 100 * share);
}

static void append_file(const struct cases_page *page, const struct case_table *table)
{
    const struct case_summary *summary = &table->summary;
    text_append(page->out, "<tr><td>");
    figure_clean_html(table->cases.name, page->out);
    text_printf(page->out, "</td><td>%zu</td><td>%zu</td>", summary->rows, summary->skipped);
    for (size_t i = 0; i < sizeof(measures) / sizeof(measures[0]); i++) {
        const struct case_errors *errors = errors_of(&measures[i], table);
        text_printf(page->out, "<td>%zu</td>", errors->count);
        append_share(page, errors->mean_absolute, false);
        append_share(page, errors->mean, true);
        append_share(page, errors->worst, true);
    }
    text_printf(page->out, "<td>%zu of %zu</td></tr>\n", summary->agreed, summary->judged);
}

static void append_files(const struct cases_page *page)
{
    page_section(&page->page, "files", "By file",
                 "Every row of a file is predicted, or skipped for a reason that is listed below.");
    text_append(page->out,
                "<div class=\"scroll\"><table><thead><tr><th></th><th></th><th></th>"
                "<th class=\"group\" colspan=\"4\">step time</th>"
                "<th class=\"group\" colspan=\"4\">memory</th><th></th></tr>\n"
                "<tr><th>file</th><th>rows</th><th>skipped</th><th>runs</th><th>mean size</th>"
                "<th>mean</th><th>worst</th><th>runs</th><th>mean size</th><th>mean</th>"
                "<th>worst</th><th>fits or not, right</th></tr></thead>\n<tbody>\n");
    for (size_t t = 0; t < page->count; t++)
        append_file(page, &page->tables[t]);
    text_append(page->out, "</tbody></table></div>\n");
    page_section_end(&page->page);
}

struct far {
    const struct case_table *table;
    size_t index;
    double error;
};

/* Keeps the farthest, in order. */
static void keep_far(struct far list[FARTHEST], size_t *count, struct far run)
{
    if (*count == FARTHEST && fabs(run.error) <= fabs(list[FARTHEST - 1].error))
        return;
    if (*count == FARTHEST)
        (*count)--;
    size_t at = (*count)++;
    for (; at > 0 && fabs(list[at - 1].error) < fabs(run.error); at--)
        list[at] = list[at - 1];
    list[at] = run;
}

static void append_far(const struct cases_page *page, const struct far *run)
{
    const struct run_case *row = &run->table->cases.rows[run->index];
    char measured[UNIT_TEXT_BYTES], predicted[UNIT_TEXT_BYTES];
    text_append(page->out, "<tr><td>");
    figure_clean_html(row->name, page->out);
    text_append(page->out, "</td><td class=\"left\">");
    figure_clean_html(run->table->cases.name, page->out);
    text_printf(page->out, " line %zu</td><td>%s</td><td>%s</td>", row->line,
                format_seconds(run->table->results[run->index].time_s.value, predicted),
                format_seconds(row->step_s.value, measured));
    append_share(page, run->error, true);
    text_append(page->out, "</tr>\n");
}

static void append_farthest(const struct cases_page *page)
{
    struct far list[FARTHEST] = {0};
    size_t count = 0;
    for (size_t t = 0; t < page->count; t++) {
        const struct case_table *table = &page->tables[t];
        for (size_t i = 0; i < table->cases.count; i++) {
            double error = case_error(table->results[i].time_s, table->cases.rows[i].step_s);
            if (table->cases.rows[i].skipped[0] == '\0' && !isnan(error))
                keep_far(list, &count, (struct far){table, i, error});
        }
    }
    if (count == 0)
        return;
    page_section(&page->page, "farthest", "Farthest off",
                 "The runs whose predicted step time is farthest from the measured one.");
    text_append(page->out, "<div class=\"scroll\"><table><thead><tr><th>run</th><th "
                           "class=\"left\">in</th><th>predicted</th><th>measured</th>"
                           "<th>error</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < count; i++)
        append_far(page, &list[i]);
    text_append(page->out, "</tbody></table></div>\n");
    page_section_end(&page->page);
}

static void append_skipped(const struct cases_page *page)
{
    page_section(&page->page, "skipped", "Skipped",
                 "A row that lacks what a prediction needs is skipped, never guessed.");
    text_append(page->out, "<div class=\"scroll\"><table><thead><tr><th>file</th><th>rows</th>"
                           "<th>first line</th><th class=\"left\">why</th></tr></thead>\n"
                           "<tbody>\n");
    for (size_t t = 0; t < page->count; t++) {
        struct case_reason reasons[REASONS_MAX];
        size_t count = case_reasons(&page->tables[t].cases, reasons, REASONS_MAX);
        for (size_t i = 0; i < count; i++) {
            text_append(page->out, "<tr><td>");
            figure_clean_html(page->tables[t].cases.name, page->out);
            text_printf(page->out, "</td><td>%zu</td><td>%zu</td><td class=\"left\">",
                        reasons[i].rows, reasons[i].first_line);
            figure_clean_html(reasons[i].text, page->out);
            text_append(page->out, "</td></tr>\n");
        }
    }
    text_append(page->out, "</tbody></table></div>\n");
    page_section_end(&page->page);
}

static void append_legend(const struct cases_page *page)
{
    page_section(&page->page, "legend", "How to read this",
                 "Every prediction is held against the measurement of the same thing.");
    text_append(
        page->out,
        "<div class=\"legend\"><dl>\n"
        "<dt>error</dt><dd>predicted / measured \xe2\x88\x92 1, "
        "<span class=\"err e0\">up to 5 %</span> <span class=\"err e1\">up to 10 %</span> "
        "<span class=\"err e2\">more</span></dd>\n"
        "<dt>mean size</dt><dd>mean of the errors without their signs</dd>\n"
        "<dt>memory</dt><dd>of the fullest device: of the framework\xe2\x80\x99s allocator, or of "
        "the whole process where nvidia-smi measured it</dd>\n"
        "<dt>fits or not, right</dt><dd>runs that were predicted to fit and ran, or not to fit and "
        "ended out of memory</dd>\n</dl></div>\n");
    page_section_end(&page->page);
}

/* ---- the page ---- */

static void append_header(const struct cases_page *page)
{
    size_t rows = 0, skipped = 0;
    for (size_t t = 0; t < page->count; t++) {
        rows += page->tables[t].summary.rows;
        skipped += page->tables[t].summary.skipped;
    }
    text_printf(page->out,
                "<header>\n<h1>Predicted against measured runs</h1>\n<p>%zu runs in %zu files, "
                "%zu of them skipped</p>\n</header>\n",
                rows, page->count, skipped);
}

enum status page_cases_write(const struct case_table *tables, size_t table_count, struct text *html,
                             struct error *err)
{
    struct cases_page page = {tables, table_count, {.out = html}, html};
    text_append(html, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                      "<meta name=\"viewport\" content=\"width=device-width, "
                      "initial-scale=1\"/>\n<title>temper: predicted against measured runs"
                      "</title>\n<style>\n");
    for (size_t i = 0; page_style[i] != NULL; i++)
        text_append(html, page_style[i]);
    text_append(html, "</style>\n</head>\n<body>\n<main>\n");
    append_header(&page);
    append_files(&page);
    for (size_t i = 0; i < sizeof(measures) / sizeof(measures[0]); i++)
        append_scatter(&page, &measures[i]);
    append_farthest(&page);
    append_skipped(&page);
    append_legend(&page);
    text_append(html, "</main>\n</body>\n</html>\n");
    return text_check(html, err);
}
