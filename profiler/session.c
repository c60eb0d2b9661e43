#include "profiler/session.h"
#include "base/clock.h"
#include "base/stats.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#define NORMAL_INTERQUARTILE 1.349 /* quartile distance of a normal distribution, in deviations */

bool session_leads(const struct session *session)
{
    return comm_rank(session->comm) == 0;
}

double session_elapsed_s(const struct session *session)
{
    return clock_s() - session->start_s;
}

void session_progress(struct session *session, const char *what)
{
    if (session->done < session->total)
        session->done++;
    if (session_leads(session))
        report_progress(&session->request->reporter, what, session->done - 1, session->total);
}

void session_note(struct session *session, const struct summary *summary)
{
    session->kept += summary->n;
    session->dropped += summary->dropped;
}

enum status session_agree(struct session *session, bool *decision, struct error *err)
{
    unsigned char word = *decision ? 1 : 0;
    TRY(comm_broadcast(session->comm, &word, sizeof(word), 0, err));
    *decision = word != 0;
    return STATUS_OK;
}

enum status session_emit(struct session *session, struct measurement row, struct error *err)
{
    if (!session_leads(session))
        return STATUS_OK;
    row.ranks = comm_size(session->comm);
    row.threads = device_threads(session->device);
    row.measured_unix_ms = clock_unix_ms();
    return session->sink->add(session->sink->user, &row, err);
}

enum status session_emit_value(struct session *session, struct measurement row, double value,
                               struct error *err)
{
    row.n = 1;
    row.mean = value;
    row.deviation = 0;
    return session_emit(session, row, err);
}

enum status session_emit_waiting(struct session *session, struct measurement row,
                                 struct samples *samples, struct error *err)
{
    assert(samples->count > 0);
    row.mean = fmax(0.0, stats_median(samples->values, samples->count)); /* sorts */
    struct samples all = {.values = samples->values, .count = samples->count, .keeps_all = true};
    if (session->is_crowded)
        row.mean = fmax(0.0, samples_summary(&all).mean);
    size_t quarter = samples->count / 4;
    double between = samples->values[samples->count - 1 - quarter] - samples->values[quarter];
    row.n = samples->count;
    row.deviation = between / NORMAL_INTERQUARTILE;
    row.provenance = PROVENANCE_MEASURED;
    return session_emit(session, row, err);
}

enum status session_pool(struct session *session, const struct samples *samples,
                         struct summary *out, struct error *err)
{
    void *gathered = NULL;
    size_t *bytes_by_rank = calloc((size_t)comm_size(session->comm), sizeof(bytes_by_rank[0]));
    if (!bytes_by_rank)
        return error_memory(err, (unsigned long long)comm_size(session->comm), "timings");
    enum status status =
        comm_gather_bytes(session->comm, samples->values, samples->count * sizeof(double),
                          &gathered, bytes_by_rank, err);
    struct summary summary = {0};
    if (status == STATUS_OK && session_leads(session)) {
        struct samples all = {.values = gathered, .keeps_all = session->is_crowded};
        for (int rank = 0; rank < comm_size(session->comm); rank++)
            all.count += bytes_by_rank[rank] / sizeof(double);
        summary = samples_summary(&all);
        session_note(session, &summary);
    }
    free(bytes_by_rank);
    free(gathered);
    if (status == STATUS_OK)
        *out = summary;
    return status;
}

enum status session_emit_samples(struct session *session, struct measurement row,
                                 const struct samples *samples, struct summary *out,
                                 struct error *err)
{
    struct summary summary;
    TRY(session_pool(session, samples, &summary, err));
    row.n = summary.n;
    row.mean = summary.mean;
    row.deviation = summary.deviation;
    row.provenance = PROVENANCE_MEASURED;
    if (out)
        *out = summary;
    return session_emit(session, row, err);
}

enum status session_allocate(struct session *session, size_t bytes, void **out, struct error *err)
{
    TRY(device_allocate(session->device, bytes, out, err));
    session->allocated_bytes += bytes;
    return STATUS_OK;
}

void session_free(struct session *session, void *data, size_t bytes)
{
    if (!data)
        return;
    device_free(session->device, data, bytes);
    session->allocated_bytes -= bytes;
}
