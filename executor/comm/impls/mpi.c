/* Groups over MPI (MPI 3.0 or later). Large counts go in chunks, since MPI counts in int. */
#include "executor/comm/impls/mpi_comm.h"

#include <assert.h>
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
        TRY(mpi_check(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level), "starting MPI",
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

/* What MPI knows of the group, whose communicators stand; `of_launcher`: all ranks of it. */
static enum status join(struct mpi_comm *mpi, bool of_launcher, struct error *err)
{
    const MPI_Comm all[] = {mpi->direct.ranks, mpi->queue.ranks, mpi->messages};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        TRY(mpi_check(MPI_Comm_set_errhandler(all[i], MPI_ERRORS_RETURN),
                      "asking MPI to return errors", err));
    TRY(mpi_check(MPI_Comm_rank(all[0], &mpi->base.rank), "asking for the rank", err));
    TRY(mpi_check(MPI_Comm_size(all[0], &mpi->base.size), "asking for the ranks", err));
    int launched = comm_launched_ranks();
    if (of_launcher && launched > 0 && launched != mpi->base.size)
        return error_set(err, STATUS_FAILED,
                         "the launcher started %d ranks but MPI joined %d of them: it does not "
                         "speak this launcher's PMI; use mpirun, or srun --mpi=pmix",
                         launched, mpi->base.size);
    MPI_Comm local;
    TRY(mpi_check(MPI_Comm_split_type(all[0], MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local),
                  "finding the ranks of this host", err));
    int code = MPI_Comm_size(local, &mpi->base.local_size);
    (void)MPI_Comm_free(&local);
    return mpi_check(code, "counting the ranks of this host", err);
}

/* The most messages that its windows can have under way. */
static size_t window_messages(const struct mpi_comm *mpi)
{
    size_t others = (size_t)mpi->base.size - 1;
    size_t piece = others > 0 ? 2 * others : 1;
    return 2 * MPI_WINDOW_PIECES * piece;
}

static enum status join_family(struct mpi_comm *mpi, struct error *err)
{
    struct mpi_family *family = mpi->family;
    size_t wanted = window_messages(mpi);
    TRY(mpi_family_reserve(family, wanted, err));
    family->window_messages += wanted;
    mpi->next_group = family->groups;
    family->groups = mpi;
    return STATUS_OK;
}

static void leave_family(struct mpi_comm *mpi)
{
    struct mpi_comm **at = &mpi->family->groups;
    while (*at != mpi)
        at = &(*at)->next_group;
    *at = mpi->next_group;
    mpi->family->window_messages -= window_messages(mpi);
}

/* A group over `ranks`, which it owns from now on also when this fails. Its three communicators
 * keep apart blocking calls, the queue and messages with tags of the caller's. */
static enum status open_group(struct mpi_family *family, struct comm *parent, MPI_Comm ranks,
                              struct comm **out, struct error *err)
{
    struct mpi_comm *mpi = calloc(1, sizeof(*mpi));
    if (!mpi) {
        (void)error_memory(err, sizeof(*mpi), "a group of MPI ranks");
        goto free_ranks;
    }
    mpi->base.ops = &comm_mpi_ops;
    mpi->base.parent = parent;
    mpi->base.chunk_count = parent ? parent->chunk_count : CHUNK_COUNT;
    mpi->family = family;
    mpi->direct.ranks = ranks;
    if (mpi_check(MPI_Comm_dup(ranks, &mpi->queue.ranks), "making a group", err) != STATUS_OK)
        goto free_mpi;
    if (mpi_check(MPI_Comm_dup(ranks, &mpi->messages), "making a group", err) != STATUS_OK)
        goto free_queue;
    if (join(mpi, !parent, err) != STATUS_OK || join_family(mpi, err) != STATUS_OK)
        goto free_messages;
    library_name(mpi->base.library);
    *out = &mpi->base;
    return STATUS_OK;

free_messages:
    (void)MPI_Comm_free(&mpi->messages);
free_queue:
    (void)MPI_Comm_free(&mpi->queue.ranks);
free_mpi:
    free(mpi);
free_ranks:
    (void)MPI_Comm_free(&ranks);
    return err->status;
}

static enum status mpi_open(struct comm **out, struct error *err)
{
    MPI_Comm ranks;
    struct mpi_family *family = calloc(1, sizeof(*family));
    if (!family)
        return error_memory(err, sizeof(*family), "a family of MPI groups");
    family->failure = MPI_SUCCESS;
    if (start_mpi(&family->owns_mpi, err) != STATUS_OK)
        goto free_family;
    if (mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &ranks), "making a group", err) != STATUS_OK)
        goto finalize;
    if (open_group(family, NULL, ranks, out, err) != STATUS_OK)
        goto finalize;
    /* The group has the family, and the last group of a family frees it. */
    return STATUS_OK; /* NOLINT(clang-analyzer-unix.Malloc) */

finalize:
    if (family->owns_mpi)
        (void)MPI_Finalize();
free_family:
    mpi_family_free(family);
    return err->status;
}

static enum status mpi_split(struct comm *parent, int color, struct comm **out, struct error *err)
{
    struct mpi_comm *mpi = (struct mpi_comm *)parent;
    MPI_Comm ranks;
    int size;
    TRY(mpi_check(MPI_Comm_split(mpi->direct.ranks, color, parent->rank, &ranks),
                  "splitting a group", err));
    enum status status = mpi_check(MPI_Comm_size(ranks, &size), "splitting a group", err);
    if (status == STATUS_OK && size > 1)
        return open_group(mpi->family, parent, ranks, out, err);
    (void)MPI_Comm_free(&ranks);
    return status == STATUS_OK ? comm_self_open(parent, out, err) : status;
}

static void mpi_close(struct comm *comm)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    struct mpi_family *family = mpi->family;
    mpi_requests_end(mpi);
    leave_family(mpi);
    (void)MPI_Comm_free(&mpi->messages);
    (void)MPI_Comm_free(&mpi->queue.ranks);
    (void)MPI_Comm_free(&mpi->direct.ranks);
    if (!comm->parent) {
        assert(!family->groups); /* those split from it are closed first */
        if (family->owns_mpi)
            (void)MPI_Finalize();
        mpi_family_free(family);
    }
    free(mpi->direct.scratch);
    free(mpi->queue.scratch);
    free(mpi);
}

static void mpi_abort(struct comm *comm, int exit_code)
{
    (void)comm;
    (void)MPI_Abort(MPI_COMM_WORLD, exit_code);
}

const struct comm_ops comm_mpi_ops = {
    .usable = mpi_usable,
    .open = mpi_open,
    .split = mpi_split,
    .close = mpi_close,
    .abort = mpi_abort,
    .barrier = mpi_barrier,
    .broadcast = mpi_broadcast,
    .all_reduce = mpi_all_reduce,
    .all_reduce_start = mpi_all_reduce_start,
    .reduce_scatter_start = mpi_reduce_scatter_start,
    .all_reduce_bf16_start = mpi_all_reduce_bf16_start,
    .reduce_scatter_bf16_start = mpi_reduce_scatter_bf16_start,
    .all_gather_start = mpi_all_gather_start,
    .send_start = mpi_send_start,
    .receive_start = mpi_receive_start,
    .poll = mpi_poll,
    .test = mpi_test,
    .wait = mpi_wait,
    .all_gather = mpi_all_gather,
    .reduce_scatter = mpi_reduce_scatter,
    .gather_bytes = mpi_gather_bytes,
    .send = mpi_send,
    .receive = mpi_receive,
};
