#include "cli/compare_answers.h"

#include "cli/comparison.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHOICE_NAME_BYTES = 32 };

struct answer_pair {
    const struct answer_file *a, *b;
    struct comparison comparison;
    char choice_names[LAYOUT_CHOICE_COUNT][CHOICE_NAME_BYTES];
    bool same_work, same_cluster;
};

static double step_tokens(const struct answer_file *file)
{
    return (double)file->question.global_batch * (double)file->question.seq_length;
}

/* ---- what is to be known first ---- */

static void note_clusters(struct comparison *c, const struct answer_question *a,
                          const struct answer_question *b)
{
    if (strcmp(a->cluster_hash, b->cluster_hash) == 0)
        return;
    if (strcmp(a->cluster, b->cluster) != 0)
        comparison_note(c, "the clusters differ: A is on %s (%lld devices), B on %s (%lld)",
                        a->cluster, (long long)a->devices, b->cluster, (long long)b->devices);
    else
        comparison_note(c,
                        "the clusters differ: both are named %s, their descriptions are not the "
                        "same",
                        a->cluster);
}

static void note_stop(struct comparison *c, char side, const struct answer_file *file)
{
    if (file->is_whole)
        return;
    if (isfinite(file->gap))
        comparison_note(c, "%c's search was stopped before its end, with a gap of %.2g %%", side,
                        100 * file->gap);
    else
        comparison_note(c, "%c's search was stopped before its end", side);
}

static void add_notes(struct answer_pair *pair)
{
    struct comparison *c = &pair->comparison;
    const struct answer_question *a = &pair->a->question, *b = &pair->b->question;
    const struct compared_model model_a = {a->model, a->model_hash, a->seq_length};
    const struct compared_model model_b = {b->model, b->model_hash, b->seq_length};
    comparison_note_models(c, &model_a, &model_b);
    note_clusters(c, a, b);
    note_stop(c, 'A', pair->a);
    note_stop(c, 'B', pair->b);
    if (strcmp(pair->a->currency, pair->b->currency) != 0 && pair->a->currency[0] != '\0' &&
        pair->b->currency[0] != '\0')
        comparison_note(c, "prices are in %s and in %s: they are not compared", pair->a->currency,
                        pair->b->currency);
}

/* ---- choices ---- */

/* "micro-batch" as people write it, else the key's words. */
static void choice_words(enum layout_choice choice, char out[CHOICE_NAME_BYTES])
{
    bool is_micro = choice == LAYOUT_MICRO_BATCH || choice == LAYOUT_MICRO_BATCHES;
    (void)snprintf(out, CHOICE_NAME_BYTES, "%s", layout_choice_key(choice));
    for (char *at = strchr(out, '_'); at != NULL; at = strchr(at, '_'))
        *at = is_micro ? '-' : ' ';
}

static void cap_words(uint64_t bytes, char out[UNIT_TEXT_BYTES])
{
    if (bytes == 0)
        (void)snprintf(out, UNIT_TEXT_BYTES, "the device's");
    else
        (void)format_bytes((double)bytes, out);
}

static void add_question(struct answer_pair *pair)
{
    struct comparison *c = &pair->comparison;
    const struct answer_question *a = &pair->a->question, *b = &pair->b->question;
    char words_a[UNIT_TEXT_BYTES], words_b[UNIT_TEXT_BYTES];
    comparison_add_words(c, "model", a->model, b->model);
    comparison_add_number(c, "sequence", a->seq_length, b->seq_length);
    comparison_add_number(c, "global batch", a->global_batch, b->global_batch);
    bool is_named = strcmp(a->cluster, b->cluster) != 0;
    comparison_add_words(c, "cluster", is_named ? a->cluster : a->cluster_hash,
                         is_named ? b->cluster : b->cluster_hash);
    comparison_add_number(c, "devices", a->devices, b->devices);
    comparison_add_words(c, "framework", framework_name(a->framework),
                         framework_name(b->framework));
    if (strchr(a->arithmetic, ',') != NULL || strchr(b->arithmetic, ',') != NULL)
        comparison_add_words(c, "arithmetics to choose", a->arithmetic, b->arithmetic);
    cap_words(a->memory_cap_bytes, words_a);
    cap_words(b->memory_cap_bytes, words_b);
    comparison_add_words(c, "memory cap", words_a, words_b);
    (void)snprintf(words_a, sizeof(words_a), "%g", a->risk);
    (void)snprintf(words_b, sizeof(words_b), "%g", b->risk);
    comparison_add_words(c, "risk", words_a, words_b);
    comparison_add_words(c, "executable only", a->executable ? "yes" : "no",
                         b->executable ? "yes" : "no");
    comparison_add_words(c, "pins", pair->a->pins, pair->b->pins);
}

static void add_choices(struct answer_pair *pair)
{
    struct comparison *c = &pair->comparison;
    add_question(pair);
    for (int i = 0; i < LAYOUT_CHOICE_COUNT; i++) {
        enum layout_choice choice = (enum layout_choice)i;
        if (choice == LAYOUT_SHARD && pair->a->is_plain_shard && pair->b->is_plain_shard)
            continue; /* follows from the degrees */
        choice_words(choice, pair->choice_names[i]);
        comparison_add_words(c, pair->choice_names[i], pair->a->choices[i], pair->b->choices[i]);
    }
    comparison_add_words(c, "plan-only", pair->a->plan_only, pair->b->plan_only);
}

/* ---- stages ---- */

/* The layout as far as block_plan.h asks for it. */
static struct layout staged_layout(const struct answer_file *file)
{
    struct layout layout = {
        .pipeline = file->stages.count,
        .virtual_stages = strtoll(file->choices[LAYOUT_VIRTUAL_STAGES], NULL, 10),
        .own = &file->stages.plan,
    };
    /* Of blocks in the layout's own it is not said. */
    (void)arithmetic_parse(file->choices[LAYOUT_ARITHMETIC], &layout.arithmetic);
    return layout;
}

static void append_stages(const struct answer_file *file, struct text *out)
{
    const struct model model = {.blocks = file->stages.blocks};
    if (file->stages.count == 0) {
        text_append(out, "all blocks do the same, shared out evenly\n");
        return;
    }
    struct layout layout = staged_layout(file);
    block_plan_text(&layout, &model, out);
}

/* Both, one behind the other, if they differ. */
static enum status add_stages(struct answer_pair *pair, struct error *err)
{
    struct comparison *c = &pair->comparison;
    struct text a = {0}, b = {0};
    if (pair->a->stages.count + pair->b->stages.count == 0)
        return STATUS_OK;
    append_stages(pair->a, &a);
    append_stages(pair->b, &b);
    enum status status = text_check(&a, err);
    if (status == STATUS_OK)
        status = text_check(&b, err);
    if (status == STATUS_OK && strcmp(a.data, b.data) != 0)
        text_printf(&c->details, "\nstages of A\n%s\nstages of B\n%s", a.data, b.data);
    text_free(&a);
    text_free(&b);
    return status;
}

/* ---- terms ---- */

static const char *format_percent(double value, char buffer[UNIT_TEXT_BYTES])
{
    (void)snprintf(buffer, UNIT_TEXT_BYTES, "%.2f %%", 100 * value);
    return buffer;
}

static const char *format_plain(double value, char buffer[UNIT_TEXT_BYTES])
{
    (void)snprintf(buffer, UNIT_TEXT_BYTES, "%.4g", value);
    return buffer;
}

static struct compared_term total_of(const char *name, const char *unit, compared_format *format,
                                     const struct quantity *a, double a_scale,
                                     const struct quantity *b, double b_scale)
{
    struct compared_term total = {.is_judged = true,
                                  .unit = unit,
                                  .format = format,
                                  .a = comparison_scaled(*a, a_scale),
                                  .b = comparison_scaled(*b, b_scale)};
    (void)snprintf(total.name, sizeof(total.name), "%s", name);
    return total;
}

static void add_rates(struct answer_pair *pair)
{
    struct comparison *c = &pair->comparison;
    const struct answer_file *a = pair->a, *b = pair->b;
    double a_tokens = step_tokens(a), b_tokens = step_tokens(b);
    struct compared_term mfu = {.name = "MFU",
                                .is_more_better = true,
                                .unit = "share",
                                .format = format_percent,
                                .a = {a->mfu, 0, PROVENANCE_MODELLED},
                                .b = {b->mfu, 0, PROVENANCE_MODELLED}};
    comparison_add_rate(c, "throughput", false, &a->terms.time_s, a_tokens, &b->terms.time_s,
                        b_tokens);
    if (a->question.devices != b->question.devices)
        comparison_add_rate(c, "throughput of a device", true, &a->terms.time_s,
                            a_tokens / (double)a->question.devices, &b->terms.time_s,
                            b_tokens / (double)b->question.devices);
    comparison_add_total(c, &mfu);
}

/* Where one of them is known. */
static void add_costs(struct answer_pair *pair, double a_scale, double b_scale)
{
    struct comparison *c = &pair->comparison;
    const struct layout_prediction *a = &pair->a->terms, *b = &pair->b->terms;
    const char *currency = pair->a->currency[0] != '\0' ? pair->a->currency : pair->b->currency;
    bool is_one_currency = pair->a->currency[0] == '\0' || pair->b->currency[0] == '\0' ||
                           strcmp(pair->a->currency, pair->b->currency) == 0;
    char name[COMPARED_NAME_BYTES];
    (void)snprintf(name, sizeof(name), "price (%s)", currency);
    struct compared_term price =
        total_of(name, currency, format_plain, &a->price, a_scale, &b->price, b_scale);
    struct compared_term carbon = total_of("carbon (g CO2e)", "g", format_plain, &a->carbon_g,
                                           a_scale, &b->carbon_g, b_scale);
    bool has_price =
        a->price.provenance != PROVENANCE_ABSENT || b->price.provenance != PROVENANCE_ABSENT;
    if (has_price && is_one_currency)
        comparison_add_total(c, &price);
    if (a->carbon_g.provenance != PROVENANCE_ABSENT || b->carbon_g.provenance != PROVENANCE_ABSENT)
        comparison_add_total(c, &carbon);
}

static void add_terms(struct answer_pair *pair)
{
    struct comparison *c = &pair->comparison;
    const struct layout_prediction *a = &pair->a->terms, *b = &pair->b->terms;
    double a_scale = comparison_scale(c, step_tokens(pair->a));
    double b_scale = comparison_scale(c, step_tokens(pair->b));
    struct compared_term time =
        total_of("time", "s", format_seconds, &a->time_s, a_scale, &b->time_s, b_scale);
    struct compared_term memory = total_of("memory of a device", "bytes", format_bytes,
                                           &a->memory_bytes, 1, &b->memory_bytes, 1);
    struct compared_term energy = total_of("energy of all devices", "J", format_joules,
                                           &a->energy_j, a_scale, &b->energy_j, b_scale);
    int time_place = comparison_add_total(c, &time);
    comparison_add_parts(c, &phase_names, a->phase_time_s, a_scale, b->phase_time_s, b_scale);
    add_rates(pair);
    int memory_place = comparison_add_total(c, &memory);
    comparison_add_parts(c, &memory_term_names, a->memory_term_bytes, 1, b->memory_term_bytes, 1);
    int energy_place = comparison_add_total(c, &energy);
    add_costs(pair, a_scale, b_scale);
    comparison_decide(c, time_place, memory_place, energy_place);
}

static struct compared_aim aim_of(const struct answer_file *file)
{
    const struct layout_weights *weights = &file->question.weights;
    return (struct compared_aim){
        .time = weights->time,
        .memory = weights->memory,
        .energy = weights->energy,
        .raw = weights->raw,
        .time_unit_s = file->units.time_s,
        .memory_unit_bytes = file->units.memory_bytes,
        .energy_unit_j = file->units.energy_j,
        .gap = file->gap,
    };
}

/* ---- all ---- */

static enum status compare(struct answer_pair *pair, struct error *err)
{
    const struct answer_question *a = &pair->a->question, *b = &pair->b->question;
    struct comparison *c = &pair->comparison;
    comparison_begin(c, json_root(pair->a->document).file, json_root(pair->b->document).file,
                     step_tokens(pair->a), step_tokens(pair->b));
    add_notes(pair);
    c->aim_a = aim_of(pair->a);
    c->aim_b = aim_of(pair->b);
    pair->same_cluster = strcmp(a->cluster_hash, b->cluster_hash) == 0;
    pair->same_work =
        c->same_model && a->seq_length == b->seq_length && a->global_batch == b->global_batch;
    add_terms(pair);
    add_choices(pair);
    return add_stages(pair, err);
}

static void stages_json(const char *key, const struct answer_file *file, struct jout *out)
{
    const struct model model = {.blocks = file->stages.blocks};
    if (file->stages.count == 0) {
        jout_null(out, key);
        return;
    }
    struct layout layout = staged_layout(file);
    jout_begin_object(out, key);
    block_plan_write(&layout, &model, out);
    jout_end(out);
}

static void write_more(const void *user, struct jout *out)
{
    const struct answer_pair *pair = user;
    jout_bool(out, "same_work", pair->same_work);
    jout_bool(out, "same_cluster", pair->same_cluster);
    stages_json("stages_a", pair->a, out);
    stages_json("stages_b", pair->b, out);
}

enum status compare_answers(const struct answer_file *a, const struct answer_file *b, bool json,
                            struct error *err)
{
    struct answer_pair *pair = calloc(1, sizeof(*pair));
    if (pair == NULL)
        return error_memory(err, sizeof(*pair), "the comparison");
    pair->a = a;
    pair->b = b;
    enum status status = compare(pair, err);
    if (status == STATUS_OK)
        status = json ? comparison_print_json(&pair->comparison, write_more, pair, err)
                      : comparison_print_text(&pair->comparison, err);
    comparison_clear(&pair->comparison);
    free(pair);
    return status;
}
