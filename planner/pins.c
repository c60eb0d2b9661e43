#include "planner/pins.h"
#include "ir/cluster.h"
#include "ir/plan.h"
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_BYTES = 64, COUNT_MAX = 1 << 16, BATCH_MAX = 1 << 30 };

/* One "key[:kind][:blocks]=value". */
struct pin {
    char key[WORD_BYTES], kind[WORD_BYTES], blocks[WORD_BYTES], value[WORD_BYTES];
};

static const char expected[] =
    "expected pp=N, dp=N, v=N, schedule=gpipe|1f1b|interleaved, micro-batch=N, micro-batches=N, "
    "threads=N, gradients=fp32|bf16, tp[:KIND]=N, sp[:KIND]=on|off, zero[:KIND]=0|1|2|3, "
    "recompute[:KIND]=none|selective|full, precision[:KIND]=fp32|bf16|fp16 or "
    "attention=plain|tiled, separated by commas; "
    "KIND is one of embedding, attention, mlp, head; of blocks A to B alone: recompute:A-B=full, "
    "zero:mlp:A-B=1; with --cluster also cp=N, ep=N, shard=N, "
    "offload=none|activations|optimizer|both, fused-attention=on|off, overlap=on|off, "
    "schedule=zb-h1 and arithmetic:A-B=fp8";

static enum status refuse(const struct pin *pin, const char *why, struct error *err)
{
    return error_set(err, STATUS_USAGE, "pin '%s%s%s%s%s%s%s': %s; %s", pin->key,
                     pin->kind[0] ? ":" : "", pin->kind, pin->blocks[0] ? ":" : "", pin->blocks,
                     pin->value[0] ? "=" : "", pin->value, why, expected);
}

/* Copy up to one of `ends` or the end; false when it does not fit. */
static bool take_word(const char **at, const char *ends, char word[WORD_BYTES])
{
    size_t length = strcspn(*at, ends);
    bool fits = length < WORD_BYTES;
    size_t copied = fits ? length : WORD_BYTES - 1;
    memcpy(word, *at, copied);
    word[copied] = '\0';
    *at += length;
    return fits;
}

static bool begins_blocks(const char *at)
{
    return *at >= '0' && *at <= '9';
}

/* ":KIND", ":BLOCKS" or ":KIND:BLOCKS". */
static enum status take_where(const char **at, struct pin *out, struct error *err)
{
    bool fits = true;
    if (**at == ':' && !begins_blocks(*at + 1)) {
        (*at)++;
        fits = take_word(at, ":=,", out->kind);
        if (out->kind[0] == '\0')
            return refuse(out, "nothing between ':' and '='", err);
    }
    if (**at == ':') {
        (*at)++;
        fits = take_word(at, ":=,", out->blocks) && fits;
        if (!begins_blocks(out->blocks) || **at == ':')
            return refuse(out, "only blocks, such as 3-5, may follow a kind", err);
    }
    return fits ? STATUS_OK : refuse(out, "a word is too long", err);
}

static enum status take_pin(const char **at, struct pin *out, struct error *err)
{
    *out = (struct pin){.key = ""};
    bool fits = take_word(at, ":=,", out->key);
    TRY(take_where(at, out, err));
    if (**at == '=') {
        (*at)++;
        fits = take_word(at, ",", out->value) && fits;
    }
    if (!fits)
        return refuse(out, "a word is too long", err);
    if (out->key[0] == '\0' || out->value[0] == '\0')
        return refuse(out, "not of the form key=value", err);
    return STATUS_OK;
}

static bool parse_whole(const char *text, long long least, long long most, long long *out)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (*end != '\0' || errno != 0 || value < least || value > most)
        return false;
    *out = value;
    return true;
}

/* ---- pins of the whole plan ---- */

/* Whole numbers of at least 1 that stand in the struct at `offset`. */
static const struct number_row {
    const char *key;
    size_t offset;
    bool is_wide; /* an int64_t rather than an int */
    long long most;
} number_rows[] = {
    {"micro-batch", offsetof(struct pins, micro_batch), true, BATCH_MAX},
    {"micro-batches", offsetof(struct pins, micro_batches), true, BATCH_MAX},
    {"pp", offsetof(struct pins, pipeline), false, COUNT_MAX},
    {"dp", offsetof(struct pins, data_parallel), false, INT_MAX},
    {"v", offsetof(struct pins, virtual_stages), false, COUNT_MAX},
    {"threads", offsetof(struct pins, threads), false, INT_MAX},
    {"cp", offsetof(struct pins, context), false, COUNT_MAX},
    {"ep", offsetof(struct pins, expert), false, COUNT_MAX},
    {"shard", offsetof(struct pins, shard), false, INT_MAX},
};

static enum status set_number(struct pins *out, const struct number_row *row, const struct pin *pin,
                              struct error *err)
{
    void *member = (char *)out + row->offset;
    int64_t before = row->is_wide ? *(int64_t *)member : *(int *)member;
    long long value;
    if (!parse_whole(pin->value, 1, row->most, &value))
        return refuse(pin, "not a whole number of at least 1, or too large", err);
    if (before != 0)
        return refuse(pin, "given twice", err);
    if (row->is_wide)
        *(int64_t *)member = value;
    else
        *(int *)member = (int)value;
    return STATUS_OK;
}

static enum status set_schedule(struct pins *out, const struct pin *pin, struct error *err)
{
    if (out->schedule_fixed)
        return refuse(pin, "given twice", err);
    if (!schedule_parse(pin->value, &out->schedule))
        return refuse(pin, "unknown schedule", err);
    out->schedule_fixed = true;
    return STATUS_OK;
}

static enum status set_gradients(struct pins *out, const struct pin *pin, struct error *err)
{
    unsigned value;
    if (out->gradients_fixed)
        return refuse(pin, "given twice", err);
    if (!name_parse(&gradient_reduction_names, pin->value, &value))
        return refuse(pin, "neither fp32 nor bf16", err);
    out->gradients_fixed = true;
    out->gradients = (enum gradient_reduction)value;
    return STATUS_OK;
}

static const char *const offloads[] = {"none", "activations", "optimizer", "both"};
const struct name_list offload_names = {offloads, sizeof(offloads) / sizeof(*offloads)};

static enum status set_offload(struct pins *out, const struct pin *pin, struct error *err)
{
    if (out->offload_fixed)
        return refuse(pin, "given twice", err);
    if (!name_parse(&offload_names, pin->value, &out->offload))
        return refuse(pin, "neither none, activations, optimizer nor both", err);
    out->offload_fixed = true;
    return STATUS_OK;
}

static const char *const switches[] = {"off", "on"};
static const struct name_list switch_names = {switches, sizeof(switches) / sizeof(*switches)};

/* On or off, in the struct at `offset`. */
static const struct switch_row {
    const char *key;
    size_t fixed_offset, offset;
} switch_rows[] = {
    {"fused-attention", offsetof(struct pins, fused_attention_fixed),
     offsetof(struct pins, fused_attention)},
    {"overlap", offsetof(struct pins, overlap_fixed), offsetof(struct pins, overlap)},
};

static enum status set_switch(struct pins *out, const struct switch_row *row, const struct pin *pin,
                              struct error *err)
{
    bool *is_fixed = (bool *)((char *)out + row->fixed_offset);
    unsigned is_on;
    if (*is_fixed)
        return refuse(pin, "given twice", err);
    if (!name_parse(&switch_names, pin->value, &is_on))
        return refuse(pin, "neither on nor off", err);
    *is_fixed = true;
    *(bool *)((char *)out + row->offset) = is_on != 0;
    return STATUS_OK;
}

/* ---- pins by kind of layer ---- */

static void set_tensor_parallel(struct pins *out, int kind, int value)
{
    out->tensor_parallel[kind] = value;
}

static void set_sequence_parallel(struct pins *out, int kind, int value)
{
    out->sequence_parallel_fixed[kind] = true;
    out->sequence_parallel[kind] = value != 0;
}

static void set_zero(struct pins *out, int kind, int value)
{
    out->zero_fixed[kind] = true;
    out->zero_stage[kind] = value;
}

static void set_recompute(struct pins *out, int kind, int value)
{
    out->recompute_fixed[kind] = true;
    out->recompute[kind] = (enum recompute)value;
}

static void set_precision(struct pins *out, int kind, int value)
{
    out->precision_fixed[kind] = true;
    out->precision[kind] = (enum precision)value;
}

static void set_attention(struct pins *out, int kind, int value)
{
    out->attention_fixed[kind] = true;
    out->attention[kind] = (enum attention_kernel)value;
}

static bool admits_attention(enum layer_kind kind, int value)
{
    return layer_admits_kernel(kind, (enum attention_kernel)value);
}

static bool admits_recompute(enum layer_kind kind, int value)
{
    return layer_admits_recompute(kind, (enum recompute)value);
}

static bool admits_precision(enum layer_kind kind, int value)
{
    return layer_admits_precision(kind, (enum precision)value);
}

static const struct mode_row {
    const char *key;
    const struct name_list *names; /* NULL: whole numbers from `least` to `most` */
    int least, most;
    const char *refusal;
    void (*set)(struct pins *out, int kind, int value); /* NULL: of blocks only */
    bool (*admits)(enum layer_kind kind, int value);    /* NULL: every kind admits all */
} mode_rows[PIN_MODE_COUNT] = {
    [PIN_TENSOR_PARALLEL] = {.key = "tp",
                             .least = 1,
                             .most = COUNT_MAX,
                             .refusal = "not a whole number of at least 1, or too large",
                             .set = set_tensor_parallel},
    [PIN_SEQUENCE_PARALLEL] = {.key = "sp",
                               .names = &switch_names,
                               .refusal = "neither on nor off",
                               .set = set_sequence_parallel},
    [PIN_ZERO] =
        {.key = "zero", .least = 0, .most = 3, .refusal = "not a ZeRO stage", .set = set_zero},
    [PIN_RECOMPUTE] = {.key = "recompute",
                       .names = &recompute_names,
                       .refusal = "unknown recompute mode",
                       .set = set_recompute,
                       .admits = admits_recompute},
    [PIN_PRECISION] = {.key = "precision",
                       .names = &precision_names,
                       .refusal = "unknown precision",
                       .set = set_precision,
                       .admits = admits_precision},
    [PIN_ATTENTION] = {.key = "attention",
                       .names = &attention_kernel_names,
                       .refusal = "neither plain nor tiled",
                       .set = set_attention,
                       .admits = admits_attention},
    [PIN_ARITHMETIC] = {.key = "arithmetic",
                        .names = &arithmetic_names,
                        .refusal = "neither fp32, tf32, bf16, fp16 nor fp8"},
};

const char *pin_mode_name(enum pin_mode mode)
{
    return mode_rows[mode].key;
}

static bool mode_parse(const struct mode_row *row, const char *text, int *out)
{
    unsigned named;
    long long number;
    if (row->names != NULL) {
        if (!name_parse(row->names, text, &named))
            return false;
        *out = (int)named;
        return true;
    }
    if (!parse_whole(text, row->least, row->most, &number))
        return false;
    *out = (int)number;
    return true;
}

/* ---- pins of a range of blocks ---- */

static bool blocks_parse(const char *text, struct range_pin *out)
{
    char first[WORD_BYTES];
    const char *at = text;
    long long from, to;
    take_word(&at, "-", first);
    if (!parse_whole(first, 0, COUNT_MAX, &from))
        return false;
    to = from;
    if (*at == '-' && !parse_whole(at + 1, from, COUNT_MAX, &to))
        return false;
    out->first = from;
    out->last = to;
    return true;
}

static bool overlap(const struct range_pin *a, const struct range_pin *b)
{
    return a->mode == b->mode && a->kind == b->kind && a->first <= b->last && b->first <= a->last;
}

static enum status set_range(struct pins *out, const struct range_pin *given, const struct pin *pin,
                             struct error *err)
{
    struct range_pin range = *given;
    if (range.kind == LAYER_EMBEDDING || range.kind == LAYER_HEAD)
        return refuse(pin, "embedding and head are in no block", err);
    if (!blocks_parse(pin->blocks, &range))
        return refuse(pin, "blocks are a number or FIRST-LAST, counted from 0", err);
    if (out->range_count == RANGE_PINS_MAX)
        return refuse(pin, "more than 32 pins of blocks", err);
    for (size_t i = 0; i < out->range_count; i++)
        if (overlap(&out->ranges[i], &range))
            return refuse(pin, "one of these blocks is pinned twice", err);
    out->ranges[out->range_count++] = range;
    return STATUS_OK;
}

/* ---- the text ---- */

/* For one kind, or for all when no kind is named; of all their layers or of some blocks. */
static enum status set_mode(struct pins *out, enum pin_mode mode, const struct pin *pin,
                            struct error *err)
{
    const struct mode_row *row = &mode_rows[mode];
    enum layer_kind only = LAYER_KIND_COUNT;
    int value;
    if (pin->kind[0] != '\0' && !layer_kind_parse(pin->kind, &only))
        return refuse(pin, "unknown kind of layer", err);
    if (!mode_parse(row, pin->value, &value))
        return refuse(pin, row->refusal, err);
    if (only != LAYER_KIND_COUNT && row->admits != NULL && !row->admits(only, value))
        return refuse(pin, "this kind of layer cannot do that", err);
    if (pin->blocks[0] != '\0') {
        const struct range_pin range = {.mode = mode, .kind = only, .value = value};
        return set_range(out, &range, pin, err);
    }
    if (row->set == NULL)
        return refuse(pin, "of all layers say it with --arithmetic", err);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        if (only == LAYER_KIND_COUNT || only == (enum layer_kind)kind)
            row->set(out, kind, value);
    }
    return STATUS_OK;
}

static enum status set_pin(struct pins *out, const struct pin *pin, struct error *err)
{
    for (int mode = 0; mode < PIN_MODE_COUNT; mode++) {
        if (strcmp(pin->key, mode_rows[mode].key) == 0)
            return set_mode(out, (enum pin_mode)mode, pin, err);
    }
    if (pin->kind[0] != '\0' || pin->blocks[0] != '\0')
        return refuse(pin,
                      "only tp, sp, zero, recompute, precision and arithmetic are by kind of layer "
                      "or by blocks",
                      err);
    for (size_t i = 0; i < sizeof(number_rows) / sizeof(*number_rows); i++) {
        if (strcmp(pin->key, number_rows[i].key) == 0)
            return set_number(out, &number_rows[i], pin, err);
    }
    for (size_t i = 0; i < sizeof(switch_rows) / sizeof(*switch_rows); i++) {
        if (strcmp(pin->key, switch_rows[i].key) == 0)
            return set_switch(out, &switch_rows[i], pin, err);
    }
    if (strcmp(pin->key, "schedule") == 0)
        return set_schedule(out, pin, err);
    if (strcmp(pin->key, "gradients") == 0)
        return set_gradients(out, pin, err);
    if (strcmp(pin->key, "offload") == 0)
        return set_offload(out, pin, err);
    return refuse(pin, "unknown key", err);
}

/* One pass over the text: pins of all kinds, or those of one kind, which stand before them. */
static enum status parse_pass(struct pins *out, const char *text, bool of_one_kind,
                              struct error *err)
{
    for (const char *at = text;; at++) {
        struct pin pin;
        TRY(take_pin(&at, &pin, err));
        if ((pin.kind[0] != '\0') == of_one_kind)
            TRY(set_pin(out, &pin, err));
        if (*at == '\0')
            return STATUS_OK;
    }
}

/* Can some layer with products be in bf16? */
static bool admit_bf16(const struct pins *pins)
{
    static const enum layer_kind kinds[] = {LAYER_ATTENTION, LAYER_MLP, LAYER_HEAD};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (!pins->precision_fixed[kinds[i]] || pins->precision[kinds[i]] == PRECISION_BF16)
            return true;
    for (size_t i = 0; i < pins->range_count; i++)
        if (pins->ranges[i].mode == PIN_PRECISION && pins->ranges[i].value == PRECISION_BF16)
            return true;
    return false;
}

/* Pins that no plan can keep together. */
static enum status check_together(const struct pins *pins, struct error *err)
{
    bool is_interleaved = pins->schedule_fixed && pins->schedule == SCHEDULE_INTERLEAVED;
    if (pins->schedule_fixed && !is_interleaved && pins->virtual_stages > 1)
        return error_set(err, STATUS_USAGE,
                         "pins: v=%d with schedule=%s: more than one virtual stage needs "
                         "schedule=interleaved",
                         pins->virtual_stages, schedule_name(pins->schedule));
    if (is_interleaved && pins->virtual_stages == 1)
        return error_set(err, STATUS_USAGE, "pins: schedule=interleaved needs v=2 or more, not 1");
    if (pins->pipeline == 1 && pins->virtual_stages > 1)
        return error_set(err, STATUS_USAGE, "pins: v=%d needs pp=2 or more, not 1",
                         pins->virtual_stages);
    if (pins->pipeline == 1 && pins->schedule_fixed && pins->schedule != SCHEDULE_1F1B)
        return error_set(err, STATUS_USAGE,
                         "pins: schedule=%s needs pp=2 or more, not 1; one stage has 1f1b",
                         schedule_name(pins->schedule));
    if (pins->gradients == GRADIENTS_BF16 && !admit_bf16(pins))
        return error_set(
            err, STATUS_USAGE,
            "pins: gradients=bf16 is for layers in bf16, of which the precision that is "
            "pinned leaves none; pin precision=bf16 or leave one of the two out");
    return STATUS_OK;
}

enum status pins_parse(struct pins *out, const char *text, struct error *err)
{
    struct pins pins = {0};
    if (strlen(text) >= PLAN_PINS_BYTES)
        return error_set(err, STATUS_USAGE, "pins: %zu characters, at most %d are kept with a plan",
                         strlen(text), PLAN_PINS_BYTES - 1);
    TRY(parse_pass(&pins, text, false, err));
    TRY(parse_pass(&pins, text, true, err));
    TRY(check_together(&pins, err));
    *out = pins;
    return STATUS_OK;
}

/* ---- what holds for a layer ---- */

struct pins pins_of_layer(const struct pins *pins, enum layer_kind kind, int64_t block)
{
    struct pins out = *pins;
    out.range_count = 0;
    for (int of_one_kind = 0; of_one_kind <= 1; of_one_kind++) {
        for (size_t i = 0; i < pins->range_count; i++) {
            const struct range_pin *range = &pins->ranges[i];
            bool is_for_kind = of_one_kind ? range->kind == kind : range->kind == LAYER_KIND_COUNT;
            if (is_for_kind && block >= range->first && block <= range->last &&
                mode_rows[range->mode].set != NULL)
                mode_rows[range->mode].set(&out, (int)kind, range->value);
        }
    }
    return out;
}

bool pins_are_alike(const struct pins *a, const struct pins *b, enum layer_kind kind)
{
    return a->tensor_parallel[kind] == b->tensor_parallel[kind] &&
           a->sequence_parallel_fixed[kind] == b->sequence_parallel_fixed[kind] &&
           a->sequence_parallel[kind] == b->sequence_parallel[kind] &&
           a->zero_fixed[kind] == b->zero_fixed[kind] &&
           a->zero_stage[kind] == b->zero_stage[kind] &&
           a->recompute_fixed[kind] == b->recompute_fixed[kind] &&
           a->recompute[kind] == b->recompute[kind] &&
           a->precision_fixed[kind] == b->precision_fixed[kind] &&
           a->precision[kind] == b->precision[kind] &&
           a->attention_fixed[kind] == b->attention_fixed[kind] &&
           a->attention[kind] == b->attention[kind];
}

static bool *fixed_of(struct pins *pins, enum pin_mode mode, int kind)
{
    switch (mode) {
    case PIN_SEQUENCE_PARALLEL:
        return &pins->sequence_parallel_fixed[kind];
    case PIN_ZERO:
        return &pins->zero_fixed[kind];
    case PIN_RECOMPUTE:
        return &pins->recompute_fixed[kind];
    case PIN_PRECISION:
        return &pins->precision_fixed[kind];
    case PIN_ATTENTION:
        return &pins->attention_fixed[kind];
    default:
        return NULL;
    }
}

bool pins_drop_mode(struct pins *pins, enum pin_mode mode)
{
    bool was_set = false;
    size_t kept = 0;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        bool *fixed = fixed_of(pins, mode, kind);
        if (fixed != NULL) {
            was_set |= *fixed;
            *fixed = false;
        } else if (mode == PIN_TENSOR_PARALLEL) {
            was_set |= pins->tensor_parallel[kind] > 0;
            pins->tensor_parallel[kind] = 0;
        }
    }
    for (size_t i = 0; i < pins->range_count; i++)
        if (pins->ranges[i].mode != mode)
            pins->ranges[kept++] = pins->ranges[i];
    was_set |= kept < pins->range_count;
    pins->range_count = kept;
    return was_set;
}

/* ---- what they are for ---- */

enum status pins_check_model(const struct pins *pins, const struct model *model, struct error *err)
{
    for (size_t i = 0; i < pins->range_count; i++) {
        const struct range_pin *range = &pins->ranges[i];
        if (range->last >= model->blocks)
            return error_set(err, STATUS_USAGE, "pin '%s%s%s:%lld-%lld': %s has blocks 0 to %lld",
                             mode_rows[range->mode].key, range->kind < LAYER_KIND_COUNT ? ":" : "",
                             range->kind < LAYER_KIND_COUNT ? layer_kind_name(range->kind) : "",
                             (long long)range->first, (long long)range->last, model->name,
                             (long long)model->blocks - 1);
    }
    return STATUS_OK;
}

enum status pins_check_measured(const struct pins *pins, struct error *err)
{
    const char *key = pins->context > 0             ? "cp"
                      : pins->expert > 0            ? "ep"
                      : pins->shard > 0             ? "shard"
                      : pins->offload_fixed         ? "offload"
                      : pins->fused_attention_fixed ? "fused-attention"
                      : pins->overlap_fixed         ? "overlap"
                                                    : NULL;
    for (size_t i = 0; i < pins->range_count; i++)
        key = pins->ranges[i].mode == PIN_ARITHMETIC ? "arithmetic" : key;
    if (key != NULL)
        return error_set(err, STATUS_USAGE,
                         "pin '%s': it goes with --cluster; what a profile measures has none", key);
    if (pins->schedule_fixed && pins->schedule >= SCHEDULE_RUN_COUNT)
        return error_set(err, STATUS_USAGE,
                         "pin 'schedule=%s': it is plan-only and goes with --cluster",
                         schedule_name(pins->schedule));
    return STATUS_OK;
}
