/* What happened in a run: one event is one piece of work of one rank. */
#ifndef TEMPER_IR_EVENT_H
#define TEMPER_IR_EVENT_H

#include "ir/layer.h"
#include <stdint.h>

enum event_stream { STREAM_COMPUTE, STREAM_COMM, STREAM_COUNT };
const char *event_stream_name(enum event_stream stream); /* "compute", "comm" */

enum { EVENT_NO_LAYER = -1 };

struct event {
    int64_t start_ns, end_ns; /* base/clock.h */
    int64_t step;
    int32_t rank;
    int32_t layer;       /* index in the chain, or EVENT_NO_LAYER */
    int32_t micro_batch; /* index within the step */
    uint8_t stream;      /* enum event_stream */
    uint8_t phase;       /* enum phase */
    uint64_t live_bytes; /* activations alive after it; for comm: bytes moved */
    /* Of a comm event, from its start until its data had arrived: how long the rank did nothing but
     * wait for it. The rest was hidden behind compute. Of a compute event: how long of it was spent
     * in comm events of its own, so that compute alone is end - start - waited. */
    int64_t waited_ns;
};

/* Who wants to know: called on the thread that worked, must be fast. NULL function: nobody. */
struct event_sink {
    void *user;
    void (*record)(void *user, const struct event *event);
};

#endif
