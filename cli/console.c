#include "base/clock.h"
#include "base/host.h"
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_bool progress_shown; /* also asked by the thread that warns of long waits */

static bool on_terminal(void)
{
    /* Ranks under mpirun write into a pipe whose other end may be the user's terminal. */
    return isatty(STDERR_FILENO) || getenv("TEMPER_PROGRESS") != NULL;
}

static void show_progress(void *user, const char *what, size_t done, size_t total)
{
    static double shown_s;
    (void)user;
    if (!on_terminal() || (clock_s() - shown_s < 0.1 && done != total))
        return;
    shown_s = clock_s();
    progress_shown = true;
    fprintf(stderr, "\r\033[K%3zu%%  %s", total == 0 ? 0 : done * 100 / total, what);
    fflush(stderr);
}

void console_progress_end(void)
{
    if (atomic_exchange(&progress_shown, false))
        fputs("\r\033[K", stderr);
}

static void show_warning(void *user, const char *message)
{
    (void)user;
    console_warning("%s", message);
}

void console_warning(const char *format, ...)
{
    va_list arguments;
    flockfile(stderr); /* no other thread's line gets into this one */
    console_progress_end();
    fputs("temper: warning: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    funlockfile(stderr);
}

struct reporter console_reporter(void)
{
    return (struct reporter){.progress = show_progress, .warning = show_warning};
}

void warn_when_oversubscribed(int ranks, int threads)
{
    struct host_info host;
    host_query(&host);
    if (ranks * threads > host.cores)
        console_warning("%d ranks x %d threads on %d cores: ranks will wait for each other, and "
                        "times will not be those of the plan",
                        ranks, threads, host.cores);
}

void write_quantity(const char *key, const struct quantity *quantity, struct jout *out)
{
    if (quantity->provenance == PROVENANCE_ABSENT)
        jout_null(out, key);
    else
        jout_real(out, key, quantity->value);
}

void write_energy(const struct quantity *energy_j, struct jout *out)
{
    write_quantity("energy_j", energy_j, out);
    jout_string(out, "energy_provenance", provenance_name(energy_j->provenance));
}

enum status console_json(struct jout *out, struct error *err)
{
    struct text text = {0};
    enum status status = jout_finish(out, 2, &text, err);
    if (status == STATUS_OK)
        puts(text.data);
    text_free(&text);
    return status;
}

enum status parse_int_list(const char *text, const char *option, int64_t *out, size_t capacity,
                           size_t *count, struct error *err)
{
    size_t found = 0;
    const char *at = text;
    while (*at != '\0') {
        char *end = NULL;
        errno = 0;
        long long value = strtoll(at, &end, 10);
        bool ended = *end == ',' || *end == '\0';
        if (end == at || errno != 0 || !ended || value < 1)
            return error_set(err, STATUS_USAGE,
                             "option --%s: '%s' is not a list of positive integers such as 1,2,4",
                             option, text);
        if (found == capacity)
            return error_set(err, STATUS_USAGE, "option --%s: at most %zu values", option,
                             capacity);
        if (found > 0 && value <= out[found - 1])
            return error_set(err, STATUS_USAGE, "option --%s: '%s' must ascend", option, text);
        out[found++] = value;
        at = *end == ',' ? end + 1 : end;
    }
    if (found == 0)
        return error_set(err, STATUS_USAGE, "option --%s: the list is empty", option);
    *count = found;
    return STATUS_OK;
}

enum status model_from_arguments(const struct model_arguments *arguments, struct model *out,
                                 struct error *err)
{
    if (arguments->source == NULL)
        return error_set(err, STATUS_USAGE,
                         "--model is missing: give an HF config.json or a built-in name such as "
                         "gpt2 or llama-3-8b");
    return model_load(out, arguments->source, &arguments->sizes, err);
}

enum status parse_precisions(const char *text, bool wanted[PRECISION_COUNT], struct error *err)
{
    const char *at = text;
    for (int i = 0; i < PRECISION_COUNT; i++)
        wanted[i] = false;
    while (*at != '\0') {
        char word[16] = "";
        size_t bytes = strcspn(at, ",");
        enum precision precision;
        if (bytes < sizeof word)
            memcpy(word, at, bytes);
        if (!precision_parse(word, &precision))
            return error_set(err, STATUS_USAGE,
                             "option --precision: '%s' is not a list of fp32, bf16 and fp16", text);
        wanted[precision] = true;
        at += bytes + (at[bytes] == ',');
    }
    return STATUS_OK;
}
