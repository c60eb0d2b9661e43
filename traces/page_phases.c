#include "traces/page_parts.h"
#include <stdio.h>

static double largest_phase_s(const struct run_comparison *comparison)
{
    double largest = 0;
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        struct quantity predicted = comparison->phase_s[phase].predicted;
        largest = page_largest(largest, predicted);
        predicted.value += predicted.deviation;
        largest = page_largest(largest, predicted);
        largest = page_largest(largest, comparison->phase_s[phase].measured);
    }
    return largest > 0 ? largest : 1;
}

static void append_bar(const struct page *page, struct quantity quantity, double largest,
                       const char *class, int y)
{
    char value[FIGURE_TEXT_BYTES];
    if (quantity.provenance == PROVENANCE_ABSENT)
        return;
    text_printf(page->out,
                "<rect class=\"%s\" x=\"0\" y=\"%d\" width=\"%.2f%%\" height=\"9\" rx=\"1.5\">"
                "<title>%s</title></rect>",
                class, y, 100 * quantity.value / largest,
                figure_value(FIGURE_SECONDS, quantity, value));
}

/* One deviation to either side of the predicted bar's end. */
static void append_whisker(const struct page *page, struct quantity quantity, double largest)
{
    if (quantity.provenance == PROVENANCE_ABSENT || !(quantity.deviation > 0))
        return;
    double low = quantity.value - quantity.deviation;
    text_printf(
        page->out, "<line class=\"whisker\" x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"6.5\" y2=\"6.5\"/>",
        100 * (low > 0 ? low : 0) / largest, 100 * (quantity.value + quantity.deviation) / largest);
}

static void append_bars(const struct page *page, int phase, double largest)
{
    const struct comparison *time_s = &page->comparison->phase_s[phase];
    text_printf(page->out,
                "<td class=\"bars row %s\"><svg width=\"100%%\" height=\"26\" role=\"img\" "
                "aria-label=\"%s, predicted above measured\">",
                phase_looks[phase].class, phase_looks[phase].label);
    append_bar(page, time_s->predicted, largest, "hollow", 2);
    append_bar(page, time_s->measured, largest, "solid", 14);
    append_whisker(page, time_s->predicted, largest);
    text_append(page->out, "</svg></td>");
}

static void append_lead(const struct page *page)
{
    char lead[320], stage[FIGURE_TEXT_BYTES];
    if (page->record->plan.pipeline == 1)
        (void)snprintf(lead, sizeof(lead),
                       "One step by phase: time as the mean over ranks, energy of all ranks.");
    else
        (void)snprintf(lead, sizeof(lead),
                       "One step by phase. Time is of the stage with most to do, the mean over its "
                       "ranks: %s. Energy and max/min are of all ranks.",
                       figure_stage(page->comparison, stage));
    page_section(page, "phases", "Where the time and energy went", lead);
}

static void append_row(const struct page *page, int phase, double largest)
{
    const struct run_comparison *comparison = page->comparison;
    char ratio[FIGURE_TEXT_BYTES];
    text_printf(page->out, "<tr><td>%s</td>", phase_looks[phase].label);
    append_bars(page, phase, largest);
    page_comparison_cells(page, FIGURE_SECONDS, &comparison->phase_s[phase]);
    (void)figure_ratio(&comparison->phase_spread[phase], comparison->rank_count, ratio);
    text_printf(page->out, "<td>%s</td>", ratio);
    page_comparison_cells(page, FIGURE_JOULES, &comparison->phase_energy_j[phase]);
    text_append(page->out, "</tr>\n");
}

void page_phases(const struct page *page)
{
    const struct run_comparison *comparison = page->comparison;
    double largest = largest_phase_s(comparison);
    append_lead(page);
    text_append(page->out, "<div class=\"keys\">");
    page_key(page, "ink hollow", "predicted, with one deviation to either side");
    page_key(page, "ink", "measured");
    text_append(page->out,
                "</div>\n<div class=\"scroll\"><table><thead>\n"
                "<tr><th rowspan=\"2\">phase</th><th rowspan=\"2\"></th>"
                "<th class=\"group\" colspan=\"3\">time</th><th rowspan=\"2\" "
                "title=\"slowest rank / fastest rank\">max/min<br/>of ranks</th>"
                "<th class=\"group\" colspan=\"3\">energy</th></tr>\n"
                "<tr><th>predicted</th><th>measured</th><th>error</th>"
                "<th>predicted</th><th>measured</th><th>error</th></tr></thead><tbody>\n");
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        if (!figure_is_idle(&comparison->phase_s[phase]) ||
            comparison->phase_spread[phase].maximum_s > 0)
            append_row(page, phase, largest);
    text_append(page->out, "<tr class=\"sum\"><td>step</td><td></td>");
    page_comparison_cells(page, FIGURE_SECONDS, &comparison->step_time_s);
    text_append(page->out, "<td></td>");
    page_comparison_cells(page, FIGURE_JOULES, &comparison->energy_j);
    text_append(page->out, "</tr>\n</tbody></table></div>\n");
    page_section_end(page);
}
