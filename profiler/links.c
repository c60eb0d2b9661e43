#include "profiler/links.h"
#include "base/clock.h"
#include "base/units.h"
#include <string.h>

#define SMALLEST_BYTES (UINT64_C(4) << 10)
#define LARGEST_BYTES  (UINT64_C(64) << 20)
/* Only to share the time among the sizes: a latency and a bandwidth of the order of a host's
 * memory. */
#define GUESSED_LATENCY_S 20e-6
#define GUESSED_BYTES_S   1e9

enum { SIZES_MAX = 40, SAMPLES_WANTED = 8, SAMPLES_MAXIMUM = 100 };

struct link_buffers {
    float *whole, *piece; /* [whole_count], [piece_count] */
    size_t whole_count;   /* a multiple of the ranks */
    size_t piece_count;   /* whole_count / ranks */
    size_t bytes;         /* allocated for each */
};

static enum status all_reduce(struct comm *comm, const struct link_buffers *b, struct error *err)
{
    /* As the executor reduces gradients: in pieces under way. */
    struct comm_request *request = NULL;
    TRY(comm_all_reduce_start(comm, b->whole, b->whole_count, &request, err));
    return comm_wait(comm, request, err);
}

static enum status all_gather(struct comm *comm, const struct link_buffers *b, struct error *err)
{
    return comm_all_gather(comm, b->piece, b->whole, b->piece_count, err);
}

static enum status reduce_scatter(struct comm *comm, const struct link_buffers *b,
                                  struct error *err)
{
    return comm_reduce_scatter(comm, b->whole, b->piece, b->piece_count, err);
}

static enum status there_and_back(struct comm *comm, const struct link_buffers *b,
                                  struct error *err)
{
    int rank = comm_rank(comm), partner = rank ^ 1;
    size_t bytes = b->whole_count * sizeof(float);
    if (partner >= comm_size(comm))
        return STATUS_OK;
    if (rank < partner) {
        TRY(comm_send(comm, b->whole, bytes, partner, err));
        return comm_receive(comm, b->whole, bytes, partner, err);
    }
    TRY(comm_receive(comm, b->whole, bytes, partner, err));
    return comm_send(comm, b->whole, bytes, partner, err);
}

static const struct link_kind {
    const char *subject;
    enum status (*call)(struct comm *comm, const struct link_buffers *buffers, struct error *err);
    double transfers; /* one call is this many of what a row is about */
    bool at_layer_sizes;
    bool in_pieces; /* the size is rounded up to a multiple of the ranks */
} link_kinds[] = {
    {"all-reduce", all_reduce, 1, true, false},
    {"all-gather", all_gather, 1, false, true},
    {"reduce-scatter", reduce_scatter, 1, false, true},
    {"point-to-point", there_and_back, 2, false, false},
};

enum { LINK_KIND_COUNT = sizeof(link_kinds) / sizeof(link_kinds[0]) };

struct link_size {
    uint64_t bytes;
    bool of_layer; /* a layer's gradients, beside the factors of 4 */
};

struct link_sizes {
    struct link_size rows[SIZES_MAX];
    size_t count;
};

static void add_size(struct link_sizes *sizes, uint64_t bytes, bool of_layer)
{
    for (size_t i = 0; i < sizes->count; i++) {
        if (sizes->rows[i].bytes == bytes)
            return;
    }
    if (sizes->count < SIZES_MAX)
        sizes->rows[sizes->count++] = (struct link_size){bytes, of_layer};
}

/* Two buffers of a size must fit; larger ones are left out, which matters where a layer has one. */
static struct link_sizes choose_sizes(const struct session *session)
{
    const struct model *model = session->request->model;
    struct link_sizes sizes = {.count = 0};
    uint64_t largest_layer = 0, fitting = session->memory_limit_bytes / 2;
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        uint64_t bytes = layer_flat_count(model, (enum layer_kind)kind) * sizeof(float);
        largest_layer = bytes > largest_layer ? bytes : largest_layer;
    }
    uint64_t largest = largest_layer > LARGEST_BYTES ? largest_layer : LARGEST_BYTES;
    for (uint64_t bytes = SMALLEST_BYTES; bytes <= largest && bytes <= fitting; bytes *= 4)
        add_size(&sizes, bytes, false);
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        uint64_t bytes = layer_flat_count(model, (enum layer_kind)kind) * sizeof(float);
        if (bytes > 0 && bytes <= fitting)
            add_size(&sizes, bytes, true);
    }
    if (largest_layer > fitting && session_leads(session)) {
        char size[UNIT_TEXT_BYTES], limit[UNIT_TEXT_BYTES];
        report_warning(
            &session->request->reporter,
            "the all-reduce of a layer's %s of gradients is not measured: two buffers of "
            "it exceed the limit of %s a rank",
            format_bytes((double)largest_layer, size),
            format_bytes((double)session->memory_limit_bytes, limit));
    }
    return sizes;
}

static bool is_measured(const struct link_kind *kind, const struct link_size *size)
{
    return kind->at_layer_sizes || !size->of_layer;
}

static double guessed_s(uint64_t bytes)
{
    return GUESSED_LATENCY_S + (double)bytes / GUESSED_BYTES_S;
}

/* Seconds of one transfer on the slowest rank. */
static enum status time_once(struct session *session, const struct link_kind *kind,
                             const struct link_buffers *buffers, double *seconds, struct error *err)
{
    TRY(comm_barrier(session->comm, err));
    int64_t start_ns = clock_ns();
    TRY(kind->call(session->comm, buffers, err));
    int64_t elapsed_ns = clock_ns() - start_ns;
    TRY(comm_all_reduce_max_i64(session->comm, &elapsed_ns, 1, err));
    *seconds = (double)elapsed_ns * 1e-9 / kind->transfers;
    return STATUS_OK;
}

static enum status collect(struct session *session, const struct link_kind *kind,
                           const struct link_buffers *buffers, double allowed_s,
                           struct samples *samples, struct error *err)
{
    double until_s = session_elapsed_s(session) + allowed_s, seconds = 0;
    TRY(time_once(session, kind, buffers, &seconds, err)); /* warm-up */
    for (bool more = true; more;) {
        TRY(time_once(session, kind, buffers, &seconds, err));
        TRY(samples_add(samples, seconds, err));
        bool is_known = samples->count >= SAMPLES_WANTED &&
                        samples_settled(samples, session->request->relative_error);
        bool is_over = session_elapsed_s(session) > until_s || samples->count >= SAMPLES_MAXIMUM;
        more = samples->count < SAMPLES_MINIMUM || (!is_known && !is_over);
        TRY(session_agree(session, &more, err));
    }
    return STATUS_OK;
}

static enum status measure_size(struct session *session, const struct link_kind *kind,
                                const struct link_size *size, struct link_buffers buffers,
                                double allowed_s, struct error *err)
{
    size_t ranks = (size_t)comm_size(session->comm);
    size_t count = size->bytes / sizeof(float);
    buffers.piece_count = (count + ranks - 1) / ranks;
    buffers.whole_count = kind->in_pieces ? buffers.piece_count * ranks : count;
    struct samples samples = {0};
    enum status status = collect(session, kind, &buffers, allowed_s, &samples, err);
    struct summary summary = samples_summary(&samples);
    samples_free(&samples);
    TRY(status);
    session_note(session, &summary);
    struct measurement row = {
        .metric = METRIC_LINK_S,
        .bytes = (int64_t)(buffers.whole_count * sizeof(float)),
        .n = summary.n,
        .mean = summary.mean,
        .deviation = summary.deviation,
        .provenance = PROVENANCE_MEASURED,
    };
    (void)strncpy(row.subject, kind->subject, sizeof(row.subject) - 1);
    return session_emit(session, row, err);
}

static enum status measure_all(struct session *session, const struct link_sizes *sizes,
                               const struct link_buffers *buffers, double seconds,
                               struct error *err)
{
    double guessed_total_s = 0;
    for (size_t k = 0; k < LINK_KIND_COUNT; k++) {
        for (size_t i = 0; i < sizes->count; i++)
            guessed_total_s +=
                is_measured(&link_kinds[k], &sizes->rows[i]) ? guessed_s(sizes->rows[i].bytes) : 0;
    }
    for (size_t k = 0; k < LINK_KIND_COUNT; k++) {
        session_progress(session, link_kinds[k].subject);
        for (size_t i = 0; i < sizes->count; i++) {
            const struct link_size *size = &sizes->rows[i];
            if (!is_measured(&link_kinds[k], size))
                continue;
            TRY(measure_size(session, &link_kinds[k], size, *buffers,
                             seconds * guessed_s(size->bytes) / guessed_total_s, err));
        }
    }
    return STATUS_OK;
}

size_t links_pieces(const struct session *session)
{
    return comm_size(session->comm) > 1 ? LINK_KIND_COUNT : 0;
}

enum status links_measure(struct session *session, double seconds, struct error *err)
{
    if (comm_size(session->comm) == 1)
        return STATUS_OK;
    struct link_sizes sizes = choose_sizes(session);
    struct link_buffers buffers = {.whole = NULL};
    for (size_t i = 0; i < sizes.count; i++)
        buffers.bytes = sizes.rows[i].bytes > buffers.bytes ? sizes.rows[i].bytes : buffers.bytes;
    if (buffers.bytes == 0)
        return STATUS_OK;
    buffers.bytes += (size_t)comm_size(session->comm) * sizeof(float); /* rounding up to pieces */
    void *whole = NULL, *piece = NULL;
    TRY(session_allocate(session, buffers.bytes, &whole, err));
    enum status status = session_allocate(session, buffers.bytes, &piece, err);
    if (status == STATUS_OK) {
        buffers.whole = whole;
        buffers.piece = piece;
        status = measure_all(session, &sizes, &buffers, seconds, err);
        session_free(session, piece, buffers.bytes);
    }
    session_free(session, whole, buffers.bytes);
    return status;
}
