#include "base/units.h"
#include "traces/page_parts.h"
#include <inttypes.h>
#include <stdio.h>

static void append_item(const struct page *page, const char *class, const char *name,
                        const char *value)
{
    text_printf(page->out, "<div class=\"%s\"><dt>%s</dt><dd>", class, name);
    figure_clean_html(value, page->out);
    text_append(page->out, "</dd></div>\n");
}

static void append_split(const struct page *page)
{
    const struct plan *plan = &page->record->plan;
    char text[FIGURE_LINE_BYTES], schedule[FIGURE_TEXT_BYTES];
    char bytes[UNIT_TEXT_BYTES], parameters[UNIT_TEXT_BYTES];
    (void)snprintf(text, sizeof(text),
                   "%s, %" PRId64 " blocks, hidden %" PRId64 ", %" PRId64
                   " heads, %s parameters, sequences of %" PRId64 " tokens",
                   model_family_name(plan->model.family), plan->model.blocks, plan->model.hidden,
                   plan->model.heads,
                   format_grouped(model_parameter_count(&plan->model), parameters),
                   plan->model.seq_length);
    append_item(page, "wide", "Model", text);
    append_item(page, "item", "Split", figure_split(plan, "\xc3\x97", text));
    (void)snprintf(text, sizeof(text), "%d of each rank", plan->threads);
    append_item(page, "item", "Threads", text);
    if (plan->pipeline > 1)
        append_item(page, "wide", "Schedule", figure_schedule(plan, schedule));
    if (plan->gradient_reduction != GRADIENTS_FP32)
        append_item(page, "item", "Gradients of bf16 layers in",
                    gradient_reduction_name(plan->gradient_reduction));
    (void)snprintf(text, sizeof(text),
                   "%" PRId64 " sequences \xc3\x97 %" PRId64 " a step and replica",
                   plan->micro_batch, plan->micro_batches);
    append_item(page, "item", "Micro-batches", text);
    (void)snprintf(text, sizeof(text), "%" PRId64 " sequences", plan->global_batch);
    append_item(page, "item", "Global batch", text);
    append_item(page, "item", "Memory cap of a rank",
                plan->memory_cap_bytes > 0 ? format_bytes((double)plan->memory_cap_bytes, bytes)
                                           : "none");
    append_item(page, "item", "Status", plan_status_name(plan->status));
    append_item(page, "wide", "Pinned", plan->pins[0] != '\0' ? plan->pins : "nothing");
}

static void append_mode(const struct page *page, const struct layer_strategy *strategy)
{
    const struct plan *plan = &page->record->plan;
    char split[FIGURE_TEXT_BYTES];
    if (figure_has_strategies(plan))
        text_printf(page->out, "<td class=\"left\">%s</td>",
                    figure_strategy(plan, strategy, split));
    text_printf(page->out, "<td class=\"left\">%s</td><td class=\"left\">%s</td>",
                precision_name(strategy->precision),
                layer_mode_text(strategy->recompute, strategy->attention));
}

static bool same_mode(const struct layer_strategy *a, const struct layer_strategy *b)
{
    return a->stage == b->stage && strategy_equal(a, b);
}

/* One row for the blocks from `first` on that treat their layer of this kind alike; returns the
 * first block after them. In the chain, block b's attention is layer 2b + 1 and its MLP 2b + 2. */
static int64_t append_block_range(const struct page *page, enum layer_kind kind, int64_t first)
{
    const struct plan *plan = &page->record->plan;
    size_t offset = kind == LAYER_ATTENTION ? 1 : 2;
    const struct layer_strategy *strategy = &plan->layers[2 * (size_t)first + offset];
    int64_t end = first + 1;
    while (end < plan->model.blocks && same_mode(strategy, &plan->layers[2 * (size_t)end + offset]))
        end++;
    text_printf(page->out, "<tr><td>%s %" PRId64, layer_kind_name(kind), first);
    if (end - first > 1)
        text_printf(page->out, "\xe2\x80\x93%" PRId64, end - 1);
    text_printf(page->out, "</td><td>%" PRId64 "</td>", end - first);
    append_mode(page, strategy);
    text_append(page->out, "</tr>\n");
    return end;
}

static void append_single(const struct page *page, enum layer_kind kind, size_t index)
{
    text_printf(page->out, "<tr><td>%s</td><td>1</td>", layer_kind_name(kind));
    append_mode(page, &page->record->plan.layers[index]);
    text_append(page->out, "</tr>\n");
}

void page_plan(const struct page *page)
{
    const struct plan *plan = &page->record->plan;
    page_section(page, "plan", "Plan", "How the step was split, kept and computed.");
    text_append(page->out, "<div class=\"two\"><div><dl>\n");
    append_split(page);
    text_append(page->out, "</dl></div>\n<div class=\"scroll\"><table><thead><tr><th>layers</th>"
                           "<th>count</th>");
    if (figure_has_strategies(plan))
        text_append(page->out, "<th class=\"left\">split</th>");
    text_append(page->out, "<th class=\"left\">precision</th><th class=\"left\">recompute</th>"
                           "</tr></thead><tbody>\n");
    append_single(page, LAYER_EMBEDDING, 0);
    for (int64_t block = 0; block < plan->model.blocks;)
        block = append_block_range(page, LAYER_ATTENTION, block);
    for (int64_t block = 0; block < plan->model.blocks;)
        block = append_block_range(page, LAYER_MLP, block);
    append_single(page, LAYER_HEAD, plan->layer_count - 1);
    text_append(page->out, "</tbody></table></div></div>\n");
    page_section_end(page);
}
