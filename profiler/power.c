#include "profiler/power.h"
#include "base/clock.h"
#include <math.h>
#include <time.h>
#include <unistd.h>

static bool is_counted(const struct session *session)
{
    return session->meter && energy_available(session->meter);
}

enum status power_read(const struct session *session, struct energy_reading *out, struct error *err)
{
    *out = (struct energy_reading){0};
    if (!is_counted(session))
        return STATUS_OK;
    TRY(energy_read_joules(session->meter, &out->joules, err));
    out->at_s = clock_s();
    return STATUS_OK;
}

enum status power_add(const struct session *session, struct energy_reading *from,
                      struct energy_tally *tally, struct error *err)
{
    struct energy_reading now;
    TRY(power_read(session, &now, err));
    tally->joules += now.joules - from->joules;
    tally->seconds += now.at_s - from->at_s;
    *from = now;
    return STATUS_OK;
}

static bool is_given(const struct power_model *power)
{
    return power->idle_watts >= 0 && power->active_watts >= power->idle_watts;
}

static double modelled_watts(const struct session *session)
{
    const struct power_model *power = &session->request->power;
    double cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
    double busy = (double)(comm_local_size(session->comm) * device_threads(session->device));
    double share = fmin(1.0, busy / fmax(1.0, cores));
    return power->idle_watts + (power->active_watts - power->idle_watts) * share;
}

enum status power_emit(struct session *session, struct measurement row,
                       const struct summary *seconds, const struct energy_tally *tally,
                       struct error *err)
{
    double watts = 0;
    row.provenance = PROVENANCE_ABSENT;
    if (is_counted(session) && tally->seconds > 0 && tally->joules > 0) {
        watts = tally->joules / tally->seconds;
        row.provenance = PROVENANCE_MEASURED;
    } else if (is_given(&session->request->power)) {
        watts = modelled_watts(session);
        row.provenance = PROVENANCE_MODELLED;
    }
    double rank_watts = watts / (double)comm_local_size(session->comm);
    row.n = row.provenance == PROVENANCE_ABSENT ? 0 : seconds->n;
    row.mean = rank_watts * seconds->mean;
    row.deviation = rank_watts * seconds->deviation;
    return session_emit(session, row, err);
}

static void sleep_s(double seconds)
{
    struct timespec duration = {.tv_sec = (time_t)seconds};
    duration.tv_nsec = (long)((seconds - floor(seconds)) * 1e9);
    (void)nanosleep(&duration, NULL);
}

/* Watts of the host while all ranks do nothing or multiply matrices. */
static enum status count_watts(struct session *session, bool active, double seconds, double *watts,
                               struct error *err)
{
    struct energy_tally tally = {0};
    struct energy_reading reading;
    double flops = 0;
    TRY(comm_barrier(session->comm, err));
    TRY(power_read(session, &reading, err));
    if (active)
        TRY(device_measure_matmul(session->device, PRECISION_FP32, seconds, &flops, err));
    else
        sleep_s(seconds);
    TRY(power_add(session, &reading, &tally, err));
    *watts = tally.seconds > 0 ? tally.joules / tally.seconds : 0;
    return comm_barrier(session->comm, err);
}

static enum status emit_watts(struct session *session, enum metric metric, double watts,
                              enum provenance provenance, struct error *err)
{
    struct measurement row = {.subject = "machine", .metric = metric, .provenance = provenance};
    if (provenance == PROVENANCE_ABSENT)
        return session_emit(session, row, err);
    return session_emit_value(session, row, watts, err);
}

enum status power_measure_host(struct session *session, double seconds, struct error *err)
{
    const struct power_model *given = &session->request->power;
    double idle_watts = given->idle_watts, active_watts = given->active_watts;
    enum provenance provenance = is_given(given) ? PROVENANCE_MODELLED : PROVENANCE_ABSENT;
    bool counted = is_counted(session);
    TRY(session_agree(session, &counted, err));
    if (counted) {
        TRY(count_watts(session, false, seconds, &idle_watts, err));
        TRY(count_watts(session, true, seconds, &active_watts, err));
        provenance = PROVENANCE_MEASURED;
    } else if (is_given(given)) {
        active_watts = modelled_watts(session);
    }
    /* One host is read or described; the others are taken to be like it. */
    double hosts = ceil((double)comm_size(session->comm) / comm_local_size(session->comm));
    if (hosts > 1 && counted)
        provenance = PROVENANCE_MODELLED;
    TRY(emit_watts(session, METRIC_IDLE_W, hosts * idle_watts, provenance, err));
    return emit_watts(session, METRIC_ACTIVE_W, hosts * active_watts, provenance, err);
}
