#include "ir/names.h"
#include "planner/planner.h"
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_BYTES = 64, COUNT_MAX = 1 << 16, BATCH_MAX = 1 << 30 };

/* One "key[:kind]=value". */
struct pin {
    char key[WORD_BYTES], kind[WORD_BYTES], value[WORD_BYTES];
};

static const char expected[] =
    "expected pp=N, dp=N, v=N, schedule=gpipe|1f1b|interleaved, micro-batch=N, micro-batches=N, "
    "threads=N, tp[:KIND]=N, sp[:KIND]=on|off, zero[:KIND]=0|1|2|3, "
    "recompute[:KIND]=none|selective|full or precision[:KIND]=fp32|bf16|fp16, separated by commas; "
    "KIND is one of embedding, attention, mlp, head";

static enum status refuse(const struct pin *pin, const char *why, struct error *err)
{
    return error_set(err, STATUS_USAGE, "pin '%s%s%s%s%s': %s; %s", pin->key,
                     pin->kind[0] ? ":" : "", pin->kind, pin->value[0] ? "=" : "", pin->value, why,
                     expected);
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

static enum status take_pin(const char **at, struct pin *out, struct error *err)
{
    *out = (struct pin){.key = ""};
    bool fits = take_word(at, ":=,", out->key);
    if (**at == ':') {
        (*at)++;
        fits = take_word(at, "=,", out->kind) && fits;
        if (out->kind[0] == '\0')
            return refuse(out, "nothing between ':' and '='", err);
    }
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

static bool admits_recompute(enum layer_kind kind, int value)
{
    return layer_admits_recompute(kind, (enum recompute)value);
}

static bool admits_precision(enum layer_kind kind, int value)
{
    return layer_admits_precision(kind, (enum precision)value);
}

static const char *const switches[] = {"off", "on"};
static const struct name_list switch_names = {switches, sizeof(switches) / sizeof(*switches)};

static const struct mode_row {
    const char *key;
    const struct name_list *names; /* NULL: whole numbers from `least` to `most` */
    int least, most;
    const char *refusal;
    void (*set)(struct pins *out, int kind, int value);
    bool (*admits)(enum layer_kind kind, int value); /* NULL: every kind admits all */
} mode_rows[] = {
    {.key = "tp",
     .least = 1,
     .most = COUNT_MAX,
     .refusal = "not a whole number of at least 1, or too large",
     .set = set_tensor_parallel},
    {.key = "sp",
     .names = &switch_names,
     .refusal = "neither on nor off",
     .set = set_sequence_parallel},
    {.key = "zero", .least = 0, .most = 3, .refusal = "not a ZeRO stage", .set = set_zero},
    {.key = "recompute",
     .names = &recompute_names,
     .refusal = "unknown recompute mode",
     .set = set_recompute,
     .admits = admits_recompute},
    {.key = "precision",
     .names = &precision_names,
     .refusal = "unknown precision",
     .set = set_precision,
     .admits = admits_precision},
};

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

/* For one kind, or for all when no kind is named. */
static enum status set_mode(struct pins *out, const struct mode_row *row, const struct pin *pin,
                            struct error *err)
{
    enum layer_kind only = LAYER_KIND_COUNT;
    int value;
    if (pin->kind[0] != '\0' && !layer_kind_parse(pin->kind, &only))
        return refuse(pin, "unknown kind of layer", err);
    if (!mode_parse(row, pin->value, &value))
        return refuse(pin, row->refusal, err);
    if (only != LAYER_KIND_COUNT && row->admits != NULL && !row->admits(only, value))
        return refuse(pin, "this kind of layer cannot do that", err);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        if (only == LAYER_KIND_COUNT || only == (enum layer_kind)kind)
            row->set(out, kind, value);
    }
    return STATUS_OK;
}

/* ---- the text ---- */

static enum status set_pin(struct pins *out, const struct pin *pin, struct error *err)
{
    for (size_t i = 0; i < sizeof(mode_rows) / sizeof(*mode_rows); i++) {
        if (strcmp(pin->key, mode_rows[i].key) == 0)
            return set_mode(out, &mode_rows[i], pin, err);
    }
    if (pin->kind[0] != '\0')
        return refuse(pin, "only tp, sp, zero, recompute and precision are by kind of layer", err);
    for (size_t i = 0; i < sizeof(number_rows) / sizeof(*number_rows); i++) {
        if (strcmp(pin->key, number_rows[i].key) == 0)
            return set_number(out, &number_rows[i], pin, err);
    }
    if (strcmp(pin->key, "schedule") == 0)
        return set_schedule(out, pin, err);
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
