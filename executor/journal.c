#include "executor/journal.h"

#include "base/clock.h"
#include "base/liveness.h"

static void record(struct journal *journal, struct event event)
{
    if (journal->sink.record == NULL)
        return;
    event.end_ns = clock_ns();
    event.step = journal->step;
    event.rank = journal->rank;
    event.micro_batch = journal->micro_batch;
    journal->sink.record(journal->sink.user, &event);
}

int64_t journal_begin(struct journal *journal, int32_t layer)
{
    liveness_advance();
    journal->layer = layer;
    journal->waited_ns = 0;
    return clock_ns();
}

void journal_end(struct journal *journal, enum phase phase, int64_t start_ns)
{
    record(journal, (struct event){
                        .start_ns = start_ns,
                        .layer = journal->layer,
                        .stream = STREAM_COMPUTE,
                        .phase = (uint8_t)phase,
                        .live_bytes = journal->live_bytes,
                        .waited_ns = journal->waited_ns,
                    });
}

void journal_communication(struct journal *journal, enum phase phase, int32_t layer,
                           int64_t start_ns, int64_t wait_ns, uint64_t bytes)
{
    int64_t waited_ns = clock_ns() - wait_ns;
    journal->waited_ns += waited_ns;
    record(journal, (struct event){
                        .start_ns = start_ns,
                        .layer = layer,
                        .stream = STREAM_COMM,
                        .phase = (uint8_t)phase,
                        .live_bytes = bytes,
                        .waited_ns = waited_ns,
                    });
}

void journal_other(struct journal *journal, int64_t start_ns)
{
    record(journal, (struct event){
                        .start_ns = start_ns,
                        .layer = EVENT_NO_LAYER,
                        .stream = STREAM_COMPUTE,
                        .phase = PHASE_OTHER,
                    });
}
