#include "traces/figures.h"
#include "base/units.h"
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const struct headline headlines[HEADLINE_COUNT] = {
    {"step time", "step_time_s", "median", FIGURE_SECONDS,
     offsetof(struct run_comparison, step_time_s)},
    {"peak memory", "peak_bytes", "fullest rank", FIGURE_BYTES,
     offsetof(struct run_comparison, peak_bytes)},
    {"energy", "energy_j", "a step, all ranks", FIGURE_JOULES,
     offsetof(struct run_comparison, energy_j)},
    {"throughput", "tokens_per_s", "all ranks", FIGURE_TOKENS_PER_S,
     offsetof(struct run_comparison, tokens_per_s)},
};

const struct comparison *headline_of(const struct run_comparison *comparison, size_t index)
{
    const void *at = (const char *)comparison + headlines[index].offset;
    return at;
}

const char *figure_value(enum figure_kind kind, struct quantity quantity,
                         char buffer[FIGURE_TEXT_BYTES])
{
    char text[UNIT_TEXT_BYTES];
    const char *suffix = "";
    if (quantity.provenance == PROVENANCE_ABSENT) {
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "absent");
        return buffer;
    }
    switch (kind) {
    case FIGURE_SECONDS:
        (void)format_seconds(quantity.value, text);
        break;
    case FIGURE_BYTES:
        (void)format_bytes(quantity.value, text);
        break;
    case FIGURE_JOULES:
        (void)format_joules(quantity.value, text);
        break;
    case FIGURE_TOKENS_PER_S:
        (void)format_grouped((uint64_t)fmax(quantity.value + 0.5, 0), text);
        suffix = " tok/s";
        break;
    }
    (void)snprintf(buffer, FIGURE_TEXT_BYTES, "%s%s", text, suffix);
    return buffer;
}

const char *figure_error(const struct comparison *comparison, char buffer[FIGURE_TEXT_BYTES])
{
    if (!comparison->has_error) {
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "-");
        return buffer;
    }
    double percent = 100 * comparison->error;
    /* Without this a rounded zero would keep its sign. */
    if (fabs(percent) < 0.05)
        percent = 0;
    (void)snprintf(buffer, FIGURE_TEXT_BYTES, "%+.*f %%", fabs(percent) < 1000 ? 1 : 0, percent);
    return buffer;
}

const char *figure_ratio(const struct rank_spread *spread, size_t rank_count,
                         char buffer[FIGURE_TEXT_BYTES])
{
    if (rank_count < 2 || !(spread->minimum_s > 0))
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "-");
    else
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "%.2f", spread->maximum_s / spread->minimum_s);
    return buffer;
}

const char *figure_stage(const struct run_comparison *comparison, char buffer[FIGURE_TEXT_BYTES])
{
    int predicted = comparison->predicted_stage, measured = comparison->measured_stage;
    if (measured < 0)
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "absent");
    else if (predicted < 0 || predicted == measured)
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "stage %d", measured);
    else
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "stage %d (predicted: of stage %d)", measured,
                       predicted);
    return buffer;
}

const char *figure_share(double share, char buffer[FIGURE_TEXT_BYTES])
{
    if (isfinite(share))
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "%.1f %%", 100 * share);
    else
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "-");
    return buffer;
}

bool figure_is_idle(const struct comparison *comparison)
{
    const struct quantity *predicted = &comparison->predicted, *measured = &comparison->measured;
    return measured->provenance != PROVENANCE_ABSENT && measured->value == 0 &&
           (predicted->provenance == PROVENANCE_ABSENT || predicted->value == 0);
}

/* ---- how a plan splits its work ---- */

const char *figure_split(const struct plan *plan, const char *times, char buffer[FIGURE_LINE_BYTES])
{
    const struct {
        const char *name;
        int degree;
    } splits[] = {
        {"data", plan->data_parallel},
        {"tensor", plan->tensor_parallel},
        {"pipeline", plan->pipeline},
    };
    int at =
        snprintf(buffer, FIGURE_LINE_BYTES, "%d rank%s", plan->ranks, plan->ranks == 1 ? "" : "s");
    const char *sign = "=";
    for (size_t i = 0; i < sizeof(splits) / sizeof(splits[0]); i++) {
        if (splits[i].degree == 1)
            continue;
        at += snprintf(buffer + at, FIGURE_LINE_BYTES - (size_t)at, " %s %s %d", sign,
                       splits[i].name, splits[i].degree);
        sign = times;
    }
    return buffer;
}

const char *figure_schedule(const struct plan *plan, char buffer[FIGURE_TEXT_BYTES])
{
    if (plan->pipeline == 1)
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "none");
    else if (plan->virtual_stages > 1)
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "%s over %d stages x %d chunks",
                       schedule_name(plan->schedule), plan->pipeline, plan->virtual_stages);
    else
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "%s over %d stages",
                       schedule_name(plan->schedule), plan->pipeline);
    return buffer;
}

bool figure_has_strategies(const struct plan *plan)
{
    bool any = plan->pipeline > 1 || plan->tensor_parallel > 1;
    for (size_t i = 0; i < plan->layer_count; i++)
        any = any || plan->layers[i].zero_stage > 0;
    return any;
}

static void join(char buffer[FIGURE_TEXT_BYTES], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Behind what is there, with a comma between. */
static void join(char buffer[FIGURE_TEXT_BYTES], const char *format, ...)
{
    size_t at = strlen(buffer);
    va_list arguments;
    if (at > 0)
        at += (size_t)snprintf(buffer + at, FIGURE_TEXT_BYTES - at, ", ");
    va_start(arguments, format);
    (void)vsnprintf(buffer + at, FIGURE_TEXT_BYTES - at, format, arguments);
    va_end(arguments);
}

const char *figure_strategy(const struct plan *plan, const struct layer_strategy *strategy,
                            char buffer[FIGURE_TEXT_BYTES])
{
    buffer[0] = '\0';
    if (plan->pipeline > 1)
        join(buffer, "stage %d", strategy->stage % plan->pipeline);
    if (plan->virtual_stages > 1)
        join(buffer, "chunk %d", strategy->stage / plan->pipeline);
    if (strategy->tensor_parallel > 1)
        join(buffer, "t %d%s", strategy->tensor_parallel,
             strategy->sequence_parallel ? " + sp" : "");
    if (strategy->zero_stage > 0)
        join(buffer, "ZeRO %d", strategy->zero_stage);
    if (buffer[0] == '\0')
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "-");
    return buffer;
}

const char *figure_layer(struct layer layer, char buffer[FIGURE_TEXT_BYTES])
{
    const char *name = layer_kind_name(layer.kind);
    if (layer.kind == LAYER_ATTENTION || layer.kind == LAYER_MLP)
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "%s %" PRId64, name, layer.block);
    else
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "%s", name);
    return buffer;
}

const char *figure_date(int64_t unix_ms, char buffer[FIGURE_TEXT_BYTES])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm date;
    if (unix_ms <= 0 || !gmtime_r(&seconds, &date) ||
        strftime(buffer, FIGURE_TEXT_BYTES, "%Y-%m-%d %H:%M UTC", &date) == 0)
        (void)snprintf(buffer, FIGURE_TEXT_BYTES, "absent");
    return buffer;
}

/* Bytes of the well-formed UTF-8 character at `c` that may stand in a document, or 0. The ranges of
 * the second byte keep out overlong forms, surrogates and what is beyond U+10FFFF (RFC 3629). */
static size_t character_bytes(const unsigned char *c)
{
    unsigned low = 0x80, high = 0xbf;
    if (c[0] < 0x80)
        return c[0] >= 0x20 && c[0] != 0x7f ? 1 : 0;
    if (c[0] < 0xc2 || c[0] > 0xf4)
        return 0;
    if (c[0] == 0xc2)
        low = 0xa0; /* U+0080 to U+009F are control characters */
    if (c[0] == 0xe0)
        low = 0xa0;
    if (c[0] == 0xed)
        high = 0x9f;
    if (c[0] == 0xf0)
        low = 0x90;
    if (c[0] == 0xf4)
        high = 0x8f;
    if (c[1] < low || c[1] > high)
        return 0;
    /* U+FFFE and U+FFFF may not stand in XML. */
    if (c[0] == 0xef && c[1] == 0xbf && c[2] >= 0xbe)
        return 0;
    size_t bytes = c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
    for (size_t i = 2; i < bytes; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    return bytes;
}

void figure_clean(const char *string, struct text *out)
{
    while (*string != '\0') {
        size_t bytes = character_bytes((const unsigned char *)string);
        if (bytes > 0)
            text_append_bytes(out, string, bytes);
        else if (*string == '\n' || *string == '\t' || *string == '\r')
            text_append(out, " ");
        else
            text_append(out, "\xef\xbf\xbd");
        string += bytes > 0 ? bytes : 1;
    }
}

void figure_clean_html(const char *string, struct text *out)
{
    struct text clean = {0};
    figure_clean(string, &clean);
    if (clean.failed)
        out->failed = true;
    else if (clean.data)
        text_append_html(out, clean.data);
    text_free(&clean);
}
