/* What all parts of one profile_placement share: who takes part, where rows go, common decisions.
 */
#ifndef TEMPER_PROFILER_SESSION_H
#define TEMPER_PROFILER_SESSION_H

#include "profiler/energy.h"
#include "profiler/profiler.h"
#include "profiler/samples.h"

struct session {
    const struct profile_request *request;
    struct comm *comm;
    struct device *device;
    const struct measurement_sink *sink; /* rank 0's */
    struct energy_meter *meter;          /* rank 0's; NULL on the others */
    bool precisions[PRECISION_COUNT];    /* measured: wanted, and computed by every rank's device */
    bool is_crowded;                     /* threads of some host's ranks outnumber its cores */
    uint64_t memory_limit_bytes;         /* of this rank; the same on all */
    uint64_t allocated_bytes;            /* by session_allocate, not yet freed */
    double start_s;
    size_t done, total;     /* pieces of work, for the progress line */
    uint64_t kept, dropped; /* samples under the rule of samples.h, on rank 0 */
};

bool session_leads(const struct session *session); /* rank 0 */
double session_elapsed_s(const struct session *session);
/* Report that the next piece of work begins. */
void session_progress(struct session *session, const char *what);

/* Count what a summary kept and dropped. */
void session_note(struct session *session, const struct summary *summary);

/* Rank 0's *decision is everybody's. Collective. */
enum status session_agree(struct session *session, bool *decision, struct error *err);
/* Rank 0's sink gets the row; placement, time and defaults are filled in here. */
enum status session_emit(struct session *session, struct measurement row, struct error *err);
/* A row that is not the mean of samples: n = 1, deviation 0. */
enum status session_emit_value(struct session *session, struct measurement row, double value,
                               struct error *err);
/* Pool the samples of all ranks; on rank 0 *out is their summary, elsewhere zero. Collective. */
enum status session_pool(struct session *session, const struct samples *samples,
                         struct summary *out, struct error *err);
/* Pool, and emit `row` as measured with the summary, which *out receives (NULL allowed). */
enum status session_emit_samples(struct session *session, struct measurement row,
                                 const struct samples *samples, struct summary *out,
                                 struct error *err);

/* Of what ranks spend on each other, samples that all ranks have alike. Waiting varies by more than
 * SAMPLE_CUTOFF without anything being disturbed, so nothing is dropped: the row has the median (of
 * a crowded host the mean), and as deviation that of a normal distribution with the same quartiles.
 * At least one sample, which are reordered. */
enum status session_emit_waiting(struct session *session, struct measurement row,
                                 struct samples *samples, struct error *err);

enum status session_allocate(struct session *session, size_t bytes, void **out, struct error *err);
void session_free(struct session *session, void *data, size_t bytes);

#endif
