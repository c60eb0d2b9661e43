#include "cli/pulse.h"

#include "base/clock.h"
#include "base/liveness.h"
#include "cli/cli.h"
#include "executor/comm/comm.h"
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const int64_t NS_PER_MS = 1000000, NS_PER_S = 1000000000;

struct pulse {
    struct pulse_setup setup;
    struct event_sink inner;
    atomic_int_fast64_t step;
    pthread_t thread;
    pthread_mutex_t lock; /* of is_over and is_at_work */
    pthread_cond_t news;  /* the next sign is due at once */
    bool is_over, is_at_work;
    /* The thread's own. */
    int64_t waiting_since_ns; /* when last looked; 0: it did not wait */
    uint64_t calls_seen;      /* how often that was another time than before */
    bool has_warned;          /* of the wait since then */
};

/* One write of less than a pipe's atomic size, so that no other line gets into it. */
static void send_line(const char *line)
{
    char framed[PULSE_LINE_BYTES + 2];
    int bytes = snprintf(framed, sizeof framed, "%c%s\n", PULSE_MARK, line);
    ssize_t written;
    do
        written = write(STDERR_FILENO, framed, (size_t)bytes);
    while (written < 0 && errno == EINTR);
}

/* ---- the thread ---- */

static struct pulse_sign look(struct pulse *pulse, int64_t now_ns)
{
    const char *call = NULL;
    int64_t since_ns = comm_waiting_since_ns(&call);
    if (since_ns != pulse->waiting_since_ns) {
        pulse->calls_seen++;
        pulse->has_warned = false;
    }
    pulse->waiting_since_ns = since_ns;
    struct pulse_sign sign = {
        .rank = pulse->setup.rank,
        .step = atomic_load(&pulse->step),
        .count = liveness_count() + pulse->calls_seen,
        .waiting_ms = since_ns == 0 ? 0 : (now_ns - since_ns) / NS_PER_MS,
    };
    if (since_ns != 0)
        snprintf(sign.call, sizeof sign.call, "%s", call);
    return sign;
}

static void warn_of_a_long_wait(struct pulse *pulse, const struct pulse_sign *sign)
{
    if (pulse->setup.rank != 0 || pulse->setup.timeout_s == 0 || pulse->has_warned ||
        sign->waiting_ms < pulse->setup.timeout_s * 1000)
        return;
    pulse->has_warned = true;
    console_warning("rank 0 has waited in %s for %" PRId64 " s at step %" PRId64
                    ": another rank is stopped, gone, or does not get on",
                    sign->call, sign->waiting_ms / 1000, sign->step);
}

static void beat(struct pulse *pulse, bool has_ended)
{
    struct pulse_sign sign = look(pulse, clock_ns());
    if (!pulse->setup.is_watched) {
        warn_of_a_long_wait(pulse, &sign);
        return;
    }
    char line[PULSE_LINE_BYTES];
    sign.has_ended = has_ended;
    pulse_format(&sign, line);
    send_line(line);
}

/* Until a second has passed or there is news. With the lock. */
static void rest(struct pulse *pulse)
{
    int64_t next_ns = clock_ns() + PULSE_INTERVAL_S * NS_PER_S;
    struct timespec next = {.tv_sec = next_ns / NS_PER_S, .tv_nsec = next_ns % NS_PER_S};
    bool was_at_work = pulse->is_at_work;
    while (!pulse->is_over && pulse->is_at_work == was_at_work &&
           pthread_cond_timedwait(&pulse->news, &pulse->lock, &next) == 0)
        continue;
}

static void *work(void *user)
{
    struct pulse *pulse = user;
    pthread_mutex_lock(&pulse->lock);
    while (!pulse->is_over) {
        pthread_mutex_unlock(&pulse->lock);
        beat(pulse, false);
        pthread_mutex_lock(&pulse->lock);
        rest(pulse);
    }
    pthread_mutex_unlock(&pulse->lock);
    beat(pulse, true);
    return NULL;
}

/* Signals stay the business of the rank's own thread. */
static int start_thread(struct pulse *pulse)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&pulse->thread, NULL, work, pulse);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

enum status pulse_start(struct pulse **out, const struct pulse_setup *setup, struct error *err)
{
    struct pulse *pulse = calloc(1, sizeof *pulse);
    pthread_condattr_t monotonic;
    if (pulse == NULL)
        return error_memory(err, sizeof *pulse, "the thread of signs of life");
    pulse->setup = *setup;
    pthread_mutex_init(&pulse->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC); /* that of clock_ns */
    pthread_cond_init(&pulse->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int code = start_thread(pulse);
    if (code != 0) {
        pthread_cond_destroy(&pulse->news);
        pthread_mutex_destroy(&pulse->lock);
        free(pulse);
        return error_set(err, STATUS_FAILED, "starting the thread of signs of life: %s",
                         strerror(code));
    }
    *out = pulse;
    return STATUS_OK;
}

static void tell(struct pulse *pulse, bool *news)
{
    pthread_mutex_lock(&pulse->lock);
    *news = true;
    pthread_cond_signal(&pulse->news);
    pthread_mutex_unlock(&pulse->lock);
}

void pulse_stop(struct pulse *pulse)
{
    if (pulse == NULL)
        return;
    tell(pulse, &pulse->is_over);
    pthread_join(pulse->thread, NULL);
    pthread_cond_destroy(&pulse->news);
    pthread_mutex_destroy(&pulse->lock);
    free(pulse);
}

/* ---- what the rank's own thread tells ---- */

void pulse_step(struct pulse *pulse, int64_t step)
{
    liveness_advance();
    if (atomic_exchange(&pulse->step, step) == 0)
        tell(pulse, &pulse->is_at_work);
}

void pulse_run(struct pulse *pulse, int64_t started_unix_ms)
{
    char line[PULSE_LINE_BYTES];
    if (!pulse->setup.is_watched)
        return;
    pulse_format_run(started_unix_ms, line);
    send_line(line);
}

static void count_and_pass_on(void *user, const struct event *event)
{
    struct pulse *pulse = user;
    liveness_advance();
    if (pulse->inner.record != NULL)
        pulse->inner.record(pulse->inner.user, event);
}

struct event_sink pulse_sink(struct pulse *pulse, struct event_sink inner)
{
    pulse->inner = inner;
    return (struct event_sink){.user = pulse, .record = count_and_pass_on};
}
