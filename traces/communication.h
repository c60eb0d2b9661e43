/* What the recorded steps communicated, and how much of it compute hid. */
#ifndef TEMPER_TRACES_COMMUNICATION_H
#define TEMPER_TRACES_COMMUNICATION_H

#include "base/error.h"
#include "store/store.h"

/* Of one step, the mean over ranks and recorded steps. The rest of the flight was hidden. */
struct communication_sum {
    double calls, bytes;
    double flight_s; /* from start to arrival; flights at the same time count each */
    double waited_s; /* exposed: the rank did nothing else */
};

enum { COMMUNICATION_ALL = LAYER_KIND_COUNT }; /* sum over layer kinds */

struct communication {
    /* Of a phase without events all are 0. PHASE_PIPELINE is no layer's: it has a sum only. */
    struct communication_sum sums[PHASE_COUNT][LAYER_KIND_COUNT + 1];
    size_t step_count; /* steps of one rank that any event was recorded of; 0: nothing is known */
};

/* The record's events fit its plan (compare_run looks). */
enum status communication_measure(const struct run_record *record, struct communication *out,
                                  struct error *err);
double communication_hidden_s(const struct communication_sum *sum);
/* Share of the flight that was hidden, 0 to 1; NaN when nothing flew. */
double communication_hidden_share(const struct communication_sum *sum);
/* Over all phases. */
struct communication_sum communication_total(const struct communication *communication);

#endif
