#include "base/units.h"
#include "traces/page_parts.h"
#include "traces/roofline.h"
#include <math.h>

enum { BAR_PX = 160 };

static void append_bar(const struct page *page, const struct roofline_row *row)
{
    char share[FIGURE_TEXT_BYTES];
    text_append(page->out, "<td class=\"left\">");
    if (isfinite(row->reached)) {
        double width = row->reached < 1 ? row->reached * BAR_PX : BAR_PX;
        text_printf(
            page->out,
            "<svg width=\"%d\" height=\"10\" role=\"img\"><rect class=\"track\" "
            "width=\"%d\" height=\"10\"/><rect class=\"%s\" width=\"%.1f\" "
            "height=\"10\"/></svg> ",
            BAR_PX, BAR_PX,
            phase_looks[row->pass == ROOFLINE_FORWARD ? PHASE_FORWARD : PHASE_BACKWARD].class,
            width);
    }
    text_printf(page->out, "%s</td></tr>\n", figure_share(row->reached, share));
}

static void append_row(const struct page *page, const struct roofline_row *row)
{
    char seconds[UNIT_TEXT_BYTES];
    text_printf(page->out,
                "<tr><td>%s</td><td class=\"left\">%s</td><td class=\"left\">%s</td><td>%s</td>"
                "<td>%.1f</td><td>%.1f</td><td class=\"left\">%s</td>",
                layer_kind_name(row->kind), roofline_pass_name(row->pass),
                precision_name(row->precision), format_seconds(row->seconds, seconds),
                row->work.flops / row->seconds / 1e9, row->work.bytes / row->seconds / 1e9,
                isnan(row->reached) ? "not known"
                : row->is_memory    ? "memory"
                                    : "compute");
    append_bar(page, row);
}

void page_roofline(const struct page *page)
{
    struct roofline_row rows[ROOFLINE_ROWS_MAX];
    size_t count = roofline_rows(page->record, page->comparison, rows);
    if (count == 0)
        return;
    page_section(page, "roofline", "Against the machine's rates",
                 "One step of one rank, all layers of a kind. The limit is the longer of the FLOPs "
                 "at the measured matrix-product rate and the bytes that have to be read or "
                 "written at least once at the measured copy rate; reached is that limit by the "
                 "time taken.");
    text_append(page->out, "<div class=\"scroll\"><table><thead><tr><th>layers</th>"
                           "<th class=\"left\">pass</th><th class=\"left\">precision</th>"
                           "<th>time</th><th>GFLOP/s</th><th>GB/s</th>"
                           "<th class=\"left\">limit</th><th class=\"left\">reached</th></tr>"
                           "</thead><tbody>\n");
    for (size_t i = 0; i < count; i++)
        append_row(page, &rows[i]);
    text_append(page->out, "</tbody></table></div>\n");
    page_section_end(page);
}
