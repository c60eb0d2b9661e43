/* Requests: collectives in a group's queue and messages. The queue has a communicator of its own,
 * so that a blocking collective in between cannot stand before a request at one rank and behind it
 * at another. */
#include "executor/comm/impls/mpi_comm.h"

#include "base/partition.h"
#include <assert.h>
#include <stdlib.h>

static struct mpi_request *link_request(struct mpi_comm *mpi, const struct mpi_request *described)
{
    struct mpi_request *request = malloc(sizeof(*request));
    if (!request)
        return NULL;
    *request = *described;
    request->base.owner = &mpi->base;
    request->group = mpi;
    request->failure = MPI_SUCCESS;
    request->older = mpi->newest;
    if (mpi->newest)
        mpi->newest->newer = request;
    else
        mpi->oldest = request;
    mpi->newest = request;
    return request;
}

static void unlink_request(struct mpi_comm *mpi, struct mpi_request *request)
{
    if (request->older)
        request->older->newer = request->newer;
    else
        mpi->oldest = request->newer;
    if (request->newer)
        request->newer->older = request->older;
    else
        mpi->newest = request->older;
}

/* Where a window receives what it adds up, from the first sum until the group is closed: a piece,
 * and what rounds its blocks up. */
static enum status have_scratch(struct mpi_comm *mpi, struct mpi_lane *lane, struct error *err)
{
    size_t count = PARTITION_PIECE + (size_t)mpi->base.size * PARTITION_ALIGN;
    size_t bytes = MPI_WINDOW_PIECES * count * sizeof(float);
    if (lane->scratch)
        return STATUS_OK;
    lane->scratch = malloc(bytes);
    if (!lane->scratch)
        return error_memory(err, bytes, "blocks to be added up");
    for (size_t i = 0; i < MPI_WINDOW_PIECES; i++)
        lane->window[i].scratch = lane->scratch + i * count;
    return STATUS_OK;
}

enum status mpi_collective_start(struct mpi_comm *mpi, struct mpi_lane *lane,
                                 const struct mpi_request *described, struct comm_request **out,
                                 struct error *err)
{
    if (described->work->adds)
        TRY(have_scratch(mpi, lane, err));
    TRY(mpi_check(mpi->family->failure, "messages under way", err));
    struct mpi_request *request = link_request(mpi, described);
    if (!request)
        return error_memory(err, sizeof(*request), "a request");
    request->base.call = request->work->call;
    request->lane = lane;
    request->pieces = request->work->pieces(mpi, request);
    if (request->pieces > 0) {
        if (lane->oldest)
            lane->newest->next_queued = request;
        else
            lane->oldest = request;
        lane->newest = request;
        mpi_lane_fill(mpi, lane);
    }
    *out = &request->base;
    return STATUS_OK;
}

static enum status all_reduce_start(struct comm *comm, void *data, size_t count, MPI_Datatype type,
                                    size_t element_bytes, struct comm_request **out,
                                    struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    const struct mpi_request request = {.work = &mpi_work_sum,
                                        .data = data,
                                        .count = count,
                                        .type = type,
                                        .element_bytes = element_bytes};
    return mpi_collective_start(mpi, &mpi->queue, &request, out, err);
}

enum status mpi_all_reduce_start(struct comm *comm, float *data, size_t count,
                                 struct comm_request **out, struct error *err)
{
    return all_reduce_start(comm, data, count, MPI_FLOAT, sizeof(*data), out, err);
}

enum status mpi_all_reduce_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                      struct comm_request **out, struct error *err)
{
    return all_reduce_start(comm, data, count, MPI_UINT16_T, sizeof(*data), out, err);
}

static enum status reduce_scatter_start(struct comm *comm, void *data, size_t count,
                                        MPI_Datatype type, size_t element_bytes,
                                        struct comm_request **out, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    const struct mpi_request request = {.work = &mpi_work_reduce_scatter,
                                        .data = data,
                                        .out = data,
                                        .count = count,
                                        .is_partition = true,
                                        .type = type,
                                        .element_bytes = element_bytes};
    assert(count == partition_padded(count, comm->size));
    return mpi_collective_start(mpi, &mpi->queue, &request, out, err);
}

enum status mpi_reduce_scatter_start(struct comm *comm, float *data, size_t count,
                                     struct comm_request **out, struct error *err)
{
    return reduce_scatter_start(comm, data, count, MPI_FLOAT, sizeof(*data), out, err);
}

enum status mpi_reduce_scatter_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                          struct comm_request **out, struct error *err)
{
    return reduce_scatter_start(comm, data, count, MPI_UINT16_T, sizeof(*data), out, err);
}

enum status mpi_all_gather_start(struct comm *comm, void *data, size_t count, size_t element_bytes,
                                 struct comm_request **out, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    const struct mpi_request request = {.work = &mpi_work_all_gather,
                                        .data = data,
                                        .count = count,
                                        .is_partition = true,
                                        .type = element_bytes == 2 ? MPI_UINT16_T : MPI_UINT32_T,
                                        .element_bytes = element_bytes};
    assert(count == partition_padded(count, comm->size));
    return mpi_collective_start(mpi, &mpi->queue, &request, out, err);
}

/* ---- messages ---- */

/* MPI counts in int, so that a large one goes in chunks; they keep their order. An empty one is a
 * chunk too. */
static size_t chunk_total(const struct mpi_comm *mpi, size_t bytes)
{
    size_t chunk = mpi->base.chunk_count;
    return bytes == 0 ? 1 : bytes / chunk + (bytes % chunk > 0);
}

static int chunk_bytes(const struct mpi_comm *mpi, size_t bytes, size_t index)
{
    size_t left = bytes - index * mpi->base.chunk_count;
    return (int)(left < mpi->base.chunk_count ? left : mpi->base.chunk_count);
}

static struct mpi_request *message_request(struct mpi_comm *mpi, const char *call, size_t chunks,
                                           struct error *err)
{
    const struct mpi_request described = {.base.call = call};
    struct mpi_request *request = NULL;
    if (mpi_family_reserve(mpi->family, chunks, err) != STATUS_OK)
        return NULL;
    request = link_request(mpi, &described);
    if (!request)
        (void)error_memory(err, sizeof(*request), "a request");
    return request;
}

enum status mpi_send_start(struct comm *comm, const void *data, const struct comm_message *message,
                           struct comm_request **out, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    size_t chunks = chunk_total(mpi, message->bytes);
    struct mpi_request *request = message_request(mpi, "send", chunks, err);
    if (!request)
        return err->status;
    const struct mpi_message posted = {.request = request, .due_bytes = -1};
    for (size_t i = 0; i < chunks; i++) {
        MPI_Request handle;
        int code = MPI_Isend((const char *)data + i * comm->chunk_count,
                             chunk_bytes(mpi, message->bytes, i), MPI_BYTE, message->rank,
                             message->tag, mpi->messages, &handle);
        mpi_posted(mpi, &posted, code, handle);
    }
    *out = &request->base;
    return STATUS_OK;
}

enum status mpi_receive_start(struct comm *comm, void *data, const struct comm_message *message,
                              struct comm_request **out, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    size_t chunks = chunk_total(mpi, message->bytes);
    struct mpi_request *request = message_request(mpi, "receive", chunks, err);
    if (!request)
        return err->status;
    for (size_t i = 0; i < chunks; i++) {
        const struct mpi_message posted = {.request = request,
                                           .due_bytes = chunk_bytes(mpi, message->bytes, i)};
        MPI_Request handle;
        int code = MPI_Irecv((char *)data + i * comm->chunk_count, posted.due_bytes, MPI_BYTE,
                             message->rank, message->tag, mpi->messages, &handle);
        mpi_posted(mpi, &posted, code, handle);
    }
    *out = &request->base;
    return STATUS_OK;
}

/* ---- progress and the end ---- */

void mpi_poll(struct comm *comm)
{
    mpi_family_push(((struct mpi_comm *)comm)->family, false);
}

static bool has_ended(const struct mpi_request *request)
{
    return request->started == request->pieces && request->under_way == 0;
}

bool mpi_test(struct comm *comm, struct comm_request *base)
{
    const struct mpi_request *request = (const struct mpi_request *)base;
    if (!has_ended(request))
        mpi_poll(comm);
    return has_ended(request);
}

static enum status outcome(const struct mpi_family *family, const struct mpi_request *request,
                           struct error *err)
{
    TRY(mpi_check(request->failure, request->base.call, err));
    if (!has_ended(request))
        return mpi_check(family->failure, request->base.call, err);
    if (request->arrived_bytes != request->due_bytes)
        return error_set(err, STATUS_FAILED,
                         "receive: a message of %d bytes came from rank %d where one of %d was due",
                         request->arrived_bytes, request->from, request->due_bytes);
    return STATUS_OK;
}

enum status mpi_wait(struct comm *comm, struct comm_request *base, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    struct mpi_request *request = (struct mpi_request *)base;
    while (!has_ended(request) && mpi->family->failure == MPI_SUCCESS)
        mpi_family_push(mpi->family, true);
    enum status status = outcome(mpi->family, request, err);
    unlink_request(mpi, request);
    free(request);
    return status;
}

void mpi_requests_end(struct mpi_comm *mpi)
{
    struct error ignored;
    struct mpi_request *request = mpi->oldest;
    while (request) {
        struct mpi_request *newer = request->newer;
        (void)mpi_wait(&mpi->base, &request->base, &ignored);
        request = newer;
    }
}
