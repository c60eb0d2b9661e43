#include "profiler/links.h"
#include "base/clock.h"
#include "base/partition.h"
#include "base/units.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SMALLEST_BYTES (UINT64_C(4) << 10)
#define LARGEST_BYTES  (UINT64_C(64) << 20)
/* Up to here every size is measured, whatever the time: it takes both ends of a line to know a
 * latency and a bandwidth. */
#define ALWAYS_BYTES (UINT64_C(1) << 20)
/* Only to share the time among the sizes: barriers and agreements around a sample on a machine that
 * does other things as well, and a bandwidth of the order of a host's memory. */
#define GUESSED_LATENCY_S 1e-3
#define GUESSED_BYTES_S   1e9

/* A small call is over before a busy machine lets the other rank run: few samples of it say
 * nothing. */
enum { SMALL_SAMPLES_MINIMUM = 6 };
enum { SIZES_MAX = 40, SAMPLES_WANTED = 8, SAMPLES_MAXIMUM = 100, MESSAGE_TAG = 0 };
enum { FACTOR = 4, FACTOR_OF_MANY = 16 /* of more than two ranks */ };

/* ---- calls ---- */

struct link_buffers {
    float *whole, *piece; /* [whole_count], [piece_count] */
    size_t whole_count;   /* of a collective over pieces a multiple of the ranks */
    size_t piece_count;   /* whole_count / ranks */
    size_t bytes;         /* allocated for each */
};

/* Who talks to whom: a collective's group, or of messages all ranks and how far the partner is. */
struct link_group {
    struct comm *comm;
    int ways, apart;
    bool takes_part;
};

static enum status all_reduce(const struct link_group *group, const struct link_buffers *b,
                              struct error *err)
{
    struct comm_request *request = NULL;
    TRY(comm_all_reduce_start(group->comm, b->whole, b->whole_count, &request, err));
    return comm_wait(group->comm, request, err);
}

static enum status all_gather(const struct link_group *group, const struct link_buffers *b,
                              struct error *err)
{
    struct comm_request *request = NULL;
    TRY(comm_all_gather_start(group->comm, b->whole, b->whole_count, sizeof(float), &request, err));
    return comm_wait(group->comm, request, err);
}

static enum status reduce_scatter(const struct link_group *group, const struct link_buffers *b,
                                  struct error *err)
{
    struct comm_request *request = NULL;
    TRY(comm_reduce_scatter_start(group->comm, b->whole, b->whole_count, &request, err));
    return comm_wait(group->comm, request, err);
}

static enum status tensor_all_gather(const struct link_group *group, const struct link_buffers *b,
                                     struct error *err)
{
    return comm_all_gather(group->comm, b->piece, b->whole, b->piece_count * sizeof(float), err);
}

static enum status tensor_reduce_scatter(const struct link_group *group,
                                         const struct link_buffers *b, struct error *err)
{
    return comm_reduce_scatter(group->comm, b->whole, b->piece, b->piece_count, err);
}

/* The partner of a message; below zero: this rank has none. */
static int partner_of(const struct comm *comm, int apart)
{
    int rank = comm_rank(comm);
    if (rank / apart % 2 != 0)
        return rank - apart;
    return rank + apart < comm_size(comm) ? rank + apart : -1;
}

static enum status hand_over(const struct link_group *group, const struct link_buffers *b,
                             int partner, bool sends, struct error *err)
{
    struct comm_request *request = NULL;
    size_t bytes = b->whole_count * sizeof(float);
    if (sends)
        TRY(comm_send_start(group->comm, b->whole, bytes, partner, MESSAGE_TAG, &request, err));
    else
        TRY(comm_receive_start(group->comm, b->whole, bytes, partner, MESSAGE_TAG, &request, err));
    return comm_wait(group->comm, request, err);
}

static enum status there_and_back(const struct link_group *group, const struct link_buffers *b,
                                  struct error *err)
{
    int partner = partner_of(group->comm, group->apart);
    bool begins = comm_rank(group->comm) < partner;
    if (partner < 0)
        return STATUS_OK;
    TRY(hand_over(group, b, partner, begins, err));
    return hand_over(group, b, partner, !begins, err);
}

enum link_use {
    USE_DATA,   /* every group */
    USE_TENSOR, /* neighbours */
    USE_TABLE,  /* groups of two, and the ends of a pipeline */
    USE_MESSAGE,
};

static const struct link_kind {
    const char *name;
    enum status (*call)(const struct link_group *group, const struct link_buffers *buffers,
                        struct error *err);
    enum link_use use;
    double transfers; /* one call is this many of what a row is about */
    bool in_pieces;   /* the size is rounded up to what can be split */
} link_kinds[] = {
    {"all-reduce", all_reduce, USE_TABLE, 1, false},
    {"all-gather", all_gather, USE_DATA, 1, true},
    {"reduce-scatter", reduce_scatter, USE_DATA, 1, true},
    {"tensor-all-gather", tensor_all_gather, USE_TENSOR, 1, true},
    {"tensor-reduce-scatter", tensor_reduce_scatter, USE_TENSOR, 1, true},
    {"point-to-point", there_and_back, USE_MESSAGE, 2, false},
};

enum { LINK_KIND_COUNT = sizeof(link_kinds) / sizeof(link_kinds[0]) };

/* ---- sizes ---- */

struct link_sizes {
    uint64_t bytes[SIZES_MAX]; /* ascending */
    size_t count;
};

static void add_size(struct link_sizes *sizes, uint64_t bytes)
{
    size_t at = sizes->count;
    for (size_t i = 0; i < sizes->count; i++) {
        if (sizes->bytes[i] == bytes)
            return;
    }
    if (bytes == 0 || sizes->count == SIZES_MAX)
        return;
    for (; at > 0 && sizes->bytes[at - 1] > bytes; at--)
        sizes->bytes[at] = sizes->bytes[at - 1];
    sizes->bytes[at] = bytes;
    sizes->count++;
}

/* Of the matrices, which are the most of it; 0 where so many ways are not admitted. */
static uint64_t gradient_bytes(const struct model *model, enum layer_kind kind, int ways)
{
    struct layer_part part = {.kind = kind, .ways = ways};
    struct error ignored;
    if (layer_part_check(model, &part, &ignored) != STATUS_OK)
        return 0;
    return layer_part_counts(model, &part).matrices * sizeof(float);
}

static uint64_t largest_gradient_bytes(const struct model *model)
{
    uint64_t largest = 0;
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        uint64_t bytes = gradient_bytes(model, (enum layer_kind)kind, 1);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

/* Two buffers of a size must fit. */
static uint64_t fitting_bytes(const struct session *session)
{
    return session->memory_limit_bytes / 2;
}

static struct link_sizes choose_sizes(const struct session *session, const struct link_kind *kind,
                                      const struct link_group *group)
{
    const struct model *model = session->request->model;
    struct link_sizes sizes = {.count = 0};
    uint64_t fitting = fitting_bytes(session), largest = largest_gradient_bytes(model);
    uint64_t factor = group->ways > 2 ? FACTOR_OF_MANY : FACTOR;
    largest = largest > LARGEST_BYTES ? largest : LARGEST_BYTES;
    for (uint64_t bytes = SMALLEST_BYTES; bytes <= largest && bytes <= fitting; bytes *= factor)
        add_size(&sizes, bytes);
    for (unsigned i = 0; i < LAYER_KIND_COUNT && kind->use == USE_TABLE; i++) {
        uint64_t bytes = gradient_bytes(model, (enum layer_kind)i, group->apart);
        if (bytes <= fitting)
            add_size(&sizes, bytes);
    }
    return sizes;
}

static void warn_of_large_layer(const struct session *session)
{
    char size[UNIT_TEXT_BYTES], limit[UNIT_TEXT_BYTES];
    uint64_t largest = largest_gradient_bytes(session->request->model);
    if (largest <= fitting_bytes(session) || !session_leads(session))
        return;
    report_warning(&session->request->reporter,
                   "the all-reduce of a layer's %s of gradients is not measured: two buffers of "
                   "it exceed the limit of %s a rank",
                   format_bytes((double)largest, size),
                   format_bytes((double)session->memory_limit_bytes, limit));
}

static double guessed_s(uint64_t bytes)
{
    return GUESSED_LATENCY_S + (double)bytes / GUESSED_BYTES_S;
}

/* ---- one kind in one group ---- */

/* Seconds of one transfer on the slowest rank. */
static enum status time_once(struct session *session, const struct link_kind *kind,
                             const struct link_group *group, const struct link_buffers *buffers,
                             double *seconds, struct error *err)
{
    TRY(comm_barrier(session->comm, err));
    int64_t start_ns = clock_ns();
    if (group->takes_part)
        TRY(kind->call(group, buffers, err));
    int64_t elapsed_ns = group->takes_part ? clock_ns() - start_ns : 0;
    TRY(comm_all_reduce_max_i64(session->comm, &elapsed_ns, 1, err));
    *seconds = (double)elapsed_ns * 1e-9 / kind->transfers;
    return STATUS_OK;
}

static enum status collect(struct session *session, const struct link_kind *kind,
                           const struct link_group *group, const struct link_buffers *buffers,
                           double allowed_s, struct samples *samples, struct error *err)
{
    bool is_small = buffers->whole_count * sizeof(float) <= ALWAYS_BYTES;
    size_t least = is_small ? SMALL_SAMPLES_MINIMUM : SAMPLES_MINIMUM;
    double until_s = session_elapsed_s(session) + allowed_s, seconds = 0;
    TRY(time_once(session, kind, group, buffers, &seconds, err)); /* warm-up */
    for (bool more = true; more;) {
        TRY(time_once(session, kind, group, buffers, &seconds, err));
        TRY(samples_add(samples, seconds, err));
        bool is_known = samples->count >= SAMPLES_WANTED &&
                        samples_settled(samples, session->request->relative_error);
        bool is_over = session_elapsed_s(session) > until_s || samples->count >= SAMPLES_MAXIMUM;
        more = samples->count < least || (!is_known && !is_over);
        TRY(session_agree(session, &more, err));
    }
    return STATUS_OK;
}

static void name_subject(const struct link_kind *kind, const struct link_group *group,
                         char subject[SUBJECT_BYTES])
{
    if (kind->use == USE_MESSAGE)
        (void)snprintf(subject, SUBJECT_BYTES, "%s/x%d", kind->name, group->apart);
    else
        (void)snprintf(subject, SUBJECT_BYTES, "%s/n%d/x%d", kind->name, group->ways, group->apart);
}

/* *seconds receives the mean, the same at all ranks. */
static enum status measure_size(struct session *session, const struct link_kind *kind,
                                const struct link_group *group, uint64_t bytes,
                                struct link_buffers buffers, double allowed_s, double *seconds,
                                struct error *err)
{
    size_t count = bytes / sizeof(float);
    buffers.whole_count = kind->in_pieces ? partition_padded(count, group->ways) : count;
    buffers.piece_count = buffers.whole_count / (size_t)group->ways;
    struct samples samples = {.keeps_all = session->is_crowded};
    enum status status = collect(session, kind, group, &buffers, allowed_s, &samples, err);
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
    name_subject(kind, group, row.subject);
    *seconds = summary.mean;
    return session_emit(session, row, err);
}

static enum status measure_kind(struct session *session, const struct link_kind *kind,
                                const struct link_group *group, const struct link_buffers *buffers,
                                double seconds, struct error *err)
{
    struct link_sizes sizes = choose_sizes(session, kind, group);
    double until_s = session_elapsed_s(session) + seconds, latest_s = 0, guessed_total_s = 0;
    for (size_t i = 0; i < sizes.count; i++)
        guessed_total_s += guessed_s(sizes.bytes[i]);
    for (size_t i = 0; i < sizes.count; i++) {
        uint64_t bytes = sizes.bytes[i];
        double left_s = fmax(0.0, until_s - session_elapsed_s(session));
        /* The fewest calls, if the bandwidth stays that of the size before. */
        double needed_s = i == 0 ? 0
                                 : (1 + SAMPLES_MINIMUM) * kind->transfers * latest_s *
                                       (double)bytes / (double)sizes.bytes[i - 1];
        bool goes_on = bytes <= ALWAYS_BYTES || needed_s <= left_s;
        TRY(session_agree(session, &goes_on, err));
        if (!goes_on)
            return STATUS_OK;
        double allowed_s = left_s * guessed_s(bytes) / guessed_total_s;
        guessed_total_s -= guessed_s(bytes);
        TRY(measure_size(session, kind, group, bytes, *buffers, allowed_s, &latest_s, err));
    }
    return STATUS_OK;
}

/* ---- groups ---- */

/* A kind in groups of one shape. */
struct link_task {
    const struct link_kind *kind;
    int ways, apart;
};

struct link_tasks {
    struct link_task *rows; /* [count], owned; NULL: they are only counted */
    size_t count;
};

static void add_task(struct link_tasks *tasks, const struct link_kind *kind, int ways, int apart)
{
    if (tasks->rows)
        tasks->rows[tasks->count] = (struct link_task){kind, ways, apart};
    tasks->count++;
}

static bool is_even_split(int ranks, int ways, int apart)
{
    return ranks % (ways * apart) == 0;
}

static void add_groups(struct link_tasks *tasks, const struct link_kind *kind, int ranks)
{
    for (int ways = 2; ways <= ranks; ways++)
        for (int apart = 1; apart * ways <= ranks; apart++)
            if (is_even_split(ranks, ways, apart) && (apart == 1 || kind->use != USE_TENSOR))
                add_task(tasks, kind, ways, apart);
}

/* The ends of a pipeline of three stages or more. */
static void add_ends(struct link_tasks *tasks, const struct link_kind *kind, int ranks)
{
    for (int stages = 3; stages <= ranks; stages++)
        if (ranks % stages == 0)
            add_task(tasks, kind, 2, ranks - ranks / stages);
}

static void list_tasks(struct link_tasks *tasks, int ranks)
{
    for (size_t i = 0; i < LINK_KIND_COUNT; i++) {
        const struct link_kind *kind = &link_kinds[i];
        if (kind->use != USE_MESSAGE)
            add_groups(tasks, kind, ranks);
        for (int apart = 1; apart < ranks && kind->use == USE_MESSAGE; apart++)
            if (ranks % apart == 0)
                add_task(tasks, kind, 2, apart);
        if (kind->use == USE_TABLE || kind->use == USE_MESSAGE)
            add_ends(tasks, kind, ranks);
    }
}

static enum status open_group(struct session *session, const struct link_task *task,
                              struct link_group *out, struct error *err)
{
    int rank = comm_rank(session->comm), ranks = comm_size(session->comm);
    int span = task->ways * task->apart, left = ranks - task->apart;
    *out = (struct link_group){.ways = task->ways, .apart = task->apart, .takes_part = true};
    if (task->kind->use == USE_MESSAGE) {
        out->comm = session->comm;
        return STATUS_OK;
    }
    int color = rank / span * task->apart + rank % task->apart;
    if (!is_even_split(ranks, task->ways, task->apart)) {
        /* Ranks between the two ends get a group that nobody uses. */
        out->takes_part = rank < left || rank >= task->apart;
        color = rank < left ? rank : rank >= task->apart ? rank - task->apart : left;
    }
    return comm_split(session->comm, color, &out->comm, err);
}

static enum status measure_task(struct session *session, const struct link_task *task,
                                const struct link_buffers *buffers, double seconds,
                                struct error *err)
{
    struct link_group group;
    session_progress(session, task->kind->name);
    TRY(open_group(session, task, &group, err));
    enum status status = measure_kind(session, task->kind, &group, buffers, seconds, err);
    if (group.comm != session->comm)
        comm_close(group.comm);
    return status;
}

size_t links_pieces(const struct session *session)
{
    struct link_tasks tasks = {.rows = NULL};
    list_tasks(&tasks, comm_size(session->comm));
    return tasks.count;
}

static enum status measure_tasks(struct session *session, const struct link_buffers *buffers,
                                 double seconds, struct error *err)
{
    struct link_tasks tasks = {.rows = NULL};
    double until_s = session_elapsed_s(session) + seconds;
    size_t count = links_pieces(session);
    tasks.rows = calloc(count, sizeof(tasks.rows[0]));
    if (!tasks.rows)
        return error_memory(err, count * sizeof(tasks.rows[0]), "groups of ranks");
    list_tasks(&tasks, comm_size(session->comm));
    enum status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        double left_s = fmax(0.0, until_s - session_elapsed_s(session));
        status = measure_task(session, &tasks.rows[i], buffers, left_s / (double)(count - i), err);
    }
    free(tasks.rows);
    return status;
}

static uint64_t buffer_bytes(const struct session *session)
{
    uint64_t largest = largest_gradient_bytes(session->request->model);
    uint64_t fitting = fitting_bytes(session), ranks = (uint64_t)comm_size(session->comm);
    largest = largest > LARGEST_BYTES ? largest : LARGEST_BYTES;
    if (fitting < SMALLEST_BYTES)
        return 0;
    return (largest < fitting ? largest : fitting) + ranks * PARTITION_ALIGN * sizeof(float);
}

enum status links_measure(struct session *session, double seconds, struct error *err)
{
    struct link_buffers buffers = {.bytes = buffer_bytes(session)};
    if (comm_size(session->comm) == 1 || buffers.bytes == 0)
        return STATUS_OK;
    warn_of_large_layer(session);
    void *whole = NULL, *piece = NULL;
    TRY(session_allocate(session, buffers.bytes, &whole, err));
    enum status status = session_allocate(session, buffers.bytes, &piece, err);
    if (status == STATUS_OK) {
        buffers.whole = whole;
        buffers.piece = piece;
        status = measure_tasks(session, &buffers, seconds, err);
        session_free(session, piece, buffers.bytes);
    }
    session_free(session, whole, buffers.bytes);
    return status;
}
