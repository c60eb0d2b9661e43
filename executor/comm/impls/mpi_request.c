#include "executor/comm/impls/mpi_comm.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Close the gaps that ended requests have left between those under way. */
static void compact(struct mpi_comm *mpi)
{
    size_t used = 0;
    for (struct mpi_request *request = mpi->oldest; request; request = request->newer) {
        memmove(&mpi->slots[used], &mpi->slots[request->first],
                request->count * sizeof(*mpi->slots));
        request->first = used;
        used += request->count;
    }
    mpi->slot_count = used;
}

static enum status reserve(struct mpi_comm *mpi, size_t count, struct error *err)
{
    if (mpi->slot_count + count <= mpi->slot_capacity)
        return STATUS_OK;
    compact(mpi);
    size_t capacity = mpi->slot_capacity > 0 ? mpi->slot_capacity : 64;
    while (capacity < mpi->slot_count + count)
        capacity *= 2;
    if (capacity > INT_MAX)
        return error_set(err, STATUS_UNSUPPORTED, "%zu outstanding MPI requests: at most %d",
                         mpi->slot_count + count, INT_MAX);

    void *slots = realloc(mpi->slots, capacity * sizeof(*mpi->slots));
    if (!slots)
        return error_memory(err, capacity * sizeof(*mpi->slots), "MPI requests");
    mpi->slots = slots;
    void *finished = realloc(mpi->finished, capacity * sizeof(*mpi->finished));
    if (!finished)
        return error_memory(err, capacity * sizeof(*mpi->finished), "indices of MPI requests");
    mpi->finished = finished;
    void *statuses = realloc(mpi->statuses, capacity * sizeof(*mpi->statuses));
    if (!statuses)
        return error_memory(err, capacity * sizeof(*mpi->statuses), "states of MPI requests");
    mpi->statuses = statuses;
    mpi->slot_capacity = capacity;
    return STATUS_OK;
}

static void link_newest(struct mpi_comm *mpi, struct mpi_request *request)
{
    request->older = mpi->newest;
    if (mpi->newest)
        mpi->newest->newer = request;
    else
        mpi->oldest = request;
    mpi->newest = request;
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
    mpi->slot_count = mpi->newest ? mpi->newest->first + mpi->newest->count : 0;
}

enum status mpi_start(struct comm *comm, float *data, size_t count, struct comm_request **out,
                      struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    size_t chunk = comm->chunk_count;
    size_t pieces = count / chunk + (count % chunk != 0);
    TRY(reserve(mpi, pieces, err));
    struct mpi_request *request = calloc(1, sizeof(*request));
    if (!request)
        return error_memory(err, sizeof(*request), "an all-reduce request");
    request->base.owner = comm;
    request->first = mpi->slot_count;
    link_newest(mpi, request);

    for (size_t begin = 0; begin < count; begin += chunk) {
        size_t length = count - begin < chunk ? count - begin : chunk;
        int code = MPI_Iallreduce(MPI_IN_PLACE, data + begin, (int)length, MPI_FLOAT, MPI_SUM,
                                  mpi->group, &mpi->slots[request->first + request->count]);
        if (code != MPI_SUCCESS) {
            /* The pieces that did start still write to `data`: the group keeps the request until
             * it closes. */
            mpi->slot_count = request->first + request->count;
            return mpi_check(code, "starting an all-reduce", err);
        }
        request->count++;
    }
    mpi->slot_count = request->first + request->count;
    *out = &request->base;
    return STATUS_OK;
}

void mpi_poll(struct comm *comm)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    if (mpi->slot_count == 0)
        return;
    int finished;
    int code =
        MPI_Testsome((int)mpi->slot_count, mpi->slots, &finished, mpi->finished, mpi->statuses);
    if (code == MPI_ERR_IN_STATUS) {
        for (int i = 0; i < finished && code == MPI_ERR_IN_STATUS; i++) {
            if (mpi->statuses[i].MPI_ERROR != MPI_SUCCESS)
                code = mpi->statuses[i].MPI_ERROR;
        }
    }
    if (mpi->poll_error == MPI_SUCCESS)
        mpi->poll_error = code;
}

enum status mpi_wait(struct comm *comm, struct comm_request *base, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    struct mpi_request *request = (struct mpi_request *)base;
    int failure = mpi->poll_error;
    for (size_t i = 0; i < request->count; i++) {
        int code = MPI_Wait(&mpi->slots[request->first + i], MPI_STATUS_IGNORE);
        if (failure == MPI_SUCCESS)
            failure = code;
    }
    unlink_request(mpi, request);
    free(request);
    return mpi_check(failure, "all-reduce under way", err);
}

void mpi_requests_end(struct mpi_comm *mpi)
{
    struct error ignored;
    while (mpi->oldest)
        (void)mpi_wait(&mpi->base, &mpi->oldest->base, &ignored);
    free(mpi->slots);
    free(mpi->finished);
    free(mpi->statuses);
}
