/* Records what one rank does: every event into running sums by layer and phase, and the events
 * themselves for a few steps spread over the run. Memory is fixed at creation; recording one event
 * takes well under a microsecond and never allocates.
 *
 * Of an event the sums take what it cost the recording thread and no other event did: of one of
 * compute end - start - waited_ns, of one of communication waited_ns (ir/event.h). So the sums of
 * all phases add up to the step, though communication flies while compute goes on. One thread at a
 * time may record. */
#ifndef TEMPER_TRACES_RECORDER_H
#define TEMPER_TRACES_RECORDER_H

#include "base/error.h"
#include "ir/event.h"
#include "ir/plan.h"
#include "store/store.h"
#include <stddef.h>
#include <stdint.h>

struct recorder;

struct recorder_options {
    size_t layer_count;
    int64_t first_step; /* this run's first and its end: which steps are kept is chosen from them */
    int64_t end_step;
    int64_t kept_steps;   /* steps whose events are kept in full, spread evenly over those after the
                             warm-up, the first of them always; 0: none */
    int64_t warmup_steps; /* at the start, left out of the sums; all but one of a shorter run */
    size_t events_per_step; /* expected; a fuller step drops events and counts them */
    int32_t rank;
};

/* At most this many events does a rank record in a step of this plan (what executor/journal.h's
 * callers tell), for recorder_options.events_per_step. */
size_t recorder_step_events(const struct plan *plan, int rank);

enum status recorder_open(struct recorder **out, const struct recorder_options *options,
                          struct error *err);
void recorder_close(struct recorder *recorder); /* NULL allowed */
/* For trainer: records into this recorder. */
struct event_sink recorder_sink(struct recorder *recorder);
/* Tell that a step is over: its events enter the sums (per step, per layer and phase). What
 * `seconds` has beyond the recorded phases is the whole step's PHASE_OTHER. */
void recorder_step_end(struct recorder *recorder, int64_t step, double seconds);
uint64_t recorder_dropped(const struct recorder *recorder);

/* Kept events, and the sums as rows for the store; owned by the recorder, valid until it closes.
 * Rows of a layer: the phases it was ever seen in. Rows of the whole step: every phase. */
const struct event *recorder_events(const struct recorder *recorder, size_t *count);
const struct layer_time *recorder_layer_times(struct recorder *recorder, size_t *count);

#endif
