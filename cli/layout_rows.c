#include "cli/layout_rows.h"

#include "base/units.h"
#include "cli/cli.h"
#include "ir/plan_only.h"

#include <math.h>
#include <stdio.h>

static const struct {
    const char *head;
    int width; /* < 0: to the left */
} columns[LAYOUT_CHOICE_COUNT] = {
    [LAYOUT_DATA] = {"dp", 4},
    [LAYOUT_TENSOR] = {"tp", 4},
    [LAYOUT_PIPELINE] = {"pp", 4},
    [LAYOUT_CONTEXT] = {"cp", 4},
    [LAYOUT_EXPERT] = {"ep", 4},
    [LAYOUT_VIRTUAL_STAGES] = {"v", 3},
    [LAYOUT_SEQUENCE] = {"sp", 5},
    [LAYOUT_ZERO] = {"zero", 4},
    [LAYOUT_SHARD] = {"shard", 5},
    [LAYOUT_MICRO_BATCH] = {"mb", 5},
    [LAYOUT_MICRO_BATCHES] = {"count", 6},
    [LAYOUT_RECOMPUTE] = {"recompute", -10},
    [LAYOUT_SCHEDULE] = {"schedule", -12},
    [LAYOUT_OFFLOAD] = {"offload", -11},
    [LAYOUT_ATTENTION] = {"fused", 5},
    [LAYOUT_OVERLAP] = {"overlap", 7},
    [LAYOUT_ARITHMETIC] = {"in", -4},
};

static const char *cell(const struct model *model, const struct layout *layout,
                        enum layout_choice choice, char out[LAYOUT_CHOICE_BYTES])
{
    int64_t value = layout_choice_value(layout, choice);
    if (choice == LAYOUT_RECOMPUTE && layout->own != NULL) {
        value = layout->own->modes[0].recompute;
        for (int64_t block = 1; block < model->blocks; block++)
            if (layout->own->modes[block].recompute != layout->own->modes[0].recompute)
                return "by block";
    }
    return layout_choice_text(choice, value, out);
}

/* ---- the table ---- */

struct layout_table layout_table_of(const struct cluster *cluster, const struct model *model,
                                    const struct priced_layout *rows, size_t count, unsigned axes)
{
    struct layout_table table = {.model = model,
                                 .has_price = (axes & FRONT_COST) != 0,
                                 .has_carbon = (axes & FRONT_CARBON) != 0,
                                 .currency = cluster->currency};
    if (model->experts > 0)
        table.columns |= 1U << LAYOUT_EXPERT;
    for (size_t i = 1; i < count; i++)
        if (rows[i].layout.arithmetic != rows[0].layout.arithmetic)
            table.columns |= 1U << LAYOUT_ARITHMETIC;
    for (size_t i = 0; i < count; i++)
        for (int field = 0; field < LAYOUT_CHOICE_COUNT; field++)
            if (!layout_choice_is_plain(&rows[i].layout, (enum layout_choice)field))
                table.columns |= 1U << field;
    return table;
}

static void append_cell(int width, const char *words, struct text *out)
{
    bool is_left = width < 0;
    text_printf(out, is_left ? " %*s" : "%*s ", width, words);
}

void layout_table_head(const struct layout_table *table, struct text *out)
{
    for (int field = 0; field < LAYOUT_CHOICE_COUNT; field++)
        if (table->columns & (1U << field))
            append_cell(columns[field].width, columns[field].head, out);
    text_printf(out, "%12s %12s %12s", "time", "memory", "energy");
    if (table->has_price)
        text_printf(out, " %8s %3s", "price", table->currency);
    if (table->has_carbon)
        text_printf(out, " %12s", "g CO2e");
    text_append(out, "\n");
}

static void append_plan_only(const struct layout_table *table, const struct layout *layout,
                             struct text *out)
{
    unsigned choices = plan_only_choices(layout, table->model);
    const char *before = "  plan-only: ";
    for (size_t i = 0; i < PLAN_ONLY_COUNT; i++) {
        if (!(choices & (1U << i)))
            continue;
        text_printf(out, "%s%s", before, name_of(&plan_only_names, i));
        before = ", ";
    }
}

void layout_table_row(const struct layout_table *table, const struct priced_layout *row,
                      double more, struct text *out)
{
    char time[UNIT_TEXT_BYTES], memory[UNIT_TEXT_BYTES], energy[UNIT_TEXT_BYTES];
    char value[LAYOUT_CHOICE_BYTES];
    for (int field = 0; field < LAYOUT_CHOICE_COUNT; field++)
        if (table->columns & (1U << field))
            append_cell(columns[field].width,
                        cell(table->model, &row->layout, (enum layout_choice)field, value), out);
    text_printf(out, "%12s %12s %12s", format_seconds(row->time_s, time),
                format_bytes(row->memory_bytes, memory), format_joules(row->energy_j, energy));
    if (table->has_price)
        text_printf(out, " %12.4g", row->price);
    if (table->has_carbon)
        text_printf(out, " %12.4g", row->carbon_g);
    text_printf(out, " %+7.1f %%", 100 * more);
    append_plan_only(table, &row->layout, out);
    text_append(out, "\n");
}

/* ---- JSON ---- */

void layout_row_json_members(const struct model *model, const struct priced_layout *row,
                             double objective, struct jout *out)
{
    unsigned choices = plan_only_choices(&row->layout, model);
    for (int i = 0; i < LAYOUT_CHOICE_COUNT; i++) {
        enum layout_choice choice = (enum layout_choice)i;
        const char *key = layout_choice_key(choice);
        char value[LAYOUT_CHOICE_BYTES];
        if (layout_choice_is_switch(choice))
            jout_bool(out, key, layout_choice_value(&row->layout, choice) != 0);
        else if (layout_choice_names(choice) != NULL)
            jout_string(out, key, cell(model, &row->layout, choice, value));
        else
            jout_int(out, key, layout_choice_value(&row->layout, choice));
    }
    jout_bool(out, "uniform", row->layout.own == NULL);
    jout_begin_array(out, "plan_only");
    for (size_t i = 0; i < PLAN_ONLY_COUNT; i++)
        if (choices & (1U << i))
            jout_string(out, NULL, name_of(&plan_only_names, i));
    jout_end(out);
    jout_real(out, "time_s", row->time_s);
    jout_real(out, "memory_bytes", row->memory_bytes);
    jout_real(out, "energy_j", row->energy_j);
    jout_real(out, "price", row->price);
    jout_real(out, "carbon_g", row->carbon_g);
    jout_real(out, "objective", objective);
}

void layout_row_json(const struct model *model, const struct priced_layout *row, double objective,
                     struct jout *out)
{
    jout_begin_object(out, NULL);
    layout_row_json_members(model, row, objective, out);
    jout_end(out);
}

/* ---- CSV ---- */

/* New columns stand at the end, so that what reads the old ones goes on reading them. */
static const enum layout_choice csv_first[] = {
    LAYOUT_DATA,     LAYOUT_TENSOR, LAYOUT_PIPELINE,    LAYOUT_CONTEXT,       LAYOUT_VIRTUAL_STAGES,
    LAYOUT_SEQUENCE, LAYOUT_ZERO,   LAYOUT_MICRO_BATCH, LAYOUT_MICRO_BATCHES, LAYOUT_RECOMPUTE};
static const enum layout_choice csv_last[] = {LAYOUT_EXPERT,    LAYOUT_SHARD,     LAYOUT_SCHEDULE,
                                              LAYOUT_OFFLOAD,   LAYOUT_ATTENTION, LAYOUT_OVERLAP,
                                              LAYOUT_ARITHMETIC};

void layout_csv_head(struct text *out)
{
    for (size_t i = 0; i < COUNT_OF(csv_first); i++)
        text_printf(out, "%s,", layout_choice_key(csv_first[i]));
    text_append(out, "time_s,memory_bytes,energy_j,price,carbon_g");
    for (size_t i = 0; i < COUNT_OF(csv_last); i++)
        text_printf(out, ",%s", layout_choice_key(csv_last[i]));
    text_append(out, ",plan_only");
}

static void append_csv_cell(const struct model *model, const struct layout *layout,
                            enum layout_choice choice, struct text *out)
{
    char value[LAYOUT_CHOICE_BYTES];
    if (layout_choice_is_switch(choice))
        text_printf(out, "%lld", (long long)layout_choice_value(layout, choice));
    else
        text_append(out, cell(model, layout, choice, value));
}

static void append_number(double value, struct text *out)
{
    if (isfinite(value))
        text_printf(out, "%.17g", value);
}

void layout_csv_row(const struct model *model, const struct priced_layout *row, struct text *out)
{
    const double figures[] = {row->time_s, row->memory_bytes, row->energy_j, row->price,
                              row->carbon_g};
    unsigned choices = plan_only_choices(&row->layout, model);
    const char *between = "";
    for (size_t i = 0; i < COUNT_OF(csv_first); i++) {
        append_csv_cell(model, &row->layout, csv_first[i], out);
        text_append(out, ",");
    }
    for (size_t i = 0; i < COUNT_OF(figures); i++) {
        text_append(out, i > 0 ? "," : "");
        append_number(figures[i], out);
    }
    for (size_t i = 0; i < COUNT_OF(csv_last); i++) {
        text_append(out, ",");
        append_csv_cell(model, &row->layout, csv_last[i], out);
    }
    text_append(out, ",");
    for (size_t i = 0; i < PLAN_ONLY_COUNT; i++) {
        if (!(choices & (1U << i)))
            continue;
        text_printf(out, "%s%s", between, name_of(&plan_only_names, i));
        between = " ";
    }
}

/* ---- words ---- */

void layout_words(const struct layout *layout, struct text *out)
{
    text_printf(out, "data %lld x tensor %lld x pipeline %lld", (long long)layout->data,
                (long long)layout->tensor, (long long)layout->pipeline);
    if (layout->context > 1)
        text_printf(out, " x context %lld", (long long)layout->context);
    if (layout->expert > 1)
        text_printf(out, ", experts over %lld", (long long)layout->expert);
    if (layout->virtual_stages > 1)
        text_printf(out, ", %lld virtual stages", (long long)layout->virtual_stages);
    text_printf(out, ", micro-batch %lld, ZeRO %d, ", (long long)layout->micro_batch,
                layout->zero_stage);
    if (layout->own != NULL)
        text_append(out, "blocks differ");
    else
        text_printf(out, "recompute %s", recompute_name(layout->recompute));
    if (!layout->fused_attention)
        text_append(out, ", attention not fused");
}
