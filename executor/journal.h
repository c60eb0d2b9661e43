/* Where a rank stands in its step, and the events it records about it.
 *
 * Time that the rank waits for communication inside a compute event is added up here, so that the
 * event can say how much of it was compute alone. */
#ifndef TEMPER_EXECUTOR_JOURNAL_H
#define TEMPER_EXECUTOR_JOURNAL_H

#include "ir/event.h"

struct journal {
    struct event_sink sink; /* NULL function: nobody listens */
    int32_t rank;
    int64_t step;
    int32_t micro_batch;
    int32_t layer;
    int64_t waited_ns;   /* since the last journal_begin */
    uint64_t live_bytes; /* activations between their forward and their backward */
};

/* The compute event of this layer starts now; returns when that is. */
int64_t journal_begin(struct journal *journal, int32_t layer);
/* It ends now. */
void journal_end(struct journal *journal, enum phase phase, int64_t start_ns);
/* Communication started at `start_ns`, the rank has waited for it since `wait_ns`, and it ends now.
 */
void journal_communication(struct journal *journal, enum phase phase, int32_t layer,
                           int64_t start_ns, int64_t wait_ns, uint64_t bytes);
/* Work of no layer, from `start_ns` until now. */
void journal_other(struct journal *journal, int64_t start_ns);

#endif
