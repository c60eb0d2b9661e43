#include "cli/layout_rows.h"

#include "base/units.h"
#include "cli/cli.h"
#include "ir/plan_only.h"

#include <math.h>
#include <stdio.h>

enum field {
    FIELD_DATA,
    FIELD_TENSOR,
    FIELD_PIPELINE,
    FIELD_CONTEXT,
    FIELD_EXPERT,
    FIELD_VIRTUAL_STAGES,
    FIELD_SEQUENCE,
    FIELD_ZERO,
    FIELD_SHARD,
    FIELD_MICRO_BATCH,
    FIELD_MICRO_BATCHES,
    FIELD_RECOMPUTE,
    FIELD_SCHEDULE,
    FIELD_OFFLOAD,
    FIELD_COUNT
};

static int64_t value_of(const struct layout *layout, enum field field)
{
    const int64_t values[FIELD_COUNT] = {
        [FIELD_DATA] = layout->data,
        [FIELD_TENSOR] = layout->tensor,
        [FIELD_PIPELINE] = layout->pipeline,
        [FIELD_CONTEXT] = layout->context,
        [FIELD_EXPERT] = layout->expert,
        [FIELD_VIRTUAL_STAGES] = layout->virtual_stages,
        [FIELD_SEQUENCE] = layout->sequence_parallel,
        [FIELD_ZERO] = layout->zero_stage,
        [FIELD_SHARD] = layout->shard,
        [FIELD_MICRO_BATCH] = layout->micro_batch,
        [FIELD_MICRO_BATCHES] = layout_micro_batches(layout),
        [FIELD_RECOMPUTE] = layout->recompute,
        [FIELD_SCHEDULE] = layout->schedule,
        [FIELD_OFFLOAD] = (layout->offload_activations ? OFFLOAD_ACTIVATIONS : 0) |
                          (layout->offload_optimizer ? OFFLOAD_OPTIMIZER : 0),
    };
    return values[field];
}

/* What every layout has unless a column of its own says otherwise. */
static bool is_plain(const struct layout *layout, enum field field)
{
    switch (field) {
    case FIELD_EXPERT:
        return layout->expert <= 1;
    case FIELD_SHARD:
        return layout->zero_stage == 0 || layout->shard == layout->data * layout->context;
    case FIELD_SCHEDULE:
        return layout->schedule ==
               (layout->virtual_stages > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B);
    case FIELD_OFFLOAD:
        return !layout->offload_activations && !layout->offload_optimizer;
    default:
        return false;
    }
}

static const struct column {
    const char *head, *key;
    int width; /* < 0: to the left */
    bool is_switch;
    const struct name_list *names; /* NULL: a number, or a switch */
} columns[FIELD_COUNT] = {
    [FIELD_DATA] = {"dp", "data_parallel", 4, false, NULL},
    [FIELD_TENSOR] = {"tp", "tensor_parallel", 4, false, NULL},
    [FIELD_PIPELINE] = {"pp", "pipeline", 4, false, NULL},
    [FIELD_CONTEXT] = {"cp", "context_parallel", 4, false, NULL},
    [FIELD_EXPERT] = {"ep", "expert_parallel", 4, false, NULL},
    [FIELD_VIRTUAL_STAGES] = {"v", "virtual_stages", 3, false, NULL},
    [FIELD_SEQUENCE] = {"sp", "sequence_parallel", 5, true, NULL},
    [FIELD_ZERO] = {"zero", "zero_stage", 4, false, NULL},
    [FIELD_SHARD] = {"shard", "shard", 5, false, NULL},
    [FIELD_MICRO_BATCH] = {"mb", "micro_batch", 5, false, NULL},
    [FIELD_MICRO_BATCHES] = {"count", "micro_batches", 6, false, NULL},
    [FIELD_RECOMPUTE] = {"recompute", "recompute", -10, false, &recompute_names},
    [FIELD_SCHEDULE] = {"schedule", "schedule", -12, false, &schedule_names},
    [FIELD_OFFLOAD] = {"offload", "offload", -11, false, &offload_names},
};

enum { CELL_BYTES = 32 };

/* Of a field with names. */
static const char *words_of(const struct model *model, const struct layout *layout,
                            enum field field)
{
    size_t value = (size_t)value_of(layout, field);
    if (field == FIELD_RECOMPUTE && layout->own != NULL) {
        value = layout->own->modes[0].recompute;
        for (int64_t block = 1; block < model->blocks; block++)
            if (layout->own->modes[block].recompute != layout->own->modes[0].recompute)
                return "by block";
    }
    return name_of(columns[field].names, value);
}

static const char *cell(const struct model *model, const struct layout *layout, enum field field,
                        char out[CELL_BYTES])
{
    int64_t value = value_of(layout, field);
    if (columns[field].names != NULL)
        return words_of(model, layout, field);
    if (columns[field].is_switch)
        return value != 0 ? "on" : "off";
    (void)snprintf(out, CELL_BYTES, "%lld", (long long)value);
    return out;
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
        table.columns |= 1U << FIELD_EXPERT;
    for (size_t i = 0; i < count; i++)
        for (int field = 0; field < FIELD_COUNT; field++)
            if (!is_plain(&rows[i].layout, (enum field)field))
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
    for (int field = 0; field < FIELD_COUNT; field++)
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
    char value[CELL_BYTES];
    for (int field = 0; field < FIELD_COUNT; field++)
        if (table->columns & (1U << field))
            append_cell(columns[field].width,
                        cell(table->model, &row->layout, (enum field)field, value), out);
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

void layout_row_json(const struct model *model, const struct priced_layout *row, double objective,
                     struct jout *out)
{
    unsigned choices = plan_only_choices(&row->layout, model);
    jout_begin_object(out, NULL);
    for (int field = 0; field < FIELD_COUNT; field++) {
        const struct column *column = &columns[field];
        int64_t value = value_of(&row->layout, (enum field)field);
        if (column->names != NULL)
            jout_string(out, column->key, words_of(model, &row->layout, (enum field)field));
        else if (column->is_switch)
            jout_bool(out, column->key, value != 0);
        else
            jout_int(out, column->key, value);
    }
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
    jout_end(out);
}

/* ---- CSV ---- */

/* New columns stand at the end, so that what reads the old ones goes on reading them. */
static const enum field csv_first[] = {
    FIELD_DATA,     FIELD_TENSOR, FIELD_PIPELINE,    FIELD_CONTEXT,       FIELD_VIRTUAL_STAGES,
    FIELD_SEQUENCE, FIELD_ZERO,   FIELD_MICRO_BATCH, FIELD_MICRO_BATCHES, FIELD_RECOMPUTE};
static const enum field csv_last[] = {FIELD_EXPERT, FIELD_SHARD, FIELD_SCHEDULE, FIELD_OFFLOAD};

void layout_csv_head(struct text *out)
{
    for (size_t i = 0; i < COUNT_OF(csv_first); i++)
        text_printf(out, "%s,", columns[csv_first[i]].key);
    text_append(out, "time_s,memory_bytes,energy_j,price,carbon_g");
    for (size_t i = 0; i < COUNT_OF(csv_last); i++)
        text_printf(out, ",%s", columns[csv_last[i]].key);
    text_append(out, ",plan_only\n");
}

static void append_csv_cell(const struct model *model, const struct layout *layout,
                            enum field field, struct text *out)
{
    char value[CELL_BYTES];
    if (columns[field].is_switch)
        text_printf(out, "%d", value_of(layout, field) != 0);
    else
        text_append(out, cell(model, layout, field, value));
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
    text_append(out, "\n");
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
    text_printf(out, ", micro-batch %lld, ZeRO %d, recompute %s", (long long)layout->micro_batch,
                layout->zero_stage, recompute_name(layout->recompute));
}
