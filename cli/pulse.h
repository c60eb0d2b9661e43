/* Signs of life of a rank: a thread that tells the launching process once a second where the rank
 * stands. It works beside the rank's own thread, calls no MPI, and goes on while that one waits.
 *
 * A sign is one line on standard error that begins with a byte no message has; the launcher's
 * relay takes it out again (cli/relay.h), so that it crosses hosts with whatever carries the
 * messages. Where no temper started the ranks nobody takes signs out, and none are written: there
 * rank 0's thread warns by itself when its rank waits for longer than the timeout. */
#ifndef TEMPER_CLI_PULSE_H
#define TEMPER_CLI_PULSE_H

#include "base/error.h"
#include "cli/pulse_sign.h"
#include "ir/event.h"
#include <stdbool.h>
#include <stdint.h>

enum { PULSE_INTERVAL_S = 1 };

struct pulse;

struct pulse_setup {
    int rank;
    bool is_watched;   /* by a temper that started this rank */
    int64_t timeout_s; /* 0: none */
};

enum status pulse_start(struct pulse **out, const struct pulse_setup *setup, struct error *err);
void pulse_stop(struct pulse *pulse); /* NULL allowed; says that the rank's work is over */

/* By the rank's own thread: the step that it begins, from 1. */
void pulse_step(struct pulse *pulse, int64_t step);
/* Tell the launcher what to look for in the store if this run dies. Before it is noted there. */
void pulse_run(struct pulse *pulse, int64_t started_unix_ms);
/* Passes events on to `inner` (whose function may be NULL); each is a piece of work done. */
struct event_sink pulse_sink(struct pulse *pulse, struct event_sink inner);

#endif
