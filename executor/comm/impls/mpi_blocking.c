/* The blocking calls: MPI's non-blocking ones and a wait that pushes the whole family, so that a
 * rank inside them holds up no request (mpi_family.c). */
#include "executor/comm/impls/mpi_comm.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static enum status await(struct mpi_comm *mpi, int code, MPI_Request *handle, const char *what,
                         struct error *err)
{
    return mpi_check(mpi_await(mpi, code, handle, MPI_STATUS_IGNORE), what, err);
}

enum status mpi_barrier(struct comm *comm, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    MPI_Request handle;
    int code = MPI_Ibarrier(mpi->direct.ranks, &handle);
    return await(mpi, code, &handle, "barrier", err);
}

static size_t piece(size_t begin, size_t count, size_t chunk)
{
    return count - begin < chunk ? count - begin : chunk;
}

enum status mpi_broadcast(struct comm *comm, void *data, size_t bytes, int root, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    for (size_t begin = 0; begin < bytes; begin += comm->chunk_count) {
        int length = (int)piece(begin, bytes, comm->chunk_count);
        MPI_Request handle;
        int code =
            MPI_Ibcast((char *)data + begin, length, MPI_BYTE, root, mpi->direct.ranks, &handle);
        TRY(await(mpi, code, &handle, "broadcast", err));
    }
    return STATUS_OK;
}

/* In pieces, as requests are, but past those that are queued. */
static enum status run(struct mpi_comm *mpi, const struct mpi_request *described, struct error *err)
{
    struct comm_request *request;
    TRY(mpi_collective_start(mpi, &mpi->direct, described, &request, err));
    return mpi_wait(&mpi->base, request, err);
}

enum status mpi_all_reduce(struct comm *comm, void *data, size_t count, enum comm_element element,
                           struct error *err)
{
    const struct {
        MPI_Datatype type;
        MPI_Op op;
        size_t bytes;
    } elements[] = {
        [ELEMENT_F32_SUM] = {MPI_FLOAT, MPI_SUM, sizeof(float)},
        [ELEMENT_F64_SUM] = {MPI_DOUBLE, MPI_SUM, sizeof(double)},
        [ELEMENT_I32_MAX] = {MPI_INT32_T, MPI_MAX, sizeof(int32_t)},
        [ELEMENT_I64_MAX] = {MPI_INT64_T, MPI_MAX, sizeof(int64_t)},
    };
    bool by_pairs = element == ELEMENT_F32_SUM;
    const struct mpi_request request = {.work = by_pairs ? &mpi_work_sum : &mpi_work_all_reduce,
                                        .data = data,
                                        .count = count,
                                        .type = elements[element].type,
                                        .element_bytes = elements[element].bytes,
                                        .op = elements[element].op};
    return run((struct mpi_comm *)comm, &request, err);
}

enum status mpi_all_gather(struct comm *comm, const void *in, void *out, size_t bytes,
                           struct error *err)
{
    bool in_words = bytes % sizeof(uint32_t) == 0;
    size_t element_bytes = in_words ? sizeof(uint32_t) : 1;
    const struct mpi_request request = {.work = &mpi_work_all_gather,
                                        .data = out,
                                        .count = bytes / element_bytes,
                                        .type = in_words ? MPI_UINT32_T : MPI_BYTE,
                                        .element_bytes = element_bytes};
    memmove((char *)out + (size_t)comm->rank * bytes, in, bytes);
    return run((struct mpi_comm *)comm, &request, err);
}

enum status mpi_reduce_scatter(struct comm *comm, const float *in, float *out, size_t count,
                               struct error *err)
{
    const struct mpi_request request = {.work = &mpi_work_reduce_scatter,
                                        .data = (char *)in, /* only read */
                                        .out = (char *)out,
                                        .count = count,
                                        .type = MPI_FLOAT,
                                        .element_bytes = sizeof(*in)};
    return run((struct mpi_comm *)comm, &request, err);
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
    MPI_Request handle;
    int code = MPI_Iallgather(&mine, 1, MPI_UINT64_T, layout->bytes, 1, MPI_UINT64_T,
                              mpi->direct.ranks, &handle);
    TRY(await(mpi, code, &handle, "gathering sizes", err));
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
    MPI_Request handle;
    int code = MPI_Ibcast(&granted, 1, MPI_INT, 0, mpi->direct.ranks, &handle);
    enum status status = await(mpi, code, &handle, "gathering bytes", err);
    if (status == STATUS_OK && !granted)
        status = error_memory(err, total, "gathered bytes on rank 0");
    if (status != STATUS_OK) {
        free(all);
        return status;
    }
    *out = all;
    return STATUS_OK;
}

enum status mpi_gather_bytes(struct comm *comm, const void *data, size_t bytes, void **out,
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
    MPI_Request handle;
    int code = MPI_Igatherv(data, (int)bytes, MPI_BYTE, all, layout.counts, layout.places, MPI_BYTE,
                            0, mpi->direct.ranks, &handle);
    status = await(mpi, code, &handle, "gathering bytes", err);
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

enum status mpi_send(struct comm *comm, const void *data, size_t bytes, int to, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    size_t begin = 0;
    do {
        int length = (int)piece(begin, bytes, comm->chunk_count);
        MPI_Request handle;
        int code = MPI_Isend((const char *)data + begin, length, MPI_BYTE, to, MESSAGE_TAG,
                             mpi->direct.ranks, &handle);
        TRY(await(mpi, code, &handle, "send", err));
        begin += (size_t)length;
    } while (begin < bytes);
    return STATUS_OK;
}

enum status mpi_receive(struct comm *comm, void *data, size_t bytes, int from, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    size_t begin = 0;
    do {
        int length = (int)piece(begin, bytes, comm->chunk_count), arrived;
        MPI_Status message;
        MPI_Request handle;
        int code = MPI_Irecv((char *)data + begin, length, MPI_BYTE, from, MESSAGE_TAG,
                             mpi->direct.ranks, &handle);
        TRY(mpi_check(mpi_await(mpi, code, &handle, &message), "receive", err));
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
