#include "profiler/profiler.h"
#include "base/clock.h"
#include "base/host.h"
#include "profiler/layers.h"
#include "profiler/links.h"
#include "profiler/process.h"
#include "profiler/step.h"
#include <math.h>

/* How the time budget is shared: of what is left when each part begins. */
#define LAYERS_SHARE         0.75
#define LAYERS_SHARE_ALONE   0.9 /* a single rank has no links */
#define OPTIMIZER_SHARE      0.08
#define STEP_SHARE           0.4
#define LINKS_LEAST_SHARE    0.1  /* of the whole budget, should what came before have overrun */
#define RATE_SHARE           0.01 /* of the whole budget, for each rate */
#define RATE_SECONDS_MINIMUM 0.02
#define RATE_SECONDS_MAXIMUM 0.25
/* More disturbed samples than this are worth a word. */
#define DISTURBED_SHARE 0.25
/* Without a limit the ranks of a host share this much of its memory. */
#define MEMORY_SHARE 0.75

enum { MACHINE_PIECES = PRECISION_COUNT + 1 };

static double left_s(const struct session *session)
{
    return fmax(0.0, session->request->budget_s - session_elapsed_s(session));
}

/* ---- the machine ---- */

static double rate_seconds(const struct session *session)
{
    double seconds = RATE_SHARE * session->request->budget_s;
    return fmin(RATE_SECONDS_MAXIMUM, fmax(RATE_SECONDS_MINIMUM, seconds));
}

/* The device repeats and keeps its best by itself: one sample a rank. */
static enum status measure_matmul(struct session *session, enum precision precision, double *flops,
                                  struct error *err)
{
    struct measurement row = {
        .subject = "machine", .metric = METRIC_MATMUL_FLOPS, .precision = precision};
    session_progress(session, "matrix products");
    TRY(comm_barrier(session->comm, err));
    TRY(device_measure_matmul(session->device, precision, rate_seconds(session), flops, err));
    struct samples samples = {.values = flops, .count = 1};
    return session_emit_samples(session, row, &samples, NULL, err);
}

static enum status measure_copy(struct session *session, struct error *err)
{
    struct measurement row = {.subject = "machine", .metric = METRIC_COPY_BYTES_S};
    double rate = 0;
    session_progress(session, "memory copies");
    TRY(comm_barrier(session->comm, err));
    TRY(device_measure_copy(session->device, rate_seconds(session), &rate, err));
    struct samples samples = {.values = &rate, .count = 1};
    return session_emit_samples(session, row, &samples, NULL, err);
}

/* What this device computes of the precisions asked for; the same for all ranks. */
static enum status choose_precisions(struct session *session, struct error *err)
{
    bool any = false;
    for (unsigned p = 0; p < PRECISION_COUNT; p++) {
        bool *measured = &session->precisions[p];
        *measured =
            session->request->precisions[p] && device_supports(session->device, (enum precision)p);
        TRY(session_agree(session, measured, err));
        any |= *measured;
    }
    if (any)
        return STATUS_OK;
    return error_set(err, STATUS_UNSUPPORTED,
                     "none of the precisions asked for is one that this device (%s) computes in",
                     device_libraries(session->device));
}

/* Process memory, one precision after the other (see process_measure), then rates: large matrix
 * products grow the libraries' buffers beyond what layers need. matmul_flops receives this rank's
 * rates, 0 for a precision that is not measured. */
static enum status measure_precisions(struct chain *chain, double matmul_flops[PRECISION_COUNT],
                                      struct error *err)
{
    const bool *is_measured = chain->session->precisions;
    for (unsigned p = PRECISION_COUNT; p-- > 0;)
        if (is_measured[p])
            TRY(process_measure(chain, (enum precision)p, err));
    for (unsigned p = 0; p < PRECISION_COUNT; p++) {
        matmul_flops[p] = 0;
        if (is_measured[p])
            TRY(measure_matmul(chain->session, (enum precision)p, &matmul_flops[p], err));
    }
    return STATUS_OK;
}

/* ---- layers ---- */

static enum status measure_sizes(struct layers *layers, struct session *session,
                                 struct sweep *sweep, struct error *err)
{
    for (size_t i = 0; i < sweep->size_count; i++) {
        bool measured = false;
        TRY(layers_measure_size(layers, i, &measured, err));
        if (!measured) {
            if (session_leads(session) && !sweep->is_automatic)
                sweep_warn_left_out(sweep, i, &session->request->reporter);
            sweep->size_count = i;
        } else if (i == 0) {
            TRY(layers_measure_optimizer(layers, OPTIMIZER_SHARE * left_s(session), err));
        }
    }
    TRY(layers_revisit(layers, err));
    return layers_emit(layers, err);
}

/* Whole steps in the middle one of the sizes measured. */
static enum status measure_step(struct chain *chain, const struct sweep *sweep, struct error *err)
{
    const struct sweep_size *size = &sweep->sizes[sweep->size_count / 2];
    double seconds = STEP_SHARE * left_s(chain->session);
    return step_measure(chain, size->settings[0].setting, seconds, err);
}

static enum status measure_layers(struct chain *chain, const double matmul_flops[PRECISION_COUNT],
                                  struct error *err)
{
    struct session *session = chain->session;
    struct sweep sweep;
    struct layers *layers = NULL;
    bool is_alone = comm_size(session->comm) == 1;
    double seconds = (is_alone ? LAYERS_SHARE_ALONE : LAYERS_SHARE) * left_s(session);
    TRY(sweep_plan(&sweep, chain, matmul_flops, seconds, err));
    /* Rates and clocks differ from rank to rank: rank 0's choice of sizes holds. */
    uint64_t size_count = sweep.size_count;
    TRY(comm_broadcast(session->comm, &size_count, sizeof(size_count), 0, err));
    sweep.size_count = (size_t)size_count;
    TRY(layers_open(&layers, chain, &sweep, session_elapsed_s(session) + seconds, err));
    session->total +=
        LAYERS_ROUNDS * sweep_pieces(&sweep) + layers_optimizer_pieces(layers) + STEP_PIECES;
    enum status status = measure_sizes(layers, session, &sweep, err);
    layers_close(layers);
    if (status == STATUS_OK)
        status = measure_step(chain, &sweep, err);
    return status;
}

/* ---- all ---- */

static enum status measure_chain(struct session *session, struct error *err)
{
    struct chain chain;
    double matmul_flops[PRECISION_COUNT];
    bool with_16 = session->precisions[PRECISION_BF16] || session->precisions[PRECISION_FP16];
    TRY(chain_open(&chain, session, with_16, session->memory_limit_bytes / 2, err));
    enum status status = measure_precisions(&chain, matmul_flops, err);
    if (status == STATUS_OK)
        status = measure_layers(&chain, matmul_flops, err);
    chain_close(&chain);
    return status;
}

static void warn_if_disturbed(const struct session *session)
{
    double all = (double)session->kept + (double)session->dropped;
    if ((double)session->dropped <= DISTURBED_SHARE * all)
        return;
    report_warning(
        &session->request->reporter,
        "%.0f %% of the timings with %d x %d threads were disturbed and left out: measure "
        "again when the machine is idle",
        100.0 * (double)session->dropped / all, comm_size(session->comm),
        device_threads(session->device));
}

static enum status measure_all(struct session *session, struct error *err)
{
    session->total = MACHINE_PIECES + links_pieces(session);
    TRY(choose_precisions(session, err));
    TRY(measure_copy(session, err));
    struct measurement host_ranks = {
        .subject = "machine", .metric = METRIC_HOST_RANKS, .provenance = PROVENANCE_MEASURED};
    TRY(session_emit_value(session, host_ranks, comm_local_size(session->comm), err));
    TRY(power_measure_host(session, rate_seconds(session), err));
    TRY(measure_chain(session, err));
    double least_s = LINKS_LEAST_SHARE * session->request->budget_s;
    TRY(links_measure(session, fmax(least_s, left_s(session)), err));
    if (session_leads(session)) {
        warn_if_disturbed(session);
        report_progress(&session->request->reporter, "done", session->total, session->total);
    }
    return STATUS_OK;
}

static uint64_t limit_of(const struct profile_request *request, const struct comm *comm)
{
    struct host_info host;
    if (request->memory_limit_bytes > 0)
        return request->memory_limit_bytes;
    host_query(&host);
    return (uint64_t)(MEMORY_SHARE * (double)host.memory_bytes / comm_local_size(comm));
}

static enum status look_for_crowd(struct session *session, struct error *err)
{
    struct host_info host;
    host_query(&host);
    int cores = session->request->host_cores > 0 ? session->request->host_cores : host.cores;
    int64_t is_crowded =
        (int64_t)comm_local_size(session->comm) * device_threads(session->device) > cores;
    TRY(comm_all_reduce_max_i64(session->comm, &is_crowded, 1, err));
    session->is_crowded = is_crowded != 0;
    return STATUS_OK;
}

enum status profile_placement(const struct profile_request *request, struct comm *comm,
                              struct device *device, const struct measurement_sink *sink,
                              struct error *err)
{
    struct session session = {
        .request = request,
        .comm = comm,
        .device = device,
        .sink = sink,
        .memory_limit_bytes = limit_of(request, comm),
        .start_s = clock_s(),
    };
    TRY(comm_broadcast(comm, &session.memory_limit_bytes, sizeof(session.memory_limit_bytes), 0,
                       err));
    TRY(look_for_crowd(&session, err));
    if (session_leads(&session))
        TRY(energy_open(&session.meter, NULL, err));
    enum status status = measure_all(&session, err);
    energy_close(session.meter);
    return status;
}
