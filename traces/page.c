#include "traces/page.h"
#include "base/units.h"
#include "traces/page_parts.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

const struct phase_look phase_looks[PHASE_COUNT] = {
    [PHASE_FORWARD] = {"forward", "forward"},
    [PHASE_BACKWARD] = {"backward", "backward"},
    [PHASE_TENSOR] = {"tensor parallel", "tensor"},
    [PHASE_PIPELINE] = {"pipeline", "pipeline"},
    [PHASE_PARAM_GATHER] = {"parameter gather", "gather"},
    [PHASE_GRAD_REDUCE] = {"gradient reduction", "reduce"},
    [PHASE_OPTIMIZER] = {"optimizer", "optimizer"},
    [PHASE_OTHER] = {"other", "other"},
};

/* ---- pieces ---- */

void page_section(const struct page *page, const char *id, const char *title, const char *lead)
{
    text_printf(page->out, "<section id=\"%s\">\n<h2>%s</h2>\n<p>%s</p>\n", id, title, lead);
}

void page_section_end(const struct page *page)
{
    text_append(page->out, "</section>\n");
}

void page_key(const struct page *page, const char *class, const char *words)
{
    text_printf(page->out, "<span class=\"key %s\">", class);
    figure_clean_html(words, page->out);
    text_append(page->out, "</span>\n");
}

void page_tag(const struct page *page, enum provenance provenance)
{
    const char *name = provenance_name(provenance);
    text_printf(page->out, "<span class=\"tag %s\">%s</span>", name, name);
}

/* Up to 5 % is as good as the measurement, over 10 % misses what a plan promises; judged as
 * printed, to a tenth of a percent. */
static const char *error_class(double error)
{
    return fabs(error) < 0.0505 ? "e0" : fabs(error) < 0.1005 ? "e1" : "e2";
}

static void append_error(const struct page *page, const struct comparison *comparison)
{
    char error[FIGURE_TEXT_BYTES];
    if (comparison->has_error)
        text_printf(page->out, "<span class=\"err %s\">%s</span>", error_class(comparison->error),
                    figure_error(comparison, error));
    else
        text_append(page->out, "\xe2\x80\x93");
}

static void append_cell(const struct page *page, enum figure_kind kind, struct quantity quantity)
{
    char value[FIGURE_TEXT_BYTES], spread[FIGURE_TEXT_BYTES];
    struct quantity deviation = {quantity.deviation, 0, quantity.provenance};
    bool is_absent = quantity.provenance == PROVENANCE_ABSENT;
    text_printf(page->out, "<td%s title=\"%s", is_absent ? " class=\"absent\"" : "",
                provenance_name(quantity.provenance));
    if (!is_absent && quantity.deviation > 0)
        text_printf(page->out, ", deviation %s", figure_value(kind, deviation, spread));
    text_printf(page->out, "\">%s</td>", figure_value(kind, quantity, value));
}

void page_comparison_cells(const struct page *page, enum figure_kind kind,
                           const struct comparison *comparison)
{
    append_cell(page, kind, comparison->predicted);
    append_cell(page, kind, comparison->measured);
    text_append(page->out, "<td>");
    append_error(page, comparison);
    text_append(page->out, "</td>");
}

double page_largest(double largest, struct quantity quantity)
{
    if (quantity.provenance == PROVENANCE_ABSENT || !isfinite(quantity.value))
        return largest;
    return fmax(largest, quantity.value);
}

/* ---- the top of the page ---- */

static void append_header(const struct page *page)
{
    const struct run_info *info = &page->record->info;
    const char *state = run_status_name(info->status);
    char date[FIGURE_TEXT_BYTES];
    text_printf(page->out, "<header>\n<h1>Run %" PRId64 " of ", info->id);
    figure_clean_html(page->record->plan.model.name, page->out);
    text_printf(page->out, "</h1><span class=\"state %s\">%s</span>\n<p>", state, state);
    figure_clean_html(info->host, page->out);
    text_printf(page->out, " \xc2\xb7 %s \xc2\xb7 ", figure_date(info->started_unix_ms, date));
    figure_clean_html(info->data_path, page->out);
    if (info->skipped_steps > 0)
        text_printf(page->out, " \xc2\xb7 %" PRId64 " steps skipped: gradient not finite",
                    info->skipped_steps);
    text_append(page->out, "</p>\n</header>\n");
}

/* The title, what it is of, and how the figure in the card was come by. */
static void open_card(const struct page *page, const char *title, const char *note,
                      enum provenance provenance)
{
    text_printf(page->out, "<div class=\"card\"><h2>%s <small>%s</small>", title, note);
    page_tag(page, provenance);
    text_append(page->out, "</h2>");
}

/* "61.2 ms" with its unit smaller; nothing but "absent" for what is not known. */
static void append_figure(const struct page *page, enum figure_kind kind, struct quantity quantity)
{
    char value[FIGURE_TEXT_BYTES];
    (void)figure_value(kind, quantity, value);
    if (quantity.provenance == PROVENANCE_ABSENT) {
        text_printf(page->out, "<b class=\"absent\">%s</b>", value);
        return;
    }
    size_t digits = 0;
    while (value[digits] != '\0' && value[digits] != ' ')
        digits++;
    text_printf(page->out, "<b>%.*s<small>%s</small></b>", (int)digits, value, value + digits);
}

static void append_headline(const struct page *page, size_t index)
{
    const struct headline *headline = &headlines[index];
    const struct comparison *figure = headline_of(page->comparison, index);
    char value[FIGURE_TEXT_BYTES];
    open_card(page, headline->label, headline->note, figure->measured.provenance);
    append_figure(page, headline->kind, figure->measured);
    text_append(page->out, "<div>");
    if (figure->has_error)
        append_error(page, figure);
    text_printf(page->out, "<br/>predicted %s<br/>",
                figure_value(headline->kind, figure->predicted, value));
    if (figure->predicted.provenance != PROVENANCE_ABSENT)
        page_tag(page, figure->predicted.provenance);
    text_append(page->out, "</div></div>\n");
}

static void append_compute_card(const struct page *page)
{
    char text[UNIT_TEXT_BYTES];
    bool is_known = page->comparison->matmul_share > 0;
    open_card(page, "compute", "share of peak", is_known ? PROVENANCE_MEASURED : PROVENANCE_ABSENT);
    if (is_known)
        text_printf(page->out,
                    "<b>%.1f<small> %%</small></b><div>of %s/s,<br/>the measured "
                    "rate<br/>of matrix products</div></div>\n",
                    100 * page->comparison->matmul_share,
                    format_flops(page->record->info.matmul_flops, text));
    else
        text_append(page->out, "<b class=\"absent\">absent</b><div>no measured rate<br/>of matrix "
                               "products</div></div>\n");
}

static void append_loss_card(const struct page *page)
{
    const struct run_comparison *comparison = page->comparison;
    bool has_validation = isfinite(comparison->validation_loss);
    double loss = has_validation ? comparison->validation_loss : comparison->final_loss;
    char steps[UNIT_TEXT_BYTES];
    open_card(page, "loss", has_validation ? "validation" : "training",
              isfinite(loss) ? PROVENANCE_MEASURED : PROVENANCE_ABSENT);
    if (isfinite(loss))
        text_printf(page->out, "<b>%.4f<small> nats</small></b>", loss);
    else
        text_printf(page->out, "<b class=\"absent\">%s</b>",
                    comparison->steps > 0 ? "not finite" : "absent");
    text_append(page->out, "<div>");
    if (has_validation && isfinite(comparison->final_loss))
        text_printf(page->out, "training %.4f<br/>", comparison->final_loss);
    text_printf(page->out, "after %s steps</div></div>\n",
                format_grouped((uint64_t)comparison->steps, steps));
}

static void append_cards(const struct page *page)
{
    text_append(page->out, "<div class=\"cards\">\n");
    for (size_t i = 0; i < HEADLINE_COUNT; i++)
        append_headline(page, i);
    append_compute_card(page);
    append_loss_card(page);
    text_append(page->out, "</div>\n");
}

/* ---- the end of the page ---- */

static void append_legend(const struct page *page)
{
    page_section(page, "legend", "How to read this",
                 "Every prediction is held against the measurement of the same thing.");
    text_printf(
        page->out,
        "<div class=\"legend\"><dl>\n"
        "<dt>error</dt><dd>predicted / measured \xe2\x88\x92 1, "
        "<span class=\"err e0\">up to 5 %%</span> <span class=\"err e1\">up to 10 %%</span> "
        "<span class=\"err e2\">more</span></dd>\n"
        "<dt>step time</dt><dd>median of the steps after the first %zu</dd>\n"
        "<dt>energy</dt><dd>of one step and all ranks; the share of a phase or layer is the "
        "step\xe2\x80\x99s energy \xc3\x97 its share of the time, hence modelled</dd>\n"
        "<dt>forward, backward</dt><dd>compute alone, without the communication waited for in "
        "it</dd>\n"
        "<dt>tensor, gather, reduction</dt><dd>collectives as far as they are exposed: the rank "
        "waits and does nothing else</dd>\n"
        "<dt>pipeline</dt><dd>waiting for other stages: transfers and the bubble</dd>\n"
        "<dt>other</dt><dd>step time \xe2\x88\x92 all other phases: data, the norm of the "
        "gradient over all ranks, waiting at the step\xe2\x80\x99s end</dd>\n"
        "<dt>process</dt><dd>peak resident memory \xe2\x88\x92 what the plan lays out</dd>\n"
        "<dt>compute</dt><dd>3 \xc3\x97 forward FLOPs of the global batch / step time / "
        "the ranks\xe2\x80\x99 measured matrix-product rate; nothing is counted for "
        "recomputation</dd>\n<dt>",
        page->comparison->warmup_steps);
    page_tag(page, PROVENANCE_MEASURED);
    text_append(page->out, "</dt><dd>timed or counted on this hardware</dd>\n<dt>");
    page_tag(page, PROVENANCE_INTERPOLATED);
    text_append(page->out, "</dt><dd>between or beyond measured points</dd>\n<dt>");
    page_tag(page, PROVENANCE_MODELLED);
    text_append(page->out, "</dt><dd>from a formula or a figure that was given</dd>\n<dt>");
    page_tag(page, PROVENANCE_ABSENT);
    text_append(page->out, "</dt><dd>not known, which is not 0</dd>\n</dl></div>\n");
    page_section_end(page);
}

static void append_footer(const struct page *page)
{
    const struct run_info *info = &page->record->info;
    text_append(page->out, "<footer>temper ");
    figure_clean_html(info->revision, page->out);
    text_printf(page->out, " \xc2\xb7 seed %" PRId64 " \xc2\xb7 plan %" PRId64, info->seed,
                info->plan_id);
    if (info->options[0] != '\0') {
        text_append(page->out, " \xc2\xb7 options: ");
        figure_clean_html(info->options, page->out);
    }
    text_append(page->out, "</footer>\n");
}

static enum status append_body(const struct page *page, struct error *err)
{
    append_header(page);
    append_cards(page);
    page_plan(page);
    TRY(page_timeline(page, err));
    page_phases(page);
    page_communication(page);
    TRY(page_memory(page, err));
    TRY(page_training(page, err));
    page_layers(page);
    page_roofline(page);
    append_legend(page);
    append_footer(page);
    return text_check(page->out, err);
}

enum status page_write(const struct run_record *record, const struct run_comparison *comparison,
                       struct text *html, struct error *err)
{
    struct page page = {record, comparison, html};
    text_printf(html,
                "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
                "<title>temper: run %" PRId64 " of ",
                record->info.id);
    figure_clean_html(record->plan.model.name, html);
    text_append(html, "</title>\n<style>\n");
    for (size_t i = 0; page_style[i]; i++)
        text_append(html, page_style[i]);
    text_append(html, "</style>\n</head>\n<body>\n<main>\n");
    TRY(append_body(&page, err));
    text_append(html, "</main>\n</body>\n</html>\n");
    return text_check(html, err);
}
