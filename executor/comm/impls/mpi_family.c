/* The messages that MPI has of all groups, in one array, so that whoever polls or waits in one
 * group pushes every other.
 *
 * MPI moves the messages that it has inside any of its calls, but it neither adds up the blocks of
 * a sum nor starts the pieces that our windows hold back. A rank that slept in a blocking call of
 * MPI would therefore keep a request of another group from ending at the ranks that wait for that
 * one, for ever where it waits for one of them. So nothing here blocks inside MPI on behalf of one
 * group: every waiting call looks at the messages of the whole family. */
#include "executor/comm/impls/mpi_comm.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>

static bool grow(void **array, size_t capacity, size_t bytes)
{
    void *grown = realloc(*array, capacity * bytes);
    if (grown)
        *array = grown;
    return grown != NULL;
}

enum status mpi_family_reserve(struct mpi_family *family, size_t extra, struct error *err)
{
    TRY(mpi_check(family->failure, "messages under way", err));
    size_t wanted = family->window_messages + family->count + extra;
    if (wanted <= family->capacity)
        return STATUS_OK;
    size_t capacity = wanted + wanted / 2;
    assert(capacity <= INT_MAX);
    /* Those that were grown before one that was not are merely larger than the capacity says. */
    if (!grow((void **)&family->handles, capacity, sizeof(*family->handles)) ||
        !grow((void **)&family->owners, capacity, sizeof(*family->owners)) ||
        !grow((void **)&family->ended, capacity, sizeof(*family->ended)) ||
        !grow((void **)&family->states, capacity, sizeof(*family->states)))
        return error_memory(err, capacity * sizeof(*family->states), "messages under way");
    family->capacity = capacity;
    return STATUS_OK;
}

void mpi_family_free(struct mpi_family *family)
{
    free(family->handles);
    free(family->owners);
    free(family->ended);
    free(family->states);
    free(family);
}

static void note_failure(struct mpi_request *request, int code)
{
    if (request->failure == MPI_SUCCESS)
        request->failure = code;
}

void mpi_posted(struct mpi_comm *mpi, const struct mpi_message *message, int code,
                MPI_Request handle)
{
    struct mpi_family *family = mpi->family;
    if (code != MPI_SUCCESS) {
        note_failure(message->request, code);
        return;
    }
    assert(family->count < family->capacity);
    family->handles[family->count] = handle;
    family->owners[family->count++] = *message;
    if (message->piece)
        message->piece->messages++;
    else
        message->request->under_way++;
}

/* All messages of a piece have ended, or there are none: what follows may be more of them. */
static void advance_piece(struct mpi_comm *mpi, struct mpi_piece *piece)
{
    struct mpi_request *request = piece->request;
    if (request->work->advance && request->failure == MPI_SUCCESS)
        request->work->advance(mpi, piece);
    if (piece->messages == 0) {
        piece->request = NULL;
        request->under_way--;
    }
}

static void start_piece(struct mpi_comm *mpi, struct mpi_lane *lane, struct mpi_piece *piece)
{
    struct mpi_request *request = lane->oldest;
    piece->request = request;
    piece->index = request->started++;
    piece->number = lane->started++;
    piece->is_summed = false;
    if (request->started == request->pieces)
        lane->oldest = request->next_queued;
    request->under_way++;
    request->work->start(mpi, piece);
    if (piece->messages == 0)
        advance_piece(mpi, piece);
}

void mpi_lane_fill(struct mpi_comm *mpi, struct mpi_lane *lane)
{
    for (size_t i = 0; i < MPI_WINDOW_PIECES; i++) {
        struct mpi_piece *piece = &lane->window[i];
        if (piece->request && piece->messages == 0)
            advance_piece(mpi, piece);
        while (lane->oldest && !piece->request)
            start_piece(mpi, lane, piece);
    }
}

static void message_ended(const struct mpi_message *message, int code, const MPI_Status *state)
{
    struct mpi_request *request = message->request;
    int arrived = message->due_bytes;
    if (code != MPI_SUCCESS)
        note_failure(request, code);
    if (message->piece) {
        message->piece->messages--;
        return;
    }
    request->under_way--;
    if (message->due_bytes >= 0 && code == MPI_SUCCESS)
        (void)MPI_Get_count(state, MPI_BYTE, &arrived);
    if (arrived != message->due_bytes) {
        request->from = state->MPI_SOURCE;
        request->arrived_bytes = arrived;
        request->due_bytes = message->due_bytes;
    }
}

/* MPI has set the handles of what has ended to null. */
static void forget_ended(struct mpi_family *family)
{
    size_t kept = 0;
    for (size_t i = 0; i < family->count; i++) {
        if (family->handles[i] == MPI_REQUEST_NULL)
            continue;
        family->handles[kept] = family->handles[i];
        family->owners[kept++] = family->owners[i];
    }
    family->count = kept;
}

void mpi_family_push(struct mpi_family *family, bool wait)
{
    if (family->count == 0 || family->failure != MPI_SUCCESS)
        return;
    int ended_count = MPI_UNDEFINED;
    int code = (wait ? MPI_Waitsome : MPI_Testsome)((int)family->count, family->handles,
                                                    &ended_count, family->ended, family->states);
    if (ended_count == MPI_UNDEFINED)
        family->failure = code == MPI_SUCCESS ? MPI_ERR_INTERN : code;
    if (ended_count == MPI_UNDEFINED || ended_count == 0)
        return;
    for (int i = 0; i < ended_count; i++) {
        int own = code == MPI_ERR_IN_STATUS ? family->states[i].MPI_ERROR : code;
        message_ended(&family->owners[family->ended[i]], own, &family->states[i]);
    }
    forget_ended(family);
    for (struct mpi_comm *mpi = family->groups; mpi; mpi = mpi->next_group) {
        mpi_lane_fill(mpi, &mpi->direct);
        mpi_lane_fill(mpi, &mpi->queue);
    }
}

int mpi_await(struct mpi_comm *mpi, int code, MPI_Request *handle, MPI_Status *state)
{
    int ended = 0;
    while (code == MPI_SUCCESS && !ended && mpi->family->count > 0) {
        mpi_family_push(mpi->family, false);
        code = MPI_Test(handle, &ended, state);
    }
    /* Nothing of ours is under way any more, and nobody else starts any. */
    return code == MPI_SUCCESS && !ended ? MPI_Wait(handle, state) : code;
}
