#include "executor/comm/comm_ops.h"

#include "base/clock.h"
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* In the order of preference: the first that is usable is taken. */
static const struct comm_ops *const implementations[] = {&comm_mpi_ops, &comm_self_ops};

/* ---- what this process waits for ---- */

static _Atomic int64_t waiting_since_ns; /* 0: for nothing */
static const char *_Atomic waiting_call;

static void waiting_begins(const char *call)
{
    /* Who sees this name sees that the wait before it has ended. */
    atomic_store_explicit(&waiting_call, call, memory_order_release);
    atomic_store_explicit(&waiting_since_ns, clock_ns(), memory_order_release);
}

static enum status waiting_ends(enum status status)
{
    atomic_store_explicit(&waiting_since_ns, 0, memory_order_release);
    return status;
}

int64_t comm_waiting_since_ns(const char **call)
{
    for (;;) {
        int64_t since_ns = atomic_load(&waiting_since_ns);
        *call = atomic_load(&waiting_call);
        /* Else another wait has begun in between, and the two may not belong together. */
        if (atomic_load(&waiting_since_ns) == since_ns)
            return since_ns;
    }
}

/* ---- groups ---- */

enum status comm_open(struct comm **out, struct error *err)
{
    for (size_t i = 0; i < sizeof(implementations) / sizeof(implementations[0]); i++) {
        if (implementations[i]->usable())
            return implementations[i]->open(out, err);
    }
    return error_set(err, STATUS_UNSUPPORTED, "no communication library is usable here");
}

enum status comm_open_alone(struct comm **out, struct error *err)
{
    return comm_self_ops.open(out, err);
}

enum status comm_split(struct comm *parent, int color, struct comm **out, struct error *err)
{
    assert(color >= 0);
    waiting_begins("split");
    return waiting_ends(parent->ops->split(parent, color, out, err));
}

void comm_close(struct comm *comm)
{
    if (!comm)
        return;
    waiting_begins("close");
    comm->ops->close(comm);
    (void)waiting_ends(STATUS_OK);
}

void comm_abort(struct comm *comm, int exit_code)
{
    comm->ops->abort(comm, exit_code);
}

int comm_rank(const struct comm *comm)
{
    return comm->rank;
}

int comm_size(const struct comm *comm)
{
    return comm->size;
}

int comm_local_size(const struct comm *comm)
{
    return comm->local_size;
}

const char *comm_library(const struct comm *comm)
{
    return comm->library;
}

/* ---- blocking ---- */

enum status comm_barrier(struct comm *comm, struct error *err)
{
    waiting_begins("barrier");
    return waiting_ends(comm->ops->barrier(comm, err));
}

enum status comm_broadcast(struct comm *comm, void *data, size_t bytes, int root, struct error *err)
{
    assert(root >= 0 && root < comm->size);
    if (bytes == 0)
        return STATUS_OK;
    waiting_begins("broadcast");
    return waiting_ends(comm->ops->broadcast(comm, data, bytes, root, err));
}

static enum status all_reduce(struct comm *comm, void *data, size_t count,
                              enum comm_element element, struct error *err)
{
    if (count == 0)
        return STATUS_OK;
    waiting_begins("all-reduce");
    return waiting_ends(comm->ops->all_reduce(comm, data, count, element, err));
}

enum status comm_all_reduce_sum(struct comm *comm, float *data, size_t count, struct error *err)
{
    return all_reduce(comm, data, count, ELEMENT_F32_SUM, err);
}

enum status comm_all_reduce_sum_f64(struct comm *comm, double *data, size_t count,
                                    struct error *err)
{
    return all_reduce(comm, data, count, ELEMENT_F64_SUM, err);
}

enum status comm_all_reduce_max_i64(struct comm *comm, int64_t *data, size_t count,
                                    struct error *err)
{
    return all_reduce(comm, data, count, ELEMENT_I64_MAX, err);
}

/* The bits of an fp32 as an integer that orders like it, and back: negative numbers order by their
 * magnitude the other way round. */
static int32_t ordered_bits(int32_t bits)
{
    return bits < 0 ? bits ^ INT32_MAX : bits;
}

/* As integers: fp32's own comparison would let a NaN or the sign of a zero depend on which operand
 * comes first, and so on the rank. A NaN orders above infinity. */
enum status comm_all_reduce_max(struct comm *comm, float *data, size_t count, struct error *err)
{
    if (comm->size == 1)
        return STATUS_OK;
    for (size_t i = 0; i < count; i++) {
        int32_t bits;
        data[i] = isnan(data[i]) ? fabsf(data[i]) : data[i];
        memcpy(&bits, &data[i], sizeof(bits));
        bits = ordered_bits(bits);
        memcpy(&data[i], &bits, sizeof(bits));
    }
    enum status status = all_reduce(comm, data, count, ELEMENT_I32_MAX, err);
    for (size_t i = 0; i < count; i++) {
        int32_t bits;
        memcpy(&bits, &data[i], sizeof(bits));
        bits = ordered_bits(bits);
        memcpy(&data[i], &bits, sizeof(bits));
    }
    return status;
}

enum status comm_all_gather(struct comm *comm, const void *in, void *out, size_t bytes,
                            struct error *err)
{
    if (bytes == 0)
        return STATUS_OK;
    waiting_begins("all-gather");
    return waiting_ends(comm->ops->all_gather(comm, in, out, bytes, err));
}

enum status comm_reduce_scatter(struct comm *comm, const float *in, float *out, size_t count,
                                struct error *err)
{
    if (count == 0)
        return STATUS_OK;
    waiting_begins("reduce-scatter");
    return waiting_ends(comm->ops->reduce_scatter(comm, in, out, count, err));
}

enum status comm_gather_bytes(struct comm *comm, const void *data, size_t bytes, void **out,
                              size_t *bytes_by_rank, struct error *err)
{
    waiting_begins("gather");
    return waiting_ends(comm->ops->gather_bytes(comm, data, bytes, out, bytes_by_rank, err));
}

static enum status check_partner(const struct comm *comm, const char *call, int rank,
                                 struct error *err)
{
    if (comm->size > 1)
        return STATUS_OK;
    return error_set(err, STATUS_INVALID, "cannot %s rank %d: this group has one rank only", call,
                     rank);
}

enum status comm_send(struct comm *comm, const void *data, size_t bytes, int to, struct error *err)
{
    TRY(check_partner(comm, "send to", to, err));
    waiting_begins("send");
    return waiting_ends(comm->ops->send(comm, data, bytes, to, err));
}

enum status comm_receive(struct comm *comm, void *data, size_t bytes, int from, struct error *err)
{
    TRY(check_partner(comm, "receive from", from, err));
    waiting_begins("receive");
    return waiting_ends(comm->ops->receive(comm, data, bytes, from, err));
}

/* ---- requests ---- */

enum status comm_all_reduce_start(struct comm *comm, float *data, size_t count,
                                  struct comm_request **out, struct error *err)
{
    return comm->ops->all_reduce_start(comm, data, count, out, err);
}

enum status comm_reduce_scatter_start(struct comm *comm, float *data, size_t count,
                                      struct comm_request **out, struct error *err)
{
    return comm->ops->reduce_scatter_start(comm, data, count, out, err);
}

enum status comm_all_reduce_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                       struct comm_request **out, struct error *err)
{
    return comm->ops->all_reduce_bf16_start(comm, data, count, out, err);
}

enum status comm_reduce_scatter_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                           struct comm_request **out, struct error *err)
{
    return comm->ops->reduce_scatter_bf16_start(comm, data, count, out, err);
}

enum status comm_all_gather_start(struct comm *comm, void *data, size_t count, size_t element_bytes,
                                  struct comm_request **out, struct error *err)
{
    assert(element_bytes == 2 || element_bytes == 4);
    return comm->ops->all_gather_start(comm, data, count, element_bytes, out, err);
}

enum { TAG_MOST = 32767 }; /* what MPI promises every implementation to have */

enum status comm_send_start(struct comm *comm, const void *data, size_t bytes, int to, int tag,
                            struct comm_request **out, struct error *err)
{
    const struct comm_message message = {.bytes = bytes, .rank = to, .tag = tag};
    assert(tag >= 0 && tag <= TAG_MOST);
    TRY(check_partner(comm, "send to", to, err));
    return comm->ops->send_start(comm, data, &message, out, err);
}

enum status comm_receive_start(struct comm *comm, void *data, size_t bytes, int from, int tag,
                               struct comm_request **out, struct error *err)
{
    const struct comm_message message = {.bytes = bytes, .rank = from, .tag = tag};
    assert(tag >= 0 && tag <= TAG_MOST);
    TRY(check_partner(comm, "receive from", from, err));
    return comm->ops->receive_start(comm, data, &message, out, err);
}

void comm_poll(struct comm *comm)
{
    comm->ops->poll(comm);
}

bool comm_test(struct comm *comm, struct comm_request *request)
{
    assert(request->owner == comm);
    return comm->ops->test(comm, request);
}

enum status comm_wait(struct comm *comm, struct comm_request *request, struct error *err)
{
    if (!request)
        return STATUS_OK;
    assert(request->owner == comm);
    waiting_begins(request->call);
    return waiting_ends(comm->ops->wait(comm, request, err));
}
