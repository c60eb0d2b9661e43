#include "traces/communication.h"
#include <math.h>
#include <stdlib.h>

static void add(struct communication_sum *to, const struct communication_sum *sum, double factor)
{
    to->calls += sum->calls * factor;
    to->bytes += sum->bytes * factor;
    to->flight_s += sum->flight_s * factor;
    to->waited_s += sum->waited_s * factor;
}

static void add_event(struct communication *out, const struct run_record *record,
                      const struct event *event)
{
    struct communication_sum sum = {
        .calls = 1,
        .bytes = (double)event->live_bytes,
        .flight_s = (double)(event->end_ns - event->start_ns) * 1e-9,
        .waited_s = (double)event->waited_ns * 1e-9,
    };
    struct communication_sum *of_phase = out->sums[event->phase];
    add(&of_phase[COMMUNICATION_ALL], &sum, 1);
    if (event->phase == PHASE_PIPELINE || event->layer == EVENT_NO_LAYER)
        return;
    add(&of_phase[model_layer(&record->plan.model, (size_t)event->layer).kind], &sum, 1);
}

static void divide(struct communication *out)
{
    double factor = 1 / (double)out->step_count;
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        for (int kind = 0; kind <= LAYER_KIND_COUNT; kind++) {
            struct communication_sum sum = out->sums[phase][kind];
            out->sums[phase][kind] = (struct communication_sum){0};
            add(&out->sums[phase][kind], &sum, factor);
        }
    }
}

enum status communication_measure(const struct run_record *record, struct communication *out,
                                  struct error *err)
{
    size_t ranks = (size_t)record->plan.ranks;
    *out = (struct communication){0};
    /* A rank's events come in the order of its steps. */
    int64_t *next_step = calloc(ranks, sizeof(*next_step));
    if (!next_step)
        return error_memory(err, ranks * sizeof(*next_step), "steps by rank");
    for (size_t i = 0; i < record->event_count; i++) {
        const struct event *event = &record->events[i];
        if (event->step >= next_step[event->rank]) {
            next_step[event->rank] = event->step + 1;
            out->step_count++;
        }
        if (event->stream == STREAM_COMM)
            add_event(out, record, event);
    }
    free(next_step);
    if (out->step_count > 0)
        divide(out);
    return STATUS_OK;
}

double communication_hidden_s(const struct communication_sum *sum)
{
    return fmax(sum->flight_s - sum->waited_s, 0);
}

double communication_hidden_share(const struct communication_sum *sum)
{
    return sum->flight_s > 0 ? communication_hidden_s(sum) / sum->flight_s : NAN;
}

struct communication_sum communication_total(const struct communication *communication)
{
    struct communication_sum total = {0};
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        add(&total, &communication->sums[phase][COMMUNICATION_ALL], 1);
    return total;
}
