/* Groups over MPI (MPI 3.0 or later). Large counts go in chunks, since MPI counts in int. */
#include "executor/comm/impls/mpi_comm.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 1 GiB of fp32: below every limit of int, also where a library counts in bytes. */
static const size_t CHUNK_COUNT = (size_t)1 << 28;

enum status mpi_check(int code, const char *what, struct error *err)
{
    if (code == MPI_SUCCESS)
        return STATUS_OK;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length;
    (void)MPI_Error_string(code, text, &length);
    return error_set(err, STATUS_FAILED, "%s: MPI: %s", what, text);
}

static bool mpi_usable(void)
{
    return comm_launched_ranks() > 0;
}

/* "Open MPI v4.1.4, package: ..." becomes "Open MPI 4.1.4"; others are cut at the first comma. */
static void library_name(char out[COMM_LIBRARY_BYTES])
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "MPI";
    int length;
    (void)MPI_Get_library_version(text, &length);
    text[strcspn(text, ",\n")] = '\0';
    char *version = strstr(text, " v");
    if (version && version[2] >= '0' && version[2] <= '9')
        memmove(version + 1, version + 2, strlen(version + 2) + 1);
    snprintf(out, COMM_LIBRARY_BYTES, "%.*s", COMM_LIBRARY_BYTES - 1, text);
}

/* Open MPI's default for non-blocking all-reduces sends whole buffers along a tree. Rabenseifner's
 * algorithm (3) took a quarter of its time for 28 MiB between two ranks of a host, less than the
 * blocking call. A value that the user has set stays. */
static void prefer_fast_all_reduce(void)
{
    (void)setenv("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "3", 0);
}

static enum status start_mpi(bool *owns, struct error *err)
{
    int started, ended;
    TRY(mpi_check(MPI_Finalized(&ended), "asking whether MPI has ended", err));
    if (ended)
        return error_set(err, STATUS_UNSUPPORTED,
                         "MPI has ended in this process and cannot be started again: keep one "
                         "group open for as long as ranks communicate");
    TRY(mpi_check(MPI_Initialized(&started), "asking whether MPI runs", err));
    if (!started) {
        int level;
        prefer_fast_all_reduce();
        TRY(mpi_check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level), "starting MPI",
                      err));
        if (level < MPI_THREAD_FUNNELED) {
            (void)MPI_Finalize();
            return error_set(err, STATUS_UNSUPPORTED,
                             "this MPI admits no threads beside it (level %d): temper needs "
                             "MPI_THREAD_FUNNELED",
                             level);
        }
    }
    *owns = !started;
    return STATUS_OK;
}

static enum status join(struct mpi_comm *mpi, struct error *err)
{
    TRY(mpi_check(MPI_Comm_set_errhandler(mpi->group, MPI_ERRORS_RETURN),
                  "asking MPI to return errors", err));
    TRY(mpi_check(MPI_Comm_set_errhandler(mpi->queue, MPI_ERRORS_RETURN),
                  "asking MPI to return errors", err));
    TRY(mpi_check(MPI_Comm_rank(mpi->group, &mpi->base.rank), "asking for the rank", err));
    TRY(mpi_check(MPI_Comm_size(mpi->group, &mpi->base.size), "asking for the ranks", err));
    int launched = comm_launched_ranks();
    if (launched > 0 && launched != mpi->base.size)
        return error_set(err, STATUS_FAILED,
                         "the launcher started %d ranks but MPI joined %d of them: it does not "
                         "speak this launcher's PMI; use mpirun, or srun --mpi=pmix",
                         launched, mpi->base.size);
    MPI_Comm local;
    TRY(mpi_check(MPI_Comm_split_type(mpi->group, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local),
                  "finding the ranks of this host", err));
    int code = MPI_Comm_size(local, &mpi->base.local_size);
    (void)MPI_Comm_free(&local);
    return mpi_check(code, "counting the ranks of this host", err);
}

static enum status mpi_open(struct comm **out, struct error *err)
{
    struct mpi_comm *mpi = calloc(1, sizeof(*mpi));
    if (!mpi)
        return error_memory(err, sizeof(*mpi), "a group of MPI ranks");
    mpi->base.ops = &comm_mpi_ops;
    mpi->base.chunk_count = CHUNK_COUNT;
    mpi->failure = MPI_SUCCESS;
    for (size_t i = 0; i < MPI_WINDOW_PIECES; i++)
        mpi->pieces[i] = MPI_REQUEST_NULL;
    if (start_mpi(&mpi->owns_mpi, err) != STATUS_OK)
        goto free_mpi;
    if (mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &mpi->group), "making a group", err) != STATUS_OK)
        goto finalize;
    if (mpi_check(MPI_Comm_dup(mpi->group, &mpi->queue), "making a group", err) != STATUS_OK)
        goto free_group;
    if (join(mpi, err) != STATUS_OK)
        goto free_queue;
    library_name(mpi->base.library);
    *out = &mpi->base;
    return STATUS_OK;

free_queue:
    (void)MPI_Comm_free(&mpi->queue);
free_group:
    (void)MPI_Comm_free(&mpi->group);
finalize:
    if (mpi->owns_mpi)
        (void)MPI_Finalize();
free_mpi:
    free(mpi);
    return err->status;
}

static void mpi_close(struct comm *comm)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    mpi_requests_end(mpi);
    (void)MPI_Comm_free(&mpi->queue);
    (void)MPI_Comm_free(&mpi->group);
    if (mpi->owns_mpi)
        (void)MPI_Finalize();
    free(mpi);
}

static void mpi_abort(struct comm *comm, int exit_code)
{
    (void)comm;
    (void)MPI_Abort(MPI_COMM_WORLD, exit_code);
}

static enum status mpi_barrier(struct comm *comm, struct error *err)
{
    return mpi_check(MPI_Barrier(((struct mpi_comm *)comm)->group), "barrier", err);
}

static size_t piece(size_t begin, size_t count, size_t chunk)
{
    return count - begin < chunk ? count - begin : chunk;
}

static enum status mpi_broadcast(struct comm *comm, void *data, size_t bytes, int root,
                                 struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    for (size_t begin = 0; begin < bytes; begin += comm->chunk_count) {
        int length = (int)piece(begin, bytes, comm->chunk_count);
        TRY(mpi_check(MPI_Bcast((char *)data + begin, length, MPI_BYTE, root, mpi->group),
                      "broadcast", err));
    }
    return STATUS_OK;
}

static enum status mpi_all_reduce(struct comm *comm, void *data, size_t count,
                                  enum comm_element element, struct error *err)
{
    const struct {
        MPI_Datatype type;
        MPI_Op op;
        size_t bytes;
    } elements[ELEMENT_COUNT] = {
        [ELEMENT_F32_SUM] = {MPI_FLOAT, MPI_SUM, sizeof(float)},
        [ELEMENT_F64_SUM] = {MPI_DOUBLE, MPI_SUM, sizeof(double)},
        [ELEMENT_I64_MAX] = {MPI_INT64_T, MPI_MAX, sizeof(int64_t)},
    };
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    for (size_t begin = 0; begin < count; begin += comm->chunk_count) {
        int length = (int)piece(begin, count, comm->chunk_count);
        char *at = (char *)data + begin * elements[element].bytes;
        TRY(mpi_check(MPI_Allreduce(MPI_IN_PLACE, at, length, elements[element].type,
                                    elements[element].op, mpi->group),
                      "all-reduce", err));
    }
    return STATUS_OK;
}

/* One chunk of every rank's block, whose blocks stand `count` elements apart in `out`. */
static enum status gather_strided(struct mpi_comm *mpi, const float *in, float *out, int length,
                                  size_t count, struct error *err)
{
    MPI_Datatype dense, strided;
    TRY(mpi_check(MPI_Type_contiguous(length, MPI_FLOAT, &dense), "all-gather", err));
    int code = MPI_Type_create_resized(dense, 0, (MPI_Aint)(count * sizeof(float)), &strided);
    (void)MPI_Type_free(&dense);
    TRY(mpi_check(code, "all-gather", err));
    code = MPI_Type_commit(&strided);
    if (code == MPI_SUCCESS)
        code = MPI_Allgather(in, length, MPI_FLOAT, out, 1, strided, mpi->group);
    (void)MPI_Type_free(&strided);
    return mpi_check(code, "all-gather", err);
}

static bool whole_in_one(const struct comm *comm, size_t count)
{
    return count <= comm->chunk_count / (size_t)comm->size;
}

static enum status mpi_all_gather(struct comm *comm, const float *in, float *out, size_t count,
                                  struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    if (whole_in_one(comm, count))
        return mpi_check(
            MPI_Allgather(in, (int)count, MPI_FLOAT, out, (int)count, MPI_FLOAT, mpi->group),
            "all-gather", err);
    for (size_t begin = 0; begin < count; begin += comm->chunk_count) {
        int length = (int)piece(begin, count, comm->chunk_count);
        TRY(gather_strided(mpi, in + begin, out + begin, length, count, err));
    }
    return STATUS_OK;
}

static enum status mpi_reduce_scatter(struct comm *comm, const float *in, float *out, size_t count,
                                      struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    if (whole_in_one(comm, count))
        return mpi_check(
            MPI_Reduce_scatter_block(in, out, (int)count, MPI_FLOAT, MPI_SUM, mpi->group),
            "reduce-scatter", err);
    /* A reduction cannot stride over its input, so that each rank's block is a reduction of its
     * own. */
    for (int rank = 0; rank < comm->size; rank++) {
        for (size_t begin = 0; begin < count; begin += comm->chunk_count) {
            int length = (int)piece(begin, count, comm->chunk_count);
            TRY(mpi_check(MPI_Reduce(in + (size_t)rank * count + begin, out + begin, length,
                                     MPI_FLOAT, MPI_SUM, rank, mpi->group),
                          "reduce-scatter", err));
        }
    }
    return STATUS_OK;
}

/* What the root of a gather receives: sizes and places, in MPI's int. */
struct gather_layout {
    uint64_t *bytes; /* [size] */
    int *counts, *places;
    uint64_t total;
};

static void layout_free(struct gather_layout *layout)
{
    free(layout->bytes);
    free(layout->counts);
    free(layout->places);
}

/* Every rank learns every size, so that all refuse alike what would not fit. */
static enum status layout_agree(struct mpi_comm *mpi, size_t bytes, struct gather_layout *layout,
                                struct error *err)
{
    size_t ranks = (size_t)mpi->base.size;
    layout->bytes = calloc(ranks, sizeof(*layout->bytes));
    layout->counts = calloc(ranks, sizeof(*layout->counts));
    layout->places = calloc(ranks, sizeof(*layout->places));
    if (!layout->bytes || !layout->counts || !layout->places)
        return error_memory(err, ranks * sizeof(*layout->bytes), "sizes to gather");
    uint64_t mine = bytes;
    TRY(mpi_check(MPI_Allgather(&mine, 1, MPI_UINT64_T, layout->bytes, 1, MPI_UINT64_T, mpi->group),
                  "gathering sizes", err));
    for (size_t i = 0; i < ranks; i++) {
        if (layout->bytes[i] > INT_MAX - layout->total)
            return error_set(err, STATUS_UNSUPPORTED,
                             "gathering %llu bytes of rank %zu behind %llu of the ranks before "
                             "it: at most %d bytes in all can be gathered at once",
                             (unsigned long long)layout->bytes[i], i,
                             (unsigned long long)layout->total, INT_MAX);
        layout->counts[i] = (int)layout->bytes[i];
        layout->places[i] = (int)layout->total;
        layout->total += layout->bytes[i];
    }
    return STATUS_OK;
}

/* The root's buffer; all ranks hear whether the root could have it, so that none waits in vain. */
static enum status root_buffer(struct mpi_comm *mpi, uint64_t total, void **out, struct error *err)
{
    bool root = mpi->base.rank == 0;
    void *all = root ? malloc(total > 0 ? total : 1) : NULL;
    int granted = !root || all != NULL;
    enum status status =
        mpi_check(MPI_Bcast(&granted, 1, MPI_INT, 0, mpi->group), "gathering bytes", err);
    if (status == STATUS_OK && !granted)
        status = error_memory(err, total, "gathered bytes on rank 0");
    if (status != STATUS_OK) {
        free(all);
        return status;
    }
    *out = all;
    return STATUS_OK;
}

static enum status mpi_gather_bytes(struct comm *comm, const void *data, size_t bytes, void **out,
                                    size_t *bytes_by_rank, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    struct gather_layout layout = {0};
    void *all = NULL;
    enum status status = layout_agree(mpi, bytes, &layout, err);
    if (status != STATUS_OK)
        goto free_layout;
    status = root_buffer(mpi, layout.total, &all, err);
    if (status != STATUS_OK)
        goto free_layout;
    status = mpi_check(MPI_Gatherv(data, (int)bytes, MPI_BYTE, all, layout.counts, layout.places,
                                   MPI_BYTE, 0, mpi->group),
                       "gathering bytes", err);
    if (status != STATUS_OK) {
        free(all);
        goto free_layout;
    }
    for (int i = 0; bytes_by_rank && comm->rank == 0 && i < comm->size; i++)
        bytes_by_rank[i] = layout.bytes[i];
    *out = all;

free_layout:
    layout_free(&layout);
    return status;
}

enum { MESSAGE_TAG = 1 };

static enum status mpi_send(struct comm *comm, const void *data, size_t bytes, int to,
                            struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    size_t begin = 0;
    do {
        int length = (int)piece(begin, bytes, comm->chunk_count);
        TRY(mpi_check(
            MPI_Send((const char *)data + begin, length, MPI_BYTE, to, MESSAGE_TAG, mpi->group),
            "send", err));
        begin += (size_t)length;
    } while (begin < bytes);
    return STATUS_OK;
}

static enum status mpi_receive(struct comm *comm, void *data, size_t bytes, int from,
                               struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    size_t begin = 0;
    do {
        int length = (int)piece(begin, bytes, comm->chunk_count), arrived;
        MPI_Status message;
        TRY(mpi_check(MPI_Recv((char *)data + begin, length, MPI_BYTE, from, MESSAGE_TAG,
                               mpi->group, &message),
                      "receive", err));
        TRY(mpi_check(MPI_Get_count(&message, MPI_BYTE, &arrived), "receive", err));
        if (arrived != length)
            return error_set(err, STATUS_FAILED,
                             "receive: a message of %d bytes came from rank %d where one of %d "
                             "was due",
                             arrived, from, length);
        begin += (size_t)length;
    } while (begin < bytes);
    return STATUS_OK;
}

const struct comm_ops comm_mpi_ops = {
    .usable = mpi_usable,
    .open = mpi_open,
    .close = mpi_close,
    .abort = mpi_abort,
    .barrier = mpi_barrier,
    .broadcast = mpi_broadcast,
    .all_reduce = mpi_all_reduce,
    .start = mpi_start,
    .poll = mpi_poll,
    .wait = mpi_wait,
    .all_gather = mpi_all_gather,
    .reduce_scatter = mpi_reduce_scatter,
    .gather_bytes = mpi_gather_bytes,
    .send = mpi_send,
    .receive = mpi_receive,
};
