#include "profiler/step.h"
#include "base/clock.h"
#include "base/stats.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

/* Below this a measurement says only that the machine was disturbed. */
#define OVERLAP_LEAST (-3.0)

enum { REPEATS_MINIMUM = 3, REPEATS_MAXIMUM = 40 };

struct step {
    struct chain *chain;
    struct session *session;
    struct chain_time *forward, *backward; /* [layer_count] */
    struct comm_request **requests;        /* [layer_count] */
    struct samples overhead;               /* the ranks' mean, the same at all */
    struct samples with, without, alone;   /* the slowest rank's */
};

static enum status start_reduction(void *user, size_t layer, struct error *err)
{
    struct step *step = user;
    const struct chain_layer *place = &step->chain->layers[layer];
    if (place->kind != LAYER_EMBEDDING)
        TRY(comm_all_reduce_start(step->session->comm, step->chain->gradients + place->first,
                                  place->count, &step->requests[layer], err));
    comm_poll(step->session->comm);
    return STATUS_OK;
}

static enum status finish_reductions(struct step *step, struct error *err)
{
    for (size_t i = step->chain->layer_count; i-- > 0;) {
        struct comm_request *request = step->requests[i];
        step->requests[i] = NULL;
        if (request)
            TRY(comm_wait(step->session->comm, request, err));
    }
    return STATUS_OK;
}

static enum status keep_slowest(struct step *step, struct samples *samples, int64_t elapsed_ns,
                                bool keep, struct error *err)
{
    TRY(comm_all_reduce_max_i64(step->session->comm, &elapsed_ns, 1, err));
    return keep ? samples_add(samples, (double)elapsed_ns * 1e-9, err) : STATUS_OK;
}

/* One micro-batch as a step of its own. */
static enum status run_step(struct step *step, bool reduce, bool keep, struct error *err)
{
    struct chain *chain = step->chain;
    struct chain_hook hook = {start_reduction, step};
    double loss = 0;
    TRY(comm_barrier(step->session->comm, err));
    int64_t start_ns = clock_ns();
    TRY(chain_forward(chain, step->forward, err));
    int64_t middle_ns = clock_ns();
    TRY(chain_backward(chain, false, reduce ? &hook : NULL, step->backward, err));
    TRY(finish_reductions(step, err));
    int64_t backward_ns = clock_ns() - middle_ns;
    TRY(comm_all_reduce_sum_f64(step->session->comm, &loss, 1, err));
    int64_t other_ns = clock_ns() - start_ns;
    for (size_t i = 0; i < chain->layer_count; i++)
        other_ns -= step->forward[i].compute + step->backward[i].compute;
    double other_s = (double)other_ns * 1e-9 / comm_size(step->session->comm);
    TRY(comm_all_reduce_sum_f64(step->session->comm, &other_s, 1, err));
    if (!reduce && keep)
        TRY(samples_add(&step->overhead, other_s, err));
    return keep_slowest(step, reduce ? &step->with : &step->without, backward_ns, keep, err);
}

static enum status reduce_alone(struct step *step, bool keep, struct error *err)
{
    TRY(comm_barrier(step->session->comm, err));
    int64_t start_ns = clock_ns();
    for (size_t i = step->chain->layer_count; i-- > 0;) {
        const struct chain_layer *layer = &step->chain->layers[i];
        struct comm_request *request = NULL;
        if (layer->kind == LAYER_EMBEDDING)
            continue;
        TRY(comm_all_reduce_start(step->session->comm, step->chain->gradients + layer->first,
                                  layer->count, &request, err));
        TRY(comm_wait(step->session->comm, request, err));
    }
    return keep_slowest(step, &step->alone, clock_ns() - start_ns, keep, err);
}

static enum status repeat(struct step *step, double seconds, struct error *err)
{
    struct session *session = step->session;
    bool several = comm_size(session->comm) > 1;
    double until_s = session_elapsed_s(session) + seconds;
    bool more = true;
    for (int repeats = 0; more; repeats++) {
        bool keep = repeats > 0; /* the first warms up */
        TRY(run_step(step, false, keep, err));
        if (several) {
            TRY(run_step(step, true, keep, err));
            TRY(reduce_alone(step, keep, err));
        }
        more = repeats < REPEATS_MINIMUM ||
               (session_elapsed_s(session) < until_s && repeats < REPEATS_MAXIMUM);
        TRY(session_agree(session, &more, err));
    }
    return STATUS_OK;
}

static enum status emit_overlap(struct step *step, struct error *err)
{
    struct summary with = samples_summary(&step->with);
    struct summary without = samples_summary(&step->without);
    struct summary alone = samples_summary(&step->alone);
    session_note(step->session, &with);
    session_note(step->session, &without);
    session_note(step->session, &alone);
    double hidden = alone.mean > 0 ? 1.0 - (with.mean - without.mean) / alone.mean : 0.0;
    /* A ratio of means has no samples of its own: what counts is how well the means are known. */
    double deviation = hypot(with.deviation / sqrt(fmax(1.0, (double)with.n)),
                             without.deviation / sqrt(fmax(1.0, (double)without.n)));
    struct measurement row = {
        .subject = "machine",
        .metric = METRIC_OVERLAP,
        .n = with.n < without.n ? with.n : without.n,
        .mean = fmin(1.0, fmax(OVERLAP_LEAST, hidden)),
        .deviation = alone.mean > 0 ? fmin(1.0, deviation / alone.mean) : 0.0,
        .provenance = PROVENANCE_MEASURED,
    };
    return session_emit(step->session, row, err);
}

static enum status emit_overhead(struct step *step, struct error *err)
{
    struct measurement row = {.subject = "machine", .metric = METRIC_STEP_OVERHEAD_S};
    return session_emit_waiting(step->session, row, &step->overhead, err);
}

static enum status measure(struct step *step, double seconds, struct error *err)
{
    TRY(repeat(step, seconds, err));
    TRY(emit_overhead(step, err));
    return comm_size(step->session->comm) > 1 ? emit_overlap(step, err) : STATUS_OK;
}

enum status step_measure(struct chain *chain, struct chain_setting setting, double seconds,
                         struct error *err)
{
    session_progress(chain->session, "whole steps");
    TRY(chain_reserve(chain, chain_activation_bytes(chain, setting), err));
    TRY(chain_bind(chain, setting, err));
    struct step step = {.chain = chain, .session = chain->session};
    step.forward = calloc(chain->layer_count, sizeof(step.forward[0]));
    step.backward = calloc(chain->layer_count, sizeof(step.backward[0]));
    step.requests = calloc(chain->layer_count, sizeof(step.requests[0]));
    enum status status;
    if (!step.forward || !step.backward || !step.requests)
        status = error_memory(err, chain->layer_count * sizeof(step.forward[0]), "step timings");
    else
        status = measure(&step, seconds, err);
    samples_free(&step.alone);
    samples_free(&step.without);
    samples_free(&step.with);
    samples_free(&step.overhead);
    free(step.requests);
    free(step.backward);
    free(step.forward);
    return status;
}
