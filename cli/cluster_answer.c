#include "cli/cluster_answer.h"

#include "base/hash.h"
#include "base/stats.h"
#include "base/units.h"
#include "cli/answer_file.h"
#include "cli/cli.h"
#include "cli/cluster_explain.h"
#include "cli/layout_export.h"
#include "cli/layout_rows.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cluster_plan_head(const struct cluster_plan_options *options, const struct cluster *cluster,
                       struct text *out)
{
    const struct model *model = options->model;
    text_printf(out, "%s: %lld blocks, hidden %lld, sequence %lld tokens, vocab %lld\n",
                model->name, (long long)model->blocks, (long long)model->hidden,
                (long long)model->seq_length, (long long)model->vocab);
    text_printf(out, "cluster %s: %lld x %s; %s, %s; global batch %lld\n\n", cluster->name,
                (long long)cluster_devices(cluster), cluster->groups[0].device.name,
                options->framework, options->arithmetic, (long long)options->global_batch);
}

/* What the user's figures make of the energy and the hours. */
static void append_costs(const struct cluster *cluster, const struct layout_prediction *prediction,
                         struct text *out)
{
    if (prediction->price.provenance != PROVENANCE_ABSENT)
        text_printf(out, "  %-24s %12.4g %s\n", "price of a step", prediction->price.value,
                    cluster->currency);
    if (prediction->carbon_g.provenance != PROVENANCE_ABSENT)
        text_printf(out, "  %-24s %12.4g g CO2e (intensity of %s)\n", "carbon of a step",
                    prediction->carbon_g.value, cluster->carbon_date);
}

static void append_terms(const struct layout_prediction *prediction, double risk, struct text *out)
{
    char text[UNIT_TEXT_BYTES], label[48];
    const struct quantity *memory = &prediction->memory_bytes;
    double held_bytes = memory->value + normal_deviations(risk) * memory->deviation;
    text_printf(out, "\n  predicted, one training step (modelled)\n  %-24s %12s\n", "time",
                format_seconds(prediction->time_s.value, text));
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        if (prediction->phase_time_s[phase].value > 0)
            text_printf(out, "    %-22s %12s\n", phase_name((enum phase)phase),
                        format_seconds(prediction->phase_time_s[phase].value, text));
    text_printf(out, "  %-24s %12s\n", "memory of a device", format_bytes(memory->value, text));
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        text_printf(out, "    %-22s %12s\n", memory_term_name((enum memory_term)term),
                    format_bytes(prediction->memory_term_bytes[term].value, text));
    (void)snprintf(label, sizeof(label), "in all but %g %% of runs", 100 * risk);
    text_printf(out, "    %-22s %12s\n", label, format_bytes(held_bytes, text));
    if (prediction->energy_j.provenance != PROVENANCE_ABSENT)
        text_printf(out, "  %-24s %12s\n", "energy of all devices",
                    format_joules(prediction->energy_j.value, text));
}

/* ---- the rows: the tailored layout, if one is better, then uniform ones ---- */

struct shown {
    struct priced_layout *rows; /* [count], owned */
    double *objectives;         /* [count], owned */
    size_t count;
};

/* All that is told. */
struct telling {
    const struct cluster_plan_options *options;
    const struct cluster *cluster;
    const struct cluster_answer *answer;
    const struct cluster_explanation *explanation; /* NULL: none */
    const struct shown *shown;
    struct layout_prediction best;
};

static void shown_free(struct shown *shown)
{
    free(shown->rows);
    free(shown->objectives);
}

static enum status show(const struct cluster_answer *answer, size_t most, struct shown *out,
                        struct error *err)
{
    size_t first = answer->tailored.found ? 1 : 0, count = answer->uniform.count + first;
    *out = (struct shown){.count = count < most ? count : most};
    out->rows = calloc(count, sizeof(*out->rows));
    out->objectives = calloc(count, sizeof(*out->objectives));
    if (out->rows == NULL || out->objectives == NULL) {
        shown_free(out);
        return error_memory(err, count * sizeof(*out->rows), "the layouts");
    }
    if (first > 0) {
        out->rows[0] = answer->tailored.priced;
        out->objectives[0] = answer->tailored.objective;
    }
    for (size_t i = first; i < out->count; i++) {
        out->rows[i] = answer->uniform.rows[i - first];
        out->objectives[i] = answer->objectives[i - first];
    }
    return STATUS_OK;
}

/* ---- in words ---- */

/* What is known of the optimum. */
static void append_proof(const struct cluster_plan_options *options,
                         const struct cluster_answer *answer, struct text *out)
{
    const struct tailored *tailored = &answer->tailored;
    const struct layout_list *list = &answer->uniform;
    const char *space = options->executable ? " that temper run could execute" : "";
    double gap = cluster_answer_gap(answer);
    if (list->considered > 0)
        text_printf(out, "%llu uniform layouts%s priced, %zu fit; ",
                    (unsigned long long)list->considered, space, list->count);
    text_printf(out, "%llu shapes for blocks that differ: %llu bounded away, %llu solved\n",
                (unsigned long long)tailored->shapes, (unsigned long long)tailored->bounded_away,
                (unsigned long long)tailored->solved);
    if (gap <= 0)
        text_append(out, "the first layout is optimal");
    else if (answer->bound > 0)
        text_printf(out, "the first layout is at most %.2g %% above the optimum", 100 * gap);
    else
        text_append(out, "how far from optimal the first layout is, is not known");
    text_printf(out, "%s\n", answer->is_whole ? "" : ": the search was stopped");
}

static void append_gain(const struct cluster_answer *answer, struct text *out)
{
    if (!answer->tailored.found || answer->uniform.count == 0)
        return;
    text_printf(out, "  %-24s %11.2f %%\n", "gain over uniform",
                100 * (answer->objectives[0] / answer->objective - 1));
}

static void append_answer(const struct telling *telling, struct text *out)
{
    const struct cluster_plan_options *options = telling->options;
    const struct shown *shown = telling->shown;
    const struct layout_prediction *best = &telling->best;
    int64_t tokens = options->global_batch * options->model->seq_length;
    struct layout_table table =
        layout_table_of(telling->cluster, options->model, shown->rows, shown->count, 0);
    char rate[UNIT_TEXT_BYTES];
    cluster_plan_head(options, telling->cluster, out);
    if (strchr(options->arithmetic, ',') != NULL)
        table.columns |= 1U << LAYOUT_ARITHMETIC;
    layout_table_head(&table, out);
    for (size_t i = 0; i < shown->count; i++)
        layout_table_row(&table, &shown->rows[i], shown->objectives[i] / shown->objectives[0] - 1,
                         out);
    if (telling->answer->tailored.found) {
        text_append(out, "\n");
        block_plan_text(&shown->rows[0].layout, options->model, out);
    }
    append_terms(best, options->risk, out);
    append_costs(telling->cluster, best, out);
    text_printf(out, "  %-24s %12s tokens/s, MFU %.1f %%\n", "throughput",
                format_count((double)tokens / best->time_s.value, rate), 100 * best->mfu);
    append_gain(telling->answer, out);
    text_append(out, "\n");
    append_proof(options, telling->answer, out);
    if (telling->explanation != NULL)
        cluster_explain_text(telling->explanation, out);
}

static enum status print_answer(const struct telling *telling, struct error *err)
{
    struct text out = {0};
    append_answer(telling, &out);
    enum status status = text_check(&out, err);
    if (status == STATUS_OK)
        fputs(out.data, stdout);
    text_free(&out);
    return status;
}

/* ---- as JSON ---- */

static void write_proof(const struct cluster_answer *answer, struct jout *out)
{
    const struct tailored *tailored = &answer->tailored;
    double gap = cluster_answer_gap(answer);
    jout_int(out, "considered", (int64_t)answer->uniform.considered);
    jout_int(out, "fitting", (int64_t)answer->uniform.count);
    jout_int(out, "shapes", (int64_t)tailored->shapes);
    jout_int(out, "bounded_away", (int64_t)tailored->bounded_away);
    jout_int(out, "solved", (int64_t)tailored->solved);
    jout_int(out, "columns", (int64_t)tailored->columns);
    jout_bool(out, "whole", answer->is_whole);
    jout_real(out, "objective", answer->objective);
    jout_real(out, "bound", answer->bound);
    jout_real(out, "gap", gap);
    jout_bool(out, "optimal", gap <= 0);
}

static void write_question(const struct telling *telling, struct jout *out)
{
    const struct cluster_plan_options *options = telling->options;
    struct answer_question question = {
        .devices = cluster_devices(telling->cluster),
        .global_batch = options->global_batch,
        .seq_length = options->model->seq_length,
        .framework = telling->shown->rows[0].layout.framework,
        .memory_cap_bytes = options->memory_cap_bytes,
        .risk = options->risk,
        .executable = options->executable,
        .weights = options->weights,
    };
    (void)snprintf(question.cluster, sizeof(question.cluster), "%s", telling->cluster->name);
    (void)snprintf(question.model, sizeof(question.model), "%s", options->model->name);
    (void)snprintf(question.arithmetic, sizeof(question.arithmetic), "%s", options->arithmetic);
    hash_format(cluster_hash(telling->cluster), question.cluster_hash);
    hash_format(model_hash(options->model), question.model_hash);
    answer_question_write(&question, options->pins_text, &telling->answer->units, out);
}

/* `exported` NULL: nothing was. */
static enum status write_answer(const struct telling *telling, const struct exported *exported,
                                struct error *err)
{
    const struct cluster_plan_options *options = telling->options;
    const struct shown *shown = telling->shown;
    const struct layout_prediction *best = &telling->best;
    const char *currency = telling->cluster->currency;
    struct jout *out = jout_new();
    write_question(telling, out);
    write_proof(telling->answer, out);
    jout_real(out, "time_s", best->time_s.value);
    jout_real(out, "memory_bytes", best->memory_bytes.value);
    jout_real(out, "mfu", best->mfu);
    write_quantity("price", &best->price, out);
    write_quantity("carbon_g", &best->carbon_g, out);
    jout_string(out, "currency", currency[0] != '\0' ? currency : NULL);
    answer_terms_write(best, out);
    if (telling->answer->tailored.found)
        block_plan_write(&shown->rows[0].layout, options->model, out);
    jout_begin_array(out, "layouts");
    for (size_t i = 0; i < shown->count; i++)
        layout_row_json(options->model, &shown->rows[i], shown->objectives[i], out);
    jout_end(out);
    if (telling->explanation != NULL)
        cluster_explain_json(telling->explanation, out);
    if (exported != NULL)
        exported_json(exported, out);
    return console_json(out, err);
}

/* ---- all of it ---- */

static enum status print_export(const struct exported *exported, struct error *err)
{
    struct text text = {0};
    exported_text(exported, &text);
    enum status status = text_check(&text, err);
    if (status == STATUS_OK)
        printf("\n%s", text.data);
    text_free(&text);
    return status;
}

static enum status tell_export(const struct telling *telling, struct error *err)
{
    const struct cluster_plan_options *options = telling->options;
    struct exported exported;
    const struct layout_handover handover = {
        .cluster = telling->cluster,
        .model = options->model,
        .layout = &telling->shown->rows[0].layout,
        .weights = &options->weights,
        .units = &telling->answer->units,
        .memory_cap_bytes = options->memory_cap_bytes,
        .risk = options->risk,
    };
    TRY(layout_export(options->handover, &handover, &exported, err));
    enum status status =
        options->json ? write_answer(telling, &exported, err) : print_export(&exported, err);
    exported_free(&exported);
    return status;
}

static enum status tell(const struct telling *telling, struct error *err)
{
    const struct cluster_plan_options *options = telling->options;
    if (!options->json)
        TRY(print_answer(telling, err));
    if (options->handover->wanted)
        return tell_export(telling, err);
    return options->json ? write_answer(telling, NULL, err) : STATUS_OK;
}

enum status cluster_answer_tell(const struct cluster_plan_options *options,
                                const struct cluster *cluster, const struct cluster_answer *answer,
                                const struct cluster_explanation *explanation, struct error *err)
{
    const struct layout *best = &cluster_answer_best(answer)->layout;
    struct telling telling = {
        .options = options, .cluster = cluster, .answer = answer, .explanation = explanation};
    struct shown shown;
    TRY(layout_predict(cluster, options->model, best, &telling.best, err));
    TRY(show(answer, (size_t)options->top, &shown, err));
    telling.shown = &shown;
    enum status status = tell(&telling, err);
    shown_free(&shown);
    return status;
}
