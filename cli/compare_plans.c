#include "cli/compare_plans.h"

#include "base/hash.h"
#include "cli/comparison.h"
#include "ir/names.h"
#include "ir/plan.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_BYTES = 48 };

struct plan_pair {
    struct plan a, b;
    struct comparison comparison;
    bool same_layers;  /* the models have the same chain of kinds */
    bool same_work;    /* and the same batch and sequence: a step is the same */
    bool same_profile; /* the same measurements */
};

static double step_tokens(const struct plan *plan)
{
    return (double)plan->global_batch * (double)plan->model.seq_length;
}

/* ---- terms ---- */

static void add_terms(struct plan_pair *pair)
{
    struct comparison *c = &pair->comparison;
    const struct prediction *a = &pair->a.prediction, *b = &pair->b.prediction;
    double a_tokens = step_tokens(&pair->a), b_tokens = step_tokens(&pair->b);
    double a_scale = comparison_scale(c, a_tokens), b_scale = comparison_scale(c, b_tokens);
    const struct compared_term time = {.name = "time",
                                       .is_judged = true,
                                       .unit = "s",
                                       .format = format_seconds,
                                       .a = comparison_scaled(a->time_s, a_scale),
                                       .b = comparison_scaled(b->time_s, b_scale)};
    const struct compared_term memory = {.name = "memory of a rank",
                                         .is_judged = true,
                                         .unit = "bytes",
                                         .format = format_bytes,
                                         .a = a->memory_bytes,
                                         .b = b->memory_bytes};
    const struct compared_term energy = {.name = "energy of all ranks",
                                         .is_judged = true,
                                         .unit = "J",
                                         .format = format_joules,
                                         .a = comparison_scaled(a->energy_j, a_scale),
                                         .b = comparison_scaled(b->energy_j, b_scale)};
    int time_place = comparison_add_total(c, &time);
    comparison_add_parts(c, &phase_names, a->phase_time_s, a_scale, b->phase_time_s, b_scale);
    comparison_add_rate(c, "throughput", false, &a->time_s, a_tokens, &b->time_s, b_tokens);
    int memory_place = comparison_add_total(c, &memory);
    comparison_add_parts(c, &memory_term_names, a->memory_term_bytes, 1, b->memory_term_bytes, 1);
    int energy_place = comparison_add_total(c, &energy);
    if (compared_is_known(&energy))
        comparison_add_parts(c, &phase_names, a->phase_energy_j, a_scale, b->phase_energy_j,
                             b_scale);
    comparison_decide(c, time_place, memory_place, energy_place);
}

static struct compared_aim aim_of(const struct plan *plan)
{
    const struct plan_objective *objective = &plan->objective;
    return (struct compared_aim){
        .time = objective->weight_time,
        .memory = objective->weight_memory,
        .energy = objective->weight_energy,
        .raw = objective->raw,
        .time_unit_s = objective->time_unit_s,
        .memory_unit_bytes = objective->memory_unit_bytes,
        .energy_unit_j = objective->energy_unit_j,
        .gap = plan->status == PLAN_PREDICTED ? NAN : objective->gap,
    };
}

/* ---- choices ---- */

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
    struct comparison *c = &pair->comparison;
    const struct plan *a = &pair->a, *b = &pair->b;
    char words_a[WORD_BYTES], words_b[WORD_BYTES], cap_a[UNIT_TEXT_BYTES], cap_b[UNIT_TEXT_BYTES];
    comparison_add_words(c, "model", a->model.name, b->model.name);
    comparison_add_number(c, "blocks", a->model.blocks, b->model.blocks);
    comparison_add_number(c, "hidden", a->model.hidden, b->model.hidden);
    comparison_add_number(c, "sequence", a->model.seq_length, b->model.seq_length);
    comparison_add_number(c, "global batch", a->global_batch, b->global_batch);
    comparison_add_words(c, "host", a->host, b->host);
    cap_words(a, cap_a);
    cap_words(b, cap_b);
    comparison_add_words(c, "memory cap", cap_a, cap_b);
    comparison_add_words(c, "pins", a->pins, b->pins);
    comparison_add_number(c, "ranks", a->ranks, b->ranks);
    comparison_add_number(c, "threads a rank", a->threads, b->threads);
    comparison_add_number(c, "data parallel", a->data_parallel, b->data_parallel);
    comparison_add_number(c, "tensor parallel", a->tensor_parallel, b->tensor_parallel);
    comparison_add_number(c, "pipeline", a->pipeline, b->pipeline);
    comparison_add_words(c, "schedule", schedule_name(a->schedule), schedule_name(b->schedule));
    comparison_add_words(c, "gradients", gradient_reduction_name(a->gradient_reduction),
                         gradient_reduction_name(b->gradient_reduction));
    comparison_add_number(c, "virtual stages", a->virtual_stages, b->virtual_stages);
    comparison_add_number(c, "micro-batch", a->micro_batch, b->micro_batch);
    comparison_add_number(c, "micro-batches", a->micro_batches, b->micro_batches);
    stage_words(a, words_a);
    stage_words(b, words_b);
    comparison_add_words(c, "stages begin at layer", words_a, words_b);
}

static void compare(struct plan_pair *pair, const char *path_a, const char *path_b)
{
    struct comparison *c = &pair->comparison;
    const struct plan *a = &pair->a, *b = &pair->b;
    comparison_begin(c, path_a, path_b, step_tokens(a), step_tokens(b));
    pair->same_layers = a->layer_count == b->layer_count;
    for (size_t i = 0; pair->same_layers && i < a->layer_count; i++)
        pair->same_layers = model_layer(&a->model, i).kind == model_layer(&b->model, i).kind;
    char hash_a[HASH_TEXT_BYTES], hash_b[HASH_TEXT_BYTES];
    const struct compared_model model_a = {
        a->model.name, hash_format(model_hash(&a->model), hash_a), a->model.seq_length};
    const struct compared_model model_b = {
        b->model.name, hash_format(model_hash(&b->model), hash_b), b->model.seq_length};
    comparison_note_models(c, &model_a, &model_b);
    pair->same_work = c->same_model && a->global_batch == b->global_batch &&
                      a->model.seq_length == b->model.seq_length;
    pair->same_profile = strcmp(a->profile_hash, b->profile_hash) == 0;
    if (!pair->same_profile)
        comparison_note(c, "predicted from different measurements: part of the difference may be "
                           "theirs");
    c->aim_a = aim_of(a);
    c->aim_b = aim_of(b);
    add_terms(pair);
    add_choices(pair);
}

/* ---- layers ---- */

static bool same_strategy(const struct layer_strategy *a, const struct layer_strategy *b)
{
    return a->tensor_parallel == b->tensor_parallel &&
           a->sequence_parallel == b->sequence_parallel && a->zero_stage == b->zero_stage &&
           a->recompute == b->recompute && a->precision == b->precision &&
           a->attention == b->attention;
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
    (void)snprintf(out, (size_t)2 * WORD_BYTES, "tensor %d%s, zero %d, %s, recompute %s%s",
                   strategy->tensor_parallel, strategy->sequence_parallel ? " + sequence" : "",
                   strategy->zero_stage, precision_name(strategy->precision),
                   recompute_name(strategy->recompute),
                   strategy->attention == ATTENTION_TILED ? ", tiled" : "");
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

/* ---- layers as JSON ---- */

static void strategy_json(const struct layer_strategy *strategy, const char *key, struct jout *out)
{
    jout_begin_object(out, key);
    jout_int(out, "tensor_parallel", strategy->tensor_parallel);
    jout_bool(out, "sequence_parallel", strategy->sequence_parallel);
    jout_int(out, "zero_stage", strategy->zero_stage);
    jout_string(out, "recompute", recompute_name(strategy->recompute));
    jout_string(out, "precision", precision_name(strategy->precision));
    jout_string(out, "attention", attention_kernel_name(strategy->attention));
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

static void write_more(const void *user, struct jout *out)
{
    const struct plan_pair *pair = user;
    jout_bool(out, "same_work", pair->same_work);
    jout_bool(out, "same_profile", pair->same_profile);
    layers_json(pair, out);
}

/* ---- all ---- */

static enum status tell(struct plan_pair *pair, bool json, struct error *err)
{
    struct comparison *c = &pair->comparison;
    if (json)
        return comparison_print_json(c, write_more, pair, err);
    append_layers(pair, &c->details);
    return comparison_print_text(c, err);
}

enum status compare_plans(const char *path_a, const char *path_b, bool json, struct error *err)
{
    struct plan_pair *pair = calloc(1, sizeof(*pair));
    if (!pair)
        return error_memory(err, sizeof(*pair), "the comparison");
    enum status status = plan_load(&pair->a, path_a, err);
    if (status == STATUS_OK)
        status = plan_load(&pair->b, path_b, err);
    if (status == STATUS_OK) {
        compare(pair, path_a, path_b);
        status = tell(pair, json, err);
    }
    comparison_clear(&pair->comparison);
    plan_clear(&pair->a);
    plan_clear(&pair->b);
    free(pair);
    return status;
}
