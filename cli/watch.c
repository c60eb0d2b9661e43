#include "cli/watch.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMED_MAX = 6 /* ranks named in a message; of more, how many */ };

/* A watcher that did not run for so long was itself stopped, with the signs waiting unread. */
static const double ASLEEP_S = 2.0;

enum status watch_open(struct watch *watch, int ranks, double timeout_s, struct error *err)
{
    *watch = (struct watch){.count = ranks, .timeout_s = timeout_s};
    watch->ranks = calloc((size_t)ranks, sizeof *watch->ranks);
    if (watch->ranks == NULL)
        return error_memory(err, (size_t)ranks * sizeof *watch->ranks, "what is known of ranks");
    return STATUS_OK;
}

void watch_close(struct watch *watch)
{
    free(watch->ranks);
    *watch = (struct watch){0};
}

void watch_hear(struct watch *watch, const struct pulse_sign *sign, double now_s)
{
    if (sign->rank < 0 || sign->rank >= watch->count)
        return;
    struct watched_rank *rank = &watch->ranks[sign->rank];
    if (!watch->is_begun) {
        watch->is_begun = true;
        watch->begun_s = watch->looked_s = now_s;
    }
    if (!rank->is_known || sign->count != rank->sign.count || sign->step != rank->sign.step)
        rank->moved_s = now_s;
    rank->is_known = true;
    rank->heard_s = now_s;
    rank->sign = *sign;
}

int64_t watch_step(const struct watch *watch, int rank)
{
    return rank >= 0 && rank < watch->count ? watch->ranks[rank].sign.step : 0;
}

/* ---- words ---- */

/* A list of ranks that grows in a text. */
struct words {
    char *text;
    size_t bytes;
};

__attribute__((format(printf, 2, 3))) static void append(struct words *words, const char *format,
                                                         ...)
{
    va_list arguments;
    if (words->bytes >= WATCH_TEXT_BYTES)
        return;
    va_start(arguments, format);
    int length =
        vsnprintf(words->text + words->bytes, WATCH_TEXT_BYTES - words->bytes, format, arguments);
    va_end(arguments);
    words->bytes += length > 0 ? (size_t)length : 0;
}

static int count_of(const struct watch *watch, enum verdict wanted)
{
    int found = 0;
    for (int i = 0; i < watch->count; i++)
        found += watch->ranks[i].verdict == wanted;
    return found;
}

/* There is one. */
static const struct watched_rank *first_of(const struct watch *watch, enum verdict wanted)
{
    const struct watched_rank *rank = watch->ranks;
    while (rank->verdict != wanted)
        rank++;
    return rank;
}

/* "rank 1", "ranks 0, 1 and 5" */
static void append_ranks(struct words *words, const struct watch *watch, enum verdict wanted)
{
    int total = count_of(watch, wanted), named = 0;
    append(words, total == 1 ? "rank" : "ranks");
    for (int i = 0; i < watch->count && named < NAMED_MAX; i++)
        if (watch->ranks[i].verdict == wanted) {
            const char *before = named == 0 ? " " : named + 1 == total ? " and " : ", ";
            append(words, "%s%d", before, i);
            named++;
        }
    if (total > named)
        append(words, " and %d more", total - named);
}

/* ---- judging ---- */

static double last_heard_s(const struct watch *watch, const struct watched_rank *rank)
{
    return rank->is_known ? rank->heard_s : watch->begun_s;
}

static bool find_silent(struct watch *watch, double now_s)
{
    bool any = false;
    for (int i = 0; i < watch->count; i++) {
        struct watched_rank *rank = &watch->ranks[i];
        bool is_silent =
            !rank->sign.has_ended && now_s - last_heard_s(watch, rank) >= watch->timeout_s;
        rank->verdict = is_silent ? RANK_SILENT : RANK_FINE;
        any |= is_silent;
    }
    return any;
}

static void name_silent(const struct watch *watch, double now_s, struct words *words)
{
    const struct watched_rank *first = first_of(watch, RANK_SILENT);
    bool is_one = count_of(watch, RANK_SILENT) == 1;
    append_ranks(words, watch, RANK_SILENT);
    append(words, " %s not been heard of for %.0f s", is_one ? "has" : "have",
           now_s - last_heard_s(watch, first));
    if (first->sign.step > 0)
        append(words, ", last at step %" PRId64, first->sign.step);
    append(words, ": %s stopped, or %s host is gone", is_one ? "it is" : "they are",
           is_one ? "its" : "their");
}

/* No rank that is still at work has moved for the timeout. Ranks that start may take their time. */
static bool find_stuck(struct watch *watch, double now_s)
{
    bool any = false;
    for (int i = 0; i < watch->count; i++) {
        struct watched_rank *rank = &watch->ranks[i];
        rank->verdict = RANK_FINE;
        if (rank->sign.has_ended)
            continue;
        if (!rank->is_known || rank->sign.step == 0 || now_s - rank->moved_s < watch->timeout_s)
            return false;
        rank->verdict = rank->sign.call[0] != '\0' ? RANK_WAITING : RANK_STUCK;
        any = true;
    }
    return any;
}

static void name_all_waiting(const struct watch *watch, double now_s, struct words *words)
{
    const struct watched_rank *first = first_of(watch, RANK_WAITING);
    int named = 0;
    append(words, "no rank has got on for %.0f s at step %" PRId64 ": each waits for another (",
           now_s - first->moved_s, first->sign.step);
    for (int i = 0; i < watch->count && named < NAMED_MAX; i++)
        if (watch->ranks[i].verdict == RANK_WAITING)
            append(words, "%srank %d in %s", named++ == 0 ? "" : ", ", i,
                   watch->ranks[i].sign.call);
    append(words, "%s)", count_of(watch, RANK_WAITING) > named ? ", ..." : "");
}

static void name_stuck(const struct watch *watch, double now_s, struct words *words)
{
    int stuck = count_of(watch, RANK_STUCK), waiting = count_of(watch, RANK_WAITING);
    if (stuck == 0) {
        name_all_waiting(watch, now_s, words);
        return;
    }
    const struct watched_rank *first = first_of(watch, RANK_STUCK);
    append_ranks(words, watch, RANK_STUCK);
    append(words, " %s worked on step %" PRId64 " for %.0f s without getting on",
           stuck == 1 ? "has" : "have", first->sign.step, now_s - first->moved_s);
    if (waiting > 0)
        append(words, " while %d %s for %s in %s", waiting,
               waiting == 1 ? "rank waits" : "ranks wait", stuck == 1 ? "it" : "them",
               first_of(watch, RANK_WAITING)->sign.call);
}

static void forgive(struct watch *watch, double asleep_s)
{
    watch->begun_s += asleep_s;
    for (int i = 0; i < watch->count; i++) {
        watch->ranks[i].heard_s += asleep_s;
        watch->ranks[i].moved_s += asleep_s;
    }
}

bool watch_judge(struct watch *watch, double now_s, char why[WATCH_TEXT_BYTES])
{
    struct words words = {.text = why};
    if (watch->timeout_s <= 0 || !watch->is_begun)
        return false;
    double asleep_s = now_s - watch->looked_s;
    watch->looked_s = now_s;
    if (asleep_s > ASLEEP_S)
        forgive(watch, asleep_s);
    if (find_silent(watch, now_s))
        name_silent(watch, now_s, &words);
    else if (find_stuck(watch, now_s))
        name_stuck(watch, now_s, &words);
    else
        return false;
    return true;
}
