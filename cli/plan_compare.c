#include "cli/plan_compare.h"
#include "base/units.h"
#include "cli/cli.h"
#include "ir/names.h"
#include "ir/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_BYTES = 32,
    WORD_BYTES = 48,
    CHOICES_MAX = 24,
    TERMS_MAX = 4 + 2 * PHASE_COUNT + MEMORY_TERM_COUNT,
};

typedef const char *format_function(double value, char buffer[UNIT_TEXT_BYTES]);

/* ---- what is compared ---- */

/* A total, or one of the terms that follow it and add up to it. */
struct compared_term {
    const char *name;
    bool is_total;
    bool is_more_better; /* else less is */
    const char *unit;
    format_function *format;
    struct quantity a, b;
};

/* Of the whole plan. */
struct compared_choice {
    const char *name;
    char a[PLAN_PINS_BYTES], b[PLAN_PINS_BYTES];
};

struct plan_pair {
    const char *path_a, *path_b;
    struct plan a, b;
    struct compared_term terms[TERMS_MAX];
    size_t term_count;
    struct compared_choice choices[CHOICES_MAX]; /* those that differ */
    size_t choice_count;
    bool same_layers;  /* the models have the same chain of kinds */
    bool same_work;    /* and the same batch and sequence: a step is the same */
    bool same_profile; /* the same measurements */
};

static const char *format_rate(double value, char buffer[UNIT_TEXT_BYTES])
{
    (void)snprintf(buffer, UNIT_TEXT_BYTES, "%.0f tok/s", value);
    return buffer;
}

static bool is_known(const struct compared_term *term)
{
    return term->a.provenance != PROVENANCE_ABSENT && term->b.provenance != PROVENANCE_ABSENT;
}

static double difference(const struct compared_term *term)
{
    return term->b.value - term->a.value;
}

static void add_term(struct plan_pair *pair, const struct compared_term *term)
{
    if (pair->term_count < TERMS_MAX)
        pair->terms[pair->term_count++] = *term;
}

static struct quantity throughput(const struct plan *plan)
{
    double tokens = (double)plan->global_batch * (double)plan->model.seq_length;
    struct quantity time_s = plan->prediction.time_s;
    if (time_s.provenance == PROVENANCE_ABSENT || time_s.value <= 0)
        return quantity_absent();
    return (struct quantity){.value = tokens / time_s.value, .provenance = time_s.provenance};
}

/* The terms of the total before them, named by `names` and of its unit. */
static void add_parts(struct plan_pair *pair, const struct name_list *names,
                      const struct quantity *a, const struct quantity *b)
{
    struct compared_term term = pair->terms[pair->term_count - 1];
    term.is_total = false;
    for (size_t i = 0; i < names->count; i++) {
        term.name = name_of(names, i);
        term.a = a[i];
        term.b = b[i];
        add_term(pair, &term);
    }
}

static void add_terms(struct plan_pair *pair)
{
    const struct prediction *a = &pair->a.prediction, *b = &pair->b.prediction;
    const struct compared_term time = {"time",         true,      false,    "s",
                                       format_seconds, a->time_s, b->time_s};
    const struct compared_term rate = {"throughput",        true,        true,
                                       "tokens/s",          format_rate, throughput(&pair->a),
                                       throughput(&pair->b)};
    const struct compared_term memory = {
        "memory of a rank", true, false, "bytes", format_bytes, a->memory_bytes, b->memory_bytes};
    const struct compared_term energy = {"energy of all ranks", true,        false,      "J",
                                         format_joules,         a->energy_j, b->energy_j};
    add_term(pair, &time);
    add_parts(pair, &phase_names, a->phase_time_s, b->phase_time_s);
    add_term(pair, &rate);
    add_term(pair, &memory);
    add_parts(pair, &memory_term_names, a->memory_term_bytes, b->memory_term_bytes);
    add_term(pair, &energy);
    if (is_known(&energy))
        add_parts(pair, &phase_names, a->phase_energy_j, b->phase_energy_j);
}

static void add_words(struct plan_pair *pair, const char *name, const char *a, const char *b)
{
    if (strcmp(a, b) == 0 || pair->choice_count == CHOICES_MAX)
        return;
    struct compared_choice *choice = &pair->choices[pair->choice_count++];
    choice->name = name;
    (void)snprintf(choice->a, sizeof(choice->a), "%s", a);
    (void)snprintf(choice->b, sizeof(choice->b), "%s", b);
}

static void add_number(struct plan_pair *pair, const char *name, long long a, long long b)
{
    char words_a[WORD_BYTES], words_b[WORD_BYTES];
    (void)snprintf(words_a, sizeof(words_a), "%lld", a);
    (void)snprintf(words_b, sizeof(words_b), "%lld", b);
    add_words(pair, name, words_a, words_b);
}

/* Where each virtual stage begins: "0,4,9". */
static void stage_words(const struct plan *plan, char out[WORD_BYTES])
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < plan->layer_count && used < WORD_BYTES; i++) {
        if (i > 0 && plan->layers[i].stage == plan->layers[i - 1].stage)
            continue;
        int written = snprintf(out + used, WORD_BYTES - used, "%s%zu", i > 0 ? "," : "", i);
        used += written > 0 ? (size_t)written : 0;
    }
}

static void cap_words(const struct plan *plan, char out[UNIT_TEXT_BYTES])
{
    if (plan->memory_cap_bytes == 0)
        (void)snprintf(out, UNIT_TEXT_BYTES, "none");
    else
        (void)format_bytes((double)plan->memory_cap_bytes, out);
}

static void add_choices(struct plan_pair *pair)
{
    const struct plan *a = &pair->a, *b = &pair->b;
    char words_a[WORD_BYTES], words_b[WORD_BYTES], cap_a[UNIT_TEXT_BYTES], cap_b[UNIT_TEXT_BYTES];
    add_words(pair, "model", a->model.name, b->model.name);
    add_number(pair, "blocks", a->model.blocks, b->model.blocks);
    add_number(pair, "hidden", a->model.hidden, b->model.hidden);
    add_number(pair, "sequence", a->model.seq_length, b->model.seq_length);
    add_number(pair, "global batch", a->global_batch, b->global_batch);
    add_words(pair, "host", a->host, b->host);
    cap_words(a, cap_a);
    cap_words(b, cap_b);
    add_words(pair, "memory cap", cap_a, cap_b);
    add_words(pair, "pins", a->pins, b->pins);
    add_number(pair, "ranks", a->ranks, b->ranks);
    add_number(pair, "threads a rank", a->threads, b->threads);
    add_number(pair, "data parallel", a->data_parallel, b->data_parallel);
    add_number(pair, "tensor parallel", a->tensor_parallel, b->tensor_parallel);
    add_number(pair, "pipeline", a->pipeline, b->pipeline);
    add_words(pair, "schedule", schedule_name(a->schedule), schedule_name(b->schedule));
    add_number(pair, "virtual stages", a->virtual_stages, b->virtual_stages);
    add_number(pair, "micro-batch", a->micro_batch, b->micro_batch);
    add_number(pair, "micro-batches", a->micro_batches, b->micro_batches);
    stage_words(a, words_a);
    stage_words(b, words_b);
    add_words(pair, "stages begin at layer", words_a, words_b);
}

static void compare(struct plan_pair *pair)
{
    const struct plan *a = &pair->a, *b = &pair->b;
    pair->same_layers = a->layer_count == b->layer_count;
    for (size_t i = 0; pair->same_layers && i < a->layer_count; i++)
        pair->same_layers = model_layer(&a->model, i).kind == model_layer(&b->model, i).kind;
    pair->same_work = strcmp(a->model_hash, b->model_hash) == 0 && pair->same_layers &&
                      a->global_batch == b->global_batch &&
                      a->model.seq_length == b->model.seq_length;
    pair->same_profile = strcmp(a->profile_hash, b->profile_hash) == 0;
    add_terms(pair);
    add_choices(pair);
}

/* ---- layers ---- */

static bool same_strategy(const struct layer_strategy *a, const struct layer_strategy *b)
{
    return a->tensor_parallel == b->tensor_parallel &&
           a->sequence_parallel == b->sequence_parallel && a->zero_stage == b->zero_stage &&
           a->recompute == b->recompute && a->precision == b->precision;
}

/* A run of blocks whose layers of one kind change in the same way. */
struct layer_run {
    enum layer_kind kind;
    size_t first, last; /* layers of the chain */
};

/* Is layer `i` of the run's kind, and changed as the run's first? */
static bool continues(const struct plan_pair *pair, const struct layer_run *run, size_t i)
{
    return i < pair->a.layer_count && model_layer(&pair->a.model, i).kind == run->kind &&
           same_strategy(&pair->a.layers[i], &pair->a.layers[run->first]) &&
           same_strategy(&pair->b.layers[i], &pair->b.layers[run->first]);
}

/* The first changed run of the kind at or behind `from`. */
static bool next_run(const struct plan_pair *pair, enum layer_kind kind, size_t from,
                     struct layer_run *out)
{
    for (size_t i = from; i < pair->a.layer_count; i++) {
        if (model_layer(&pair->a.model, i).kind != kind ||
            same_strategy(&pair->a.layers[i], &pair->b.layers[i]))
            continue;
        *out = (struct layer_run){kind, i, i};
        /* Attention and MLP alternate: the next of the kind is two on. */
        while (continues(pair, out, out->last + 2))
            out->last += 2;
        return true;
    }
    return false;
}

static void strategy_words(const struct layer_strategy *strategy, char out[2 * WORD_BYTES])
{
    (void)snprintf(out, (size_t)2 * WORD_BYTES, "tensor %d%s, zero %d, %s, recompute %s",
                   strategy->tensor_parallel, strategy->sequence_parallel ? " + sequence" : "",
                   strategy->zero_stage, precision_name(strategy->precision),
                   recompute_name(strategy->recompute));
}

static void append_run(const struct plan_pair *pair, const struct layer_run *run, struct text *out)
{
    char a[2 * WORD_BYTES], b[2 * WORD_BYTES], blocks[WORD_BYTES] = "";
    long long first = model_layer(&pair->a.model, run->first).block;
    long long last = model_layer(&pair->a.model, run->last).block;
    bool has_block = run->kind == LAYER_ATTENTION || run->kind == LAYER_MLP;
    if (has_block && first == last)
        (void)snprintf(blocks, sizeof(blocks), "block %lld", first);
    else if (has_block)
        (void)snprintf(blocks, sizeof(blocks), "blocks %lld-%lld", first, last);
    strategy_words(&pair->a.layers[run->first], a);
    strategy_words(&pair->b.layers[run->first], b);
    text_printf(out, "  %-10s %-14s A: %s\n  %-10s %-14s B: %s\n", layer_kind_name(run->kind),
                blocks, a, "", "", b);
}

static void append_layers(const struct plan_pair *pair, struct text *out)
{
    bool differs = false;
    struct layer_run run;
    if (!pair->same_layers) {
        text_append(out, "\nlayers: the models have other layers; their strategies are not "
                         "compared\n");
        return;
    }
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        for (size_t from = 0; next_run(pair, (enum layer_kind)kind, from, &run);
             from = run.last + 1) {
            if (!differs)
                text_append(out, "\nlayers that differ\n");
            differs = true;
            append_run(pair, &run, out);
        }
    }
    if (!differs)
        text_append(out, "\nlayers: all have the same strategy in both\n");
}

/* ---- text ---- */

static const char *cell(const struct compared_term *term, const struct quantity *quantity,
                        char buffer[UNIT_TEXT_BYTES])
{
    return quantity->provenance == PROVENANCE_ABSENT ? "absent"
                                                     : term->format(quantity->value, buffer);
}

static void append_term(const struct compared_term *term, struct text *out)
{
    char a[UNIT_TEXT_BYTES], b[UNIT_TEXT_BYTES], change[UNIT_TEXT_BYTES];
    char signed_change[UNIT_TEXT_BYTES + 1];
    text_printf(out, "  %s%-*s %14s %14s", term->is_total ? "" : "  ", term->is_total ? 22 : 20,
                term->name, cell(term, &term->a, a), cell(term, &term->b, b));
    if (!is_known(term)) {
        text_append(out, "\n");
        return;
    }
    double more = difference(term);
    (void)snprintf(signed_change, sizeof(signed_change), "%s%s", more > 0 ? "+" : "",
                   term->format(more, change));
    text_printf(out, " %15s", signed_change);
    if (term->a.value != 0)
        text_printf(out, "  %+8.2f %%", 100 * more / fabs(term->a.value));
    text_append(out, "\n");
}

/* Terms of a total by how much they speak for the winner; `sign` of differences that do. */
static void append_reasons(const struct compared_term *terms, size_t count, double sign,
                           const char *words, struct text *out)
{
    enum { REASONS_MAX = 3 };
    bool told[TERMS_MAX] = {false};
    for (int reason = 0; reason < REASONS_MAX; reason++) {
        size_t best = count;
        char change[UNIT_TEXT_BYTES];
        for (size_t i = 0; i < count; i++) {
            if (!told[i] && is_known(&terms[i]) && sign * difference(&terms[i]) > 0 &&
                (best == count || sign * difference(&terms[i]) > sign * difference(&terms[best])))
                best = i;
        }
        if (best == count)
            return;
        told[best] = true;
        text_printf(out, "%s %s %s%s", reason == 0 ? words : ",", terms[best].name,
                    difference(&terms[best]) > 0 ? "+" : "",
                    terms[best].format(difference(&terms[best]), change));
    }
}

static size_t term_end(const struct plan_pair *pair, size_t total)
{
    size_t end = total + 1;
    while (end < pair->term_count && !pair->terms[end].is_total)
        end++;
    return end;
}

/* 'A', 'B', or '=' where the total is the same in both. */
static char better_of(const struct compared_term *total)
{
    double more = difference(total);
    if (fabs(more) <= 1e-12 * fabs(total->a.value))
        return '=';
    return (more < 0) != total->is_more_better ? 'B' : 'A';
}

static void append_verdicts(const struct plan_pair *pair, struct text *out)
{
    text_append(out, "\n");
    for (size_t i = 0; i < pair->term_count; i++) {
        const struct compared_term *total = &pair->terms[i];
        size_t end = term_end(pair, i);
        char change[UNIT_TEXT_BYTES];
        if (!total->is_total || end == i + 1 || !is_known(total))
            continue;
        char better = better_of(total);
        if (better == '=') {
            text_printf(out, "%s: the same\n", total->name);
            continue;
        }
        double least = fmin(total->a.value, total->b.value);
        double sign = difference(total) < 0 ? -1 : 1;
        text_printf(out, "%s: %c takes %s less", total->name, better,
                    total->format(fabs(difference(total)), change));
        if (least > 0)
            text_printf(out, " (%.2f %% of %c's)",
                        100 * fabs(difference(total)) / fmax(total->a.value, total->b.value),
                        better == 'A' ? 'B' : 'A');
        append_reasons(total + 1, end - i - 1, sign, ". From A to B", out);
        append_reasons(total + 1, end - i - 1, -sign, "; the other way", out);
        text_append(out, "\n");
    }
}

static void append_warnings(const struct plan_pair *pair, struct text *out)
{
    if (!pair->same_work)
        text_append(out, "the two do not train the same step: compare throughput, not time and "
                         "energy\n");
    if (!pair->same_profile)
        text_append(out, "predicted from different measurements: part of the difference may be "
                         "theirs\n");
}

static void append_all(const struct plan_pair *pair, struct text *out)
{
    text_printf(out, "A: %s\nB: %s\n", pair->path_a, pair->path_b);
    append_warnings(pair, out);
    text_printf(out, "\n  %-22s %14s %14s  %14s  %10s\n", "predicted, one step", "A", "B", "B - A",
                "of A");
    for (size_t i = 0; i < pair->term_count; i++)
        append_term(&pair->terms[i], out);
    append_verdicts(pair, out);
    if (pair->choice_count > 0)
        text_printf(out, "\nchoices that differ\n  %-22s %-24s %s\n", "", "A", "B");
    for (size_t i = 0; i < pair->choice_count; i++) {
        const struct compared_choice *choice = &pair->choices[i];
        text_printf(out, "  %-22s %-24s %s\n", choice->name, choice->a[0] ? choice->a : "none",
                    choice->b[0] ? choice->b : "none");
    }
    append_layers(pair, out);
}

/* ---- JSON ---- */

static void terms_json(const struct plan_pair *pair, struct jout *out)
{
    const char *total = "";
    jout_begin_array(out, "terms");
    for (size_t i = 0; i < pair->term_count; i++) {
        const struct compared_term *term = &pair->terms[i];
        if (term->is_total)
            total = term->name;
        jout_begin_object(out, NULL);
        jout_string(out, "total", total);
        jout_string(out, "term", term->is_total ? NULL : term->name);
        jout_string(out, "unit", term->unit);
        write_quantity("a", &term->a, out);
        write_quantity("b", &term->b, out);
        jout_real(out, "difference", is_known(term) ? difference(term) : NAN);
        if (term->is_total) {
            char better = is_known(term) ? better_of(term) : '=';
            jout_string(out, "better", better == 'A' ? "a" : better == 'B' ? "b" : NULL);
        }
        jout_end(out);
    }
    jout_end(out);
}

static void strategy_json(const struct layer_strategy *strategy, const char *key, struct jout *out)
{
    jout_begin_object(out, key);
    jout_int(out, "tensor_parallel", strategy->tensor_parallel);
    jout_bool(out, "sequence_parallel", strategy->sequence_parallel);
    jout_int(out, "zero_stage", strategy->zero_stage);
    jout_string(out, "recompute", recompute_name(strategy->recompute));
    jout_string(out, "precision", precision_name(strategy->precision));
    jout_end(out);
}

static void layers_json(const struct plan_pair *pair, struct jout *out)
{
    struct layer_run run;
    if (!pair->same_layers) {
        jout_null(out, "layers");
        return;
    }
    jout_begin_array(out, "layers");
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        for (size_t from = 0; next_run(pair, (enum layer_kind)kind, from, &run);
             from = run.last + 1) {
            jout_begin_object(out, NULL);
            jout_string(out, "kind", layer_kind_name(run.kind));
            jout_int(out, "first_layer", (int64_t)run.first);
            jout_int(out, "last_layer", (int64_t)run.last);
            strategy_json(&pair->a.layers[run.first], "a", out);
            strategy_json(&pair->b.layers[run.first], "b", out);
            jout_end(out);
        }
    }
    jout_end(out);
}

static enum status tell_json(const struct plan_pair *pair, struct error *err)
{
    struct jout *out = jout_new();
    jout_string(out, "a", pair->path_a);
    jout_string(out, "b", pair->path_b);
    jout_bool(out, "same_work", pair->same_work);
    jout_bool(out, "same_profile", pair->same_profile);
    terms_json(pair, out);
    jout_begin_array(out, "choices");
    for (size_t i = 0; i < pair->choice_count; i++) {
        jout_begin_object(out, NULL);
        jout_string(out, "choice", pair->choices[i].name);
        jout_string(out, "a", pair->choices[i].a);
        jout_string(out, "b", pair->choices[i].b);
        jout_end(out);
    }
    jout_end(out);
    layers_json(pair, out);
    return console_json(out, err);
}

/* ---- all ---- */

static enum status tell_text(const struct plan_pair *pair, struct error *err)
{
    struct text out = {0};
    append_all(pair, &out);
    enum status status = text_check(&out, err);
    if (status == STATUS_OK)
        fputs(out.data, stdout);
    text_free(&out);
    return status;
}

enum status plan_compare(const char *path_a, const char *path_b, bool json, struct error *err)
{
    struct plan_pair *pair = calloc(1, sizeof(*pair));
    if (!pair)
        return error_memory(err, sizeof(*pair), "the comparison");
    pair->path_a = path_a;
    pair->path_b = path_b;
    enum status status = plan_load(&pair->a, path_a, err);
    if (status == STATUS_OK)
        status = plan_load(&pair->b, path_b, err);
    if (status == STATUS_OK) {
        compare(pair);
        status = json ? tell_json(pair, err) : tell_text(pair, err);
    }
    plan_clear(&pair->a);
    plan_clear(&pair->b);
    free(pair);
    return status;
}
