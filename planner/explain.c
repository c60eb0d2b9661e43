#include "planner/explain.h"
#include "base/clock.h"
#include "costmodel/predict.h"
#include "planner/variation.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Objectives closer than this are the same. */
static const double same_share = 1e-9;

/* The plan's own memory, or the cap, changed by these shares. */
static const double memory_less = 1.0 / 16, memory_more[] = {1.0 / 16, 1.0 / 4};

struct explaining {
    struct planner_request search; /* in the plan's units */
    const struct plan *plan;
    struct explanation *out;
};

void explanation_clear(struct explanation *explanation)
{
    free(explanation->choices);
    *explanation = (struct explanation){0};
}

static enum status push_choice(struct explanation *out, const struct explained_choice *choice,
                               struct error *err)
{
    if (out->count == out->capacity) {
        size_t capacity = out->capacity > 0 ? 2 * out->capacity : 16;
        struct explained_choice *grown = realloc(out->choices, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the explanation");
        out->choices = grown;
        out->capacity = capacity;
    }
    out->choices[out->count++] = *choice;
    return STATUS_OK;
}

/* ---- what a plan chooses ---- */

/* Words for a choice of the whole plan. */
typedef void choice_writer(const struct plan *plan, char out[CHOICE_TEXT_BYTES]);

static void write_number(long long value, char out[CHOICE_TEXT_BYTES])
{
    (void)snprintf(out, CHOICE_TEXT_BYTES, "%lld", value);
}

static void write_ranks(const struct plan *plan, char out[CHOICE_TEXT_BYTES])
{
    write_number(plan->ranks, out);
}

static void write_threads(const struct plan *plan, char out[CHOICE_TEXT_BYTES])
{
    write_number(plan->threads, out);
}

static void write_data(const struct plan *plan, char out[CHOICE_TEXT_BYTES])
{
    write_number(plan->data_parallel, out);
}

static void write_tensor(const struct plan *plan, char out[CHOICE_TEXT_BYTES])
{
    write_number(plan->tensor_parallel, out);
}

static void write_pipeline(const struct plan *plan, char out[CHOICE_TEXT_BYTES])
{
    write_number(plan->pipeline, out);
}

static void write_micro_batch(const struct plan *plan, char out[CHOICE_TEXT_BYTES])
{
    write_number(plan->micro_batch, out);
}

static void write_schedule(const struct plan *plan, char out[CHOICE_TEXT_BYTES])
{
    if (plan->virtual_stages > 1)
        (void)snprintf(out, CHOICE_TEXT_BYTES, "%s x %d", schedule_name(plan->schedule),
                       plan->virtual_stages);
    else
        (void)snprintf(out, CHOICE_TEXT_BYTES, "%s", schedule_name(plan->schedule));
}

/* What all plans that choose the same have in common; the part of a plan's shape that a row keeps.
 */
static struct shape_pattern same_ranks(const struct shape_pattern *of)
{
    return (struct shape_pattern){.ranks = of->ranks};
}

static struct shape_pattern same_threads(const struct shape_pattern *of)
{
    return (struct shape_pattern){.threads = of->threads};
}

static struct shape_pattern same_data(const struct shape_pattern *of)
{
    return (struct shape_pattern){.data_parallel = of->data_parallel};
}

static struct shape_pattern same_tensor(const struct shape_pattern *of)
{
    return (struct shape_pattern){.tensor_parallel = of->tensor_parallel};
}

static struct shape_pattern same_pipeline(const struct shape_pattern *of)
{
    return (struct shape_pattern){.pipeline = of->pipeline};
}

static struct shape_pattern same_micro_batch(const struct shape_pattern *of)
{
    return (struct shape_pattern){.micro_batch = of->micro_batch};
}

static struct shape_pattern same_schedule(const struct shape_pattern *of)
{
    return (struct shape_pattern){
        .has_schedule = true, .schedule = of->schedule, .virtual_stages = of->virtual_stages};
}

enum whole_choice {
    WHOLE_RANKS,
    WHOLE_THREADS,
    WHOLE_DATA,
    WHOLE_TENSOR,
    WHOLE_PIPELINE,
    WHOLE_SCHEDULE,
    WHOLE_MICRO_BATCH,
    WHOLE_COUNT
};

static const struct {
    const char *name;
    choice_writer *write;
    struct shape_pattern (*same)(const struct shape_pattern *of);
} whole_rows[WHOLE_COUNT] = {
    [WHOLE_RANKS] = {"ranks", write_ranks, same_ranks},
    [WHOLE_THREADS] = {"threads", write_threads, same_threads},
    [WHOLE_DATA] = {"data parallel", write_data, same_data},
    [WHOLE_TENSOR] = {"tensor parallel", write_tensor, same_tensor},
    [WHOLE_PIPELINE] = {"pipeline", write_pipeline, same_pipeline},
    [WHOLE_SCHEDULE] = {"schedule", write_schedule, same_schedule},
    [WHOLE_MICRO_BATCH] = {"micro-batch", write_micro_batch, same_micro_batch},
};

static bool is_whole_pinned(const struct explaining *work, enum whole_choice choice)
{
    const struct pins *pins = &work->search.pins;
    bool tensor = true;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        tensor &= pins->tensor_parallel[kind] > 0;
    const bool is_pinned[WHOLE_COUNT] = {
        [WHOLE_RANKS] = work->search.ranks == 1,     [WHOLE_THREADS] = pins->threads > 0,
        [WHOLE_DATA] = pins->data_parallel > 0,      [WHOLE_TENSOR] = tensor,
        [WHOLE_PIPELINE] = pins->pipeline > 0,       [WHOLE_SCHEDULE] = pins->schedule_fixed,
        [WHOLE_MICRO_BATCH] = pins->micro_batch > 0,
    };
    return is_pinned[choice];
}

/* A choice that the plan does not have: how to split one rank, what one stage has for a schedule.
 */
static bool is_whole_moot(const struct explaining *work, enum whole_choice choice)
{
    switch (choice) {
    case WHOLE_SCHEDULE:
        return work->plan->pipeline == 1;
    case WHOLE_RANKS:
    case WHOLE_DATA:
    case WHOLE_TENSOR:
    case WHOLE_PIPELINE:
        return work->search.ranks == 1;
    default:
        return false;
    }
}

/* ---- comparing ---- */

static double energy_of(const struct prediction *prediction)
{
    bool is_absent = prediction->energy_j.provenance == PROVENANCE_ABSENT;
    return is_absent ? NAN : prediction->energy_j.value;
}

static double share_above(const struct explaining *work, double value)
{
    double own = work->plan->objective.value;
    return own > 0 ? (value - own) / own : 0;
}

static enum status search_varied(struct explaining *work, const struct planner_request *search,
                                 const char *name, struct planner_result *result, bool *found,
                                 struct error *err)
{
    char what[CHOICE_TEXT_BYTES + 16];
    (void)snprintf(what, sizeof(what), "explaining %s", name);
    TRY(variation_try(search, what, result, found, err));
    work->out->searches++;
    work->out->is_stopped |= variation_is_stopped(search);
    return STATUS_OK;
}

/* Take over a plan that chooses otherwise where it is the best so far. */
static void offer_other(const struct explaining *work, const struct planner_result *result,
                        struct explained_choice *choice)
{
    const struct prediction *prediction = &result->plan.prediction;
    double gain = share_above(work, result->plan.objective.value);
    double least_gain = share_above(work, result->plan.objective.bound);
    bool is_first = choice->state != CHOICE_COMPARED;
    if (is_first || least_gain < choice->least_gain)
        choice->least_gain = least_gain;
    if (!is_first && gain >= choice->gain)
        return;
    choice->state = CHOICE_COMPARED;
    choice->gain = gain;
    choice->time_s = prediction->time_s.value;
    choice->memory_bytes = memory_held_bytes(prediction->memory_bytes, work->search.risk);
    choice->memory_p95_bytes = memory_quantile_bytes(prediction->memory_bytes);
    choice->energy_j = energy_of(prediction);
}

static enum status explain_whole(struct explaining *work, enum whole_choice at, struct error *err)
{
    const struct shape_pattern own = shape_pattern_of(work->plan);
    const struct shape_pattern excluded = whole_rows[at].same(&own);
    struct planner_request search = work->search;
    struct explained_choice choice = {.state = CHOICE_UNKNOWN};
    struct planner_result result;
    bool found;
    if (is_whole_moot(work, at))
        return STATUS_OK;
    (void)snprintf(choice.name, sizeof(choice.name), "%s", whole_rows[at].name);
    whole_rows[at].write(work->plan, choice.value);
    if (is_whole_pinned(work, at))
        choice.state = CHOICE_PINNED;
    if (choice.state == CHOICE_PINNED || work->out->is_stopped)
        return push_choice(work->out, &choice, err);
    search.excluded = &excluded;
    search.excluded_count = 1;
    if (at == WHOLE_SCHEDULE) /* else one stage, which has none, would be the other schedule */
        search.pins.pipeline = work->plan->pipeline;
    TRY(search_varied(work, &search, choice.name, &result, &found, err));
    choice.state = result.infeasibility.missing_bytes > 0 ? CHOICE_TOO_BIG : CHOICE_ONLY;
    if (found) {
        offer_other(work, &result, &choice);
        whole_rows[at].write(&result.plan, choice.other);
        plan_clear(&result.plan);
    }
    return push_choice(work->out, &choice, err);
}

/* ---- choices by kind of layer ---- */

enum mode_choice {
    MODE_RECOMPUTE,
    MODE_KERNEL,
    MODE_PRECISION,
    MODE_ZERO,
    MODE_SEQUENCE,
    MODE_COUNT
};

enum { OPTIONS_MAX = 4 };

static const char *const zero_words[] = {"0", "1", "2", "3"};
static const char *const sequence_words[] = {"off", "on"};

static int mode_recompute(const struct layer_strategy *strategy)
{
    return (int)strategy->recompute;
}

static int mode_kernel(const struct layer_strategy *strategy)
{
    return (int)strategy->attention;
}

static int mode_precision(const struct layer_strategy *strategy)
{
    return (int)strategy->precision;
}

static int mode_zero(const struct layer_strategy *strategy)
{
    return strategy->zero_stage;
}

static int mode_sequence(const struct layer_strategy *strategy)
{
    return strategy->sequence_parallel;
}

static const char *word_recompute(int option)
{
    return recompute_name((enum recompute)option);
}

static const char *word_kernel(int option)
{
    return attention_kernel_name((enum attention_kernel)option);
}

static const char *word_precision(int option)
{
    return precision_name((enum precision)option);
}

static const char *word_zero(int option)
{
    return zero_words[option];
}

static const char *word_sequence(int option)
{
    return sequence_words[option];
}

static bool *pin_recompute(struct pins *pins, int kind, int option)
{
    pins->recompute[kind] = (enum recompute)option;
    return &pins->recompute_fixed[kind];
}

static bool *pin_kernel(struct pins *pins, int kind, int option)
{
    pins->attention[kind] = (enum attention_kernel)option;
    return &pins->attention_fixed[kind];
}

static bool *pin_precision(struct pins *pins, int kind, int option)
{
    pins->precision[kind] = (enum precision)option;
    return &pins->precision_fixed[kind];
}

static bool *pin_zero(struct pins *pins, int kind, int option)
{
    pins->zero_stage[kind] = option;
    return &pins->zero_fixed[kind];
}

static bool *pin_sequence(struct pins *pins, int kind, int option)
{
    pins->sequence_parallel[kind] = option != 0;
    return &pins->sequence_parallel_fixed[kind];
}

static const struct mode_row {
    const char *name;
    int options;
    int (*of)(const struct layer_strategy *strategy);
    const char *(*word)(int option);
    bool *(*pin)(struct pins *pins, int kind, int option); /* the value; returns its switch */
} mode_rows[MODE_COUNT] = {
    [MODE_RECOMPUTE] = {"recompute", RECOMPUTE_COUNT, mode_recompute, word_recompute,
                        pin_recompute},
    [MODE_KERNEL] = {"kernel", ATTENTION_KERNEL_COUNT, mode_kernel, word_kernel, pin_kernel},
    [MODE_PRECISION] = {"precision", PRECISION_COUNT, mode_precision, word_precision,
                        pin_precision},
    [MODE_ZERO] = {"ZeRO stage", OPTIONS_MAX, mode_zero, word_zero, pin_zero},
    [MODE_SEQUENCE] = {"sequence parallel", 2, mode_sequence, word_sequence, pin_sequence},
};

static bool admits(const struct plan *plan, enum mode_choice mode, enum layer_kind kind, int option)
{
    switch (mode) {
    case MODE_RECOMPUTE:
        return layer_admits_recompute(kind, (enum recompute)option);
    case MODE_KERNEL:
        return layer_admits_kernel(kind, (enum attention_kernel)option);
    case MODE_PRECISION:
        return layer_admits_precision(kind, (enum precision)option);
    case MODE_ZERO:
        return plan->data_parallel * plan->tensor_parallel > 1 || option == 0;
    default:
        return plan->tensor_parallel > 1 || option == 0;
    }
}

/* How many layers of the kind have each option; returns how many layers there are. */
static size_t count_options(const struct plan *plan, const struct mode_row *row,
                            enum layer_kind kind, size_t counts[OPTIONS_MAX])
{
    size_t layers = 0;
    memset(counts, 0, OPTIONS_MAX * sizeof(*counts));
    for (size_t i = 0; i < plan->layer_count; i++) {
        if (model_layer(&plan->model, i).kind != kind)
            continue;
        counts[row->of(&plan->layers[i])]++;
        layers++;
    }
    return layers;
}

/* "full", or "none 9, full 3". */
static void write_options(const struct plan *plan, const struct mode_row *row, enum layer_kind kind,
                          char out[CHOICE_TEXT_BYTES])
{
    size_t counts[OPTIONS_MAX], used = 0;
    size_t layers = count_options(plan, row, kind, counts);
    out[0] = '\0';
    for (int option = 0; option < row->options; option++) {
        int written = 0;
        if (counts[option] == layers)
            written = snprintf(out + used, CHOICE_TEXT_BYTES - used, "%s", row->word(option));
        else if (counts[option] > 0)
            written = snprintf(out + used, CHOICE_TEXT_BYTES - used, "%s%s %zu",
                               used > 0 ? ", " : "", row->word(option), counts[option]);
        used += written > 0 ? (size_t)written : 0;
        if (used >= CHOICE_TEXT_BYTES)
            return;
    }
}

struct mode_asked {
    enum mode_choice mode;
    enum layer_kind kind;
};

/* All layers of the kind with one option: each that not all of them have already. */
static enum status try_options(struct explaining *work, const struct mode_asked *asked,
                               struct explained_choice *choice, struct error *err)
{
    const struct mode_row *row = &mode_rows[asked->mode];
    size_t counts[OPTIONS_MAX], found_counts[OPTIONS_MAX];
    size_t layers = count_options(work->plan, row, asked->kind, counts);
    bool any_too_big = false;
    for (int option = 0; option < row->options && !work->out->is_stopped; option++) {
        struct planner_request search = work->search;
        struct planner_result result;
        bool found;
        double before = choice->state == CHOICE_COMPARED ? choice->gain : INFINITY;
        if (counts[option] == layers || !admits(work->plan, asked->mode, asked->kind, option))
            continue;
        *row->pin(&search.pins, (int)asked->kind, option) = true;
        TRY(search_varied(work, &search, choice->name, &result, &found, err));
        any_too_big |= !found && result.infeasibility.missing_bytes > 0;
        if (!found)
            continue;
        /* A pin that means nothing for an unshared layer can lead to a plan without the option. */
        (void)count_options(&result.plan, row, asked->kind, found_counts);
        if (found_counts[option] > 0)
            offer_other(work, &result, choice);
        if (choice->state == CHOICE_COMPARED && choice->gain < before)
            (void)snprintf(choice->other, sizeof(choice->other), "%s", row->word(option));
        plan_clear(&result.plan);
    }
    if (choice->state == CHOICE_UNKNOWN && !work->out->is_stopped)
        choice->state = any_too_big ? CHOICE_TOO_BIG : CHOICE_ONLY;
    return STATUS_OK;
}

/* All layers of the kind, by kind or by ranges? */
static bool is_mode_pinned(const struct explaining *work, const struct mode_asked *asked)
{
    const struct model *model = &work->plan->model;
    for (size_t i = 0; i < work->plan->layer_count; i++) {
        const struct layer layer = model_layer(model, i);
        struct pins pins = pins_of_layer(&work->search.pins, layer.kind, layer.block);
        if (layer.kind == asked->kind && !*mode_rows[asked->mode].pin(&pins, (int)layer.kind, 0))
            return false;
    }
    return true;
}

static enum status explain_mode(struct explaining *work, const struct mode_asked *asked,
                                struct error *err)
{
    const struct mode_row *row = &mode_rows[asked->mode];
    struct explained_choice choice = {.state = CHOICE_UNKNOWN};
    int admitted = 0;
    for (int option = 0; option < row->options; option++)
        admitted += admits(work->plan, asked->mode, asked->kind, option);
    if (admitted < 2)
        return STATUS_OK;
    (void)snprintf(choice.name, sizeof(choice.name), "%s of %s", row->name,
                   layer_kind_name(asked->kind));
    write_options(work->plan, row, asked->kind, choice.value);
    if (is_mode_pinned(work, asked))
        choice.state = CHOICE_PINNED;
    else
        TRY(try_options(work, asked, &choice, err));
    return push_choice(work->out, &choice, err);
}

/* ---- memory ---- */

static enum status try_cap(struct explaining *work, double cap_bytes, struct error *err)
{
    struct explanation *out = work->out;
    struct planner_request search = work->search;
    struct explained_memory *memory = &out->memory[out->memory_count];
    struct planner_result result;
    if (out->is_stopped || out->memory_count == EXPLAINED_MEMORY_MAX)
        return STATUS_OK;
    *memory = (struct explained_memory){.cap_bytes = cap_bytes};
    search.memory_cap_bytes = isinf(cap_bytes) ? 0 : (uint64_t)cap_bytes;
    TRY(search_varied(work, &search, "the memory cap", &result, &memory->fits, err));
    if (memory->fits) {
        const struct prediction *prediction = &result.plan.prediction;
        memory->saving = -share_above(work, result.plan.objective.value);
        memory->most_saving = -share_above(work, result.plan.objective.bound);
        memory->time_s = prediction->time_s.value;
        memory->memory_bytes = memory_held_bytes(prediction->memory_bytes, search.risk);
        memory->memory_p95_bytes = memory_quantile_bytes(prediction->memory_bytes);
        plan_clear(&result.plan);
    }
    out->memory_count++;
    return STATUS_OK;
}

/* More memory where there is a cap, less in any case. */
static enum status explain_memory(struct explaining *work, struct error *err)
{
    struct explanation *out = work->out;
    double cap_bytes = (double)work->search.memory_cap_bytes;
    double from_bytes =
        cap_bytes > 0 ? fmin(cap_bytes, ceil(out->memory_bytes)) : out->memory_bytes;
    out->has_cap = cap_bytes > 0;
    out->from_bytes = out->has_cap ? cap_bytes : out->memory_bytes;
    TRY(try_cap(work, floor(from_bytes * (1 - memory_less)), err));
    if (!out->has_cap)
        return STATUS_OK;
    for (size_t i = 0; i < sizeof(memory_more) / sizeof(*memory_more); i++)
        TRY(try_cap(work, ceil(cap_bytes * (1 + memory_more[i])), err));
    TRY(try_cap(work, INFINITY, err));
    for (size_t i = 0; i < out->memory_count; i++) {
        const struct explained_memory *memory = &out->memory[i];
        out->cap_binds |= memory->fits && memory->saving > same_share;
    }
    return STATUS_OK;
}

/* ---- all ---- */

static enum status explain_all(struct explaining *work, struct error *err)
{
    TRY(explain_memory(work, err));
    for (int at = 0; at < WHOLE_COUNT; at++)
        TRY(explain_whole(work, (enum whole_choice)at, err));
    for (int mode = 0; mode < MODE_COUNT; mode++) {
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
            const struct mode_asked asked = {(enum mode_choice)mode, (enum layer_kind)kind};
            TRY(explain_mode(work, &asked, err));
        }
    }
    return STATUS_OK;
}

enum status explain_plan(const struct planner_request *request, const struct plan *plan,
                         struct explanation *out, struct error *err)
{
    double started_s = clock_s();
    const struct quantity memory_bytes = plan->prediction.memory_bytes;
    struct explanation explanation = {
        .memory_bytes = memory_held_bytes(memory_bytes, request->risk),
        .memory_p95_bytes = memory_quantile_bytes(memory_bytes),
        .risk = request->risk > 0 ? request->risk : MEMORY_RISK,
    };
    struct explaining work = {.search = *request, .plan = plan, .out = &explanation};
    variation_fix_units(&work.search, &plan->objective);
    explanation.is_stopped = variation_is_stopped(request);
    enum status status = explain_all(&work, err);
    explanation.seconds = clock_s() - started_s;
    if (status != STATUS_OK)
        explanation_clear(&explanation);
    else
        *out = explanation;
    return status;
}
