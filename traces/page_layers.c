#include "traces/page_parts.h"

/* Columns that would say "absent" in every row are left out: the cards above say it once. */
static bool has_energy(const struct page *page)
{
    const struct comparison *energy_j = &page->comparison->energy_j;
    return energy_j->predicted.provenance != PROVENANCE_ABSENT ||
           energy_j->measured.provenance != PROVENANCE_ABSENT;
}

static void append_row(const struct page *page, size_t index)
{
    const struct layer_comparison *layer = &page->comparison->layers[index];
    char label[FIGURE_TEXT_BYTES];
    text_printf(page->out, "<tr><td>%s</td><td class=\"left\">%s \xc2\xb7 %s</td>",
                figure_layer(layer->layer, label), precision_name(layer->strategy.precision),
                recompute_name(layer->strategy.recompute));
    page_comparison_cells(page, FIGURE_SECONDS, &layer->phase_s[PHASE_FORWARD]);
    page_comparison_cells(page, FIGURE_SECONDS, &layer->phase_s[PHASE_BACKWARD]);
    page_comparison_cells(page, FIGURE_SECONDS, &layer->total_s);
    if (has_energy(page))
        page_comparison_cells(page, FIGURE_JOULES, &layer->energy_j);
    page_comparison_cells(page, FIGURE_BYTES, &layer->kept_bytes);
    text_append(page->out, "</tr>\n");
}

void page_layers(const struct page *page)
{
    page_section(
        page, "layers", "Layer by layer",
        "One step, all micro-batches of a rank. The total has every phase that was recorded "
        "by layer.");
    text_append(page->out,
                "<div class=\"scroll\"><table><thead>\n"
                "<tr><th rowspan=\"2\">layer</th><th rowspan=\"2\" class=\"left\">precision "
                "\xc2\xb7<br/>recompute</th>"
                "<th class=\"group\" colspan=\"3\">forward</th>"
                "<th class=\"group\" colspan=\"3\">backward</th>"
                "<th class=\"group\" colspan=\"3\">total time</th>");
    if (has_energy(page))
        text_append(page->out, "<th class=\"group\" colspan=\"3\">energy</th>");
    text_append(page->out, "<th class=\"group\" colspan=\"3\">kept for backward</th></tr>\n<tr>");
    for (int group = has_energy(page) ? 0 : 1; group < 5; group++)
        text_append(page->out, "<th>predicted</th><th>measured</th><th>error</th>");
    text_append(page->out, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < page->comparison->layer_count; i++)
        append_row(page, i);
    text_append(page->out, "</tbody></table></div>\n");
    page_section_end(page);
}
