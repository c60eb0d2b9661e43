#include "planner/planner.h"
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_BYTES = 64 };

/* One "key[:kind]=value". */
struct pin {
    char key[WORD_BYTES], kind[WORD_BYTES], value[WORD_BYTES];
};

static const char expected[] = "expected micro-batch=N, micro-batches=N, dp=N, threads=N, "
                               "recompute[:KIND]=none|selective|full or "
                               "precision[:KIND]=fp32|bf16, separated by commas; KIND is one of "
                               "embedding, attention, mlp, head";

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

/* ---- what a pin sets ---- */

static enum status parse_number(const struct pin *pin, int64_t most, int64_t *out,
                                struct error *err)
{
    char *end;
    errno = 0;
    long long value = strtoll(pin->value, &end, 10);
    if (*end != '\0' || errno != 0 || value < 1 || value > most)
        return refuse(pin, "not a whole number of at least 1", err);
    if (*out != 0)
        return refuse(pin, "given twice", err);
    *out = value;
    return STATUS_OK;
}

static enum status set_number(struct pins *out, const struct pin *pin, bool *known,
                              struct error *err)
{
    enum { BATCH_MAX = 1 << 30 };
    int64_t dp = out->data_parallel, threads = out->threads;
    *known = true;
    if (strcmp(pin->key, "micro-batch") == 0)
        return parse_number(pin, BATCH_MAX, &out->micro_batch, err);
    if (strcmp(pin->key, "micro-batches") == 0)
        return parse_number(pin, BATCH_MAX, &out->micro_batches, err);
    if (strcmp(pin->key, "dp") == 0) {
        TRY(parse_number(pin, INT_MAX, &dp, err));
        out->data_parallel = (int)dp;
        return STATUS_OK;
    }
    if (strcmp(pin->key, "threads") == 0) {
        TRY(parse_number(pin, INT_MAX, &threads, err));
        out->threads = (int)threads;
        return STATUS_OK;
    }
    *known = false;
    return STATUS_OK;
}

/* For one kind, or for all when no kind is named. */
static enum status set_mode(struct pins *out, const struct pin *pin, bool *known, struct error *err)
{
    bool is_recompute = strcmp(pin->key, "recompute") == 0;
    bool is_precision = strcmp(pin->key, "precision") == 0;
    enum recompute recompute = RECOMPUTE_NONE;
    enum precision precision = PRECISION_FP32;
    enum layer_kind only = LAYER_KIND_COUNT;
    *known = is_recompute || is_precision;
    if (!*known)
        return STATUS_OK;
    if (pin->kind[0] != '\0' && !layer_kind_parse(pin->kind, &only))
        return refuse(pin, "unknown kind of layer", err);
    if (is_recompute && !recompute_parse(pin->value, &recompute))
        return refuse(pin, "unknown recompute mode", err);
    if (is_precision && !precision_parse(pin->value, &precision))
        return refuse(pin, "unknown precision", err);
    if (only != LAYER_KIND_COUNT && ((is_recompute && !layer_admits_recompute(only, recompute)) ||
                                     (is_precision && !layer_admits_precision(only, precision))))
        return refuse(pin, "this kind of layer cannot do that", err);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        if (only != LAYER_KIND_COUNT && only != (enum layer_kind)kind)
            continue;
        if (is_recompute) {
            out->recompute_fixed[kind] = true;
            out->recompute[kind] = recompute;
        } else {
            out->precision_fixed[kind] = true;
            out->precision[kind] = precision;
        }
    }
    return STATUS_OK;
}

/* One pass over the text: pins of all kinds, or those of one kind, which stand before them. */
static enum status parse_pass(struct pins *out, const char *text, bool of_one_kind,
                              struct error *err)
{
    for (const char *at = text;; at++) {
        struct pin pin;
        bool is_number, is_mode;
        TRY(take_pin(&at, &pin, err));
        bool names_kind = pin.kind[0] != '\0';
        if (names_kind == of_one_kind) {
            TRY(set_mode(out, &pin, &is_mode, err));
            if (!is_mode && names_kind)
                return refuse(&pin, "only recompute and precision are by kind of layer", err);
            is_number = false;
            if (!is_mode)
                TRY(set_number(out, &pin, &is_number, err));
            if (!is_mode && !is_number)
                return refuse(&pin, "unknown key", err);
        }
        if (*at == '\0')
            return STATUS_OK;
    }
}

enum status pins_parse(struct pins *out, const char *text, struct error *err)
{
    struct pins pins = {0};
    if (strlen(text) >= PLAN_PINS_BYTES)
        return error_set(err, STATUS_USAGE, "pins: %zu characters, at most %d are kept with a plan",
                         strlen(text), PLAN_PINS_BYTES - 1);
    TRY(parse_pass(&pins, text, false, err));
    TRY(parse_pass(&pins, text, true, err));
    *out = pins;
    return STATUS_OK;
}
