#include "base/units.h"
#include "traces/page_parts.h"
#include <math.h>

static void append_seconds(const struct page *page, double seconds)
{
    char text[UNIT_TEXT_BYTES];
    text_printf(page->out, "<td>%s</td>", seconds > 0 ? format_seconds(seconds, text) : "0");
}

/* The flight as a bar: what was waited for solid, what was hidden light. */
static void append_bar(const struct page *page, const char *class,
                       const struct communication_sum *sum, double longest_s)
{
    double exposed = 100 * fmin(sum->waited_s, sum->flight_s) / longest_s;
    double hidden = 100 * communication_hidden_s(sum) / longest_s;
    text_printf(page->out,
                "<td class=\"bars row %s\"><svg width=\"100%%\" height=\"12\">"
                "<rect x=\"0\" y=\"2\" width=\"%.2f%%\" height=\"9\"/>"
                "<rect class=\"hidden\" x=\"%.2f%%\" y=\"2\" width=\"%.2f%%\" height=\"9\"/>"
                "</svg></td>",
                class, exposed, exposed, hidden);
}

static void append_row(const struct page *page, const char *name, const char *class,
                       const struct communication_sum *sum, double longest_s, bool is_part)
{
    char bytes[UNIT_TEXT_BYTES], share[FIGURE_TEXT_BYTES];
    text_printf(page->out, "<tr%s><td>%s</td>", is_part ? " class=\"part\"" : "", name);
    append_bar(page, class, sum, longest_s);
    text_printf(page->out, "<td>%.*f</td><td>%s</td>",
                sum->calls == floor(sum->calls) || sum->calls >= 100 ? 0 : 1, sum->calls,
                format_bytes(sum->bytes, bytes));
    append_seconds(page, sum->flight_s);
    append_seconds(page, sum->waited_s);
    append_seconds(page, communication_hidden_s(sum));
    text_printf(page->out, "<td>%s</td></tr>\n",
                figure_share(communication_hidden_share(sum), share));
}

static void append_phase(const struct page *page, int phase, double longest_s)
{
    const struct communication_sum *sums = page->comparison->communication.sums[phase];
    const char *class = phase_looks[phase].class;
    int kinds = 0;
    if (sums[COMMUNICATION_ALL].calls == 0)
        return;
    append_row(page, phase_looks[phase].label, class, &sums[COMMUNICATION_ALL], longest_s, false);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        kinds += sums[kind].calls > 0 ? 1 : 0;
    for (int kind = 0; kind < LAYER_KIND_COUNT && kinds > 1; kind++)
        if (sums[kind].calls > 0)
            append_row(page, layer_kind_name((enum layer_kind)kind), class, &sums[kind], longest_s,
                       true);
}

void page_communication(const struct page *page)
{
    const struct communication *communication = &page->comparison->communication;
    struct communication_sum total = communication_total(communication);
    double longest_s = 0;
    if (total.calls == 0)
        return;
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        longest_s = fmax(longest_s, communication->sums[phase][COMMUNICATION_ALL].flight_s);
    page_section(page, "communication", "Communication",
                 "One step of a rank, the mean over all ranks and the recorded steps. A transfer "
                 "flies from its start to its arrival; what the rank did not wait for was hidden "
                 "behind compute. A receive of the pipeline starts when it is posted.");
    text_append(page->out, "<div class=\"keys\">");
    page_key(page, "ink", "waited for");
    page_key(page, "ink soft", "hidden behind compute");
    text_append(page->out,
                "</div>\n<div class=\"scroll\"><table><thead>\n<tr><th>phase and layers</th>"
                "<th></th><th>transfers</th><th>bytes</th><th>in flight</th><th>waited</th>"
                "<th>hidden</th><th>share hidden</th></tr></thead><tbody>\n");
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        append_phase(page, phase, longest_s > 0 ? longest_s : 1);
    text_append(page->out, "</tbody></table></div>\n");
    page_section_end(page);
}
