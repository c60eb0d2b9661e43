#include "traces/page_parts.h"

/* Columns that would say "absent" in every row are left out: the cards above say it once. */
static bool has_energy(const struct page *page)
{
    const struct comparison *energy_j = &page->comparison->energy_j;
    return energy_j->predicted.provenance != PROVENANCE_ABSENT ||
           energy_j->measured.provenance != PROVENANCE_ABSENT;
}

static bool has_strategies(const struct page *page)
{
    return figure_has_strategies(&page->record->plan);
}

static void append_row(const struct page *page, size_t index)
{
    const struct layer_comparison *layer = &page->comparison->layers[index];
    char label[FIGURE_TEXT_BYTES], split[FIGURE_TEXT_BYTES];
    text_printf(page->out, "<tr><td>%s</td>", figure_layer(layer->layer, label));
    if (has_strategies(page))
        text_printf(page->out, "<td class=\"left\">%s</td>",
                    figure_strategy(&page->record->plan, &layer->strategy, split));
    text_printf(page->out, "<td class=\"left\">%s \xc2\xb7 %s</td>",
                precision_name(layer->strategy.precision),
                layer_mode_text(layer->strategy.recompute, layer->strategy.attention));
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
        "One step, all micro-batches, the mean over the ranks that have the layer. The total has "
        "every phase that was recorded by layer; energy is of all ranks.");
    text_append(page->out, "<div class=\"scroll\"><table><thead>\n"
                           "<tr><th rowspan=\"2\">layer</th>");
    if (has_strategies(page))
        text_append(page->out, "<th rowspan=\"2\" class=\"left\">split</th>");
    text_append(page->out, "<th rowspan=\"2\" class=\"left\">precision "
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
