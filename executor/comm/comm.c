#include "executor/comm/comm_ops.h"

#include <assert.h>

/* In the order of preference: the first that is usable is taken. */
static const struct comm_ops *const implementations[] = {&comm_mpi_ops, &comm_self_ops};

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

void comm_close(struct comm *comm)
{
    if (comm)
        comm->ops->close(comm);
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

enum status comm_barrier(struct comm *comm, struct error *err)
{
    return comm->ops->barrier(comm, err);
}

enum status comm_broadcast(struct comm *comm, void *data, size_t bytes, int root, struct error *err)
{
    assert(root >= 0 && root < comm->size);
    return bytes == 0 ? STATUS_OK : comm->ops->broadcast(comm, data, bytes, root, err);
}

static enum status all_reduce(struct comm *comm, void *data, size_t count,
                              enum comm_element element, struct error *err)
{
    return count == 0 ? STATUS_OK : comm->ops->all_reduce(comm, data, count, element, err);
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

enum status comm_all_reduce_start(struct comm *comm, float *data, size_t count,
                                  struct comm_request **out, struct error *err)
{
    return comm->ops->start(comm, data, count, out, err);
}

void comm_poll(struct comm *comm)
{
    comm->ops->poll(comm);
}

enum status comm_wait(struct comm *comm, struct comm_request *request, struct error *err)
{
    assert(request->owner == comm);
    return comm->ops->wait(comm, request, err);
}

enum status comm_all_gather(struct comm *comm, const float *in, float *out, size_t count,
                            struct error *err)
{
    return count == 0 ? STATUS_OK : comm->ops->all_gather(comm, in, out, count, err);
}

enum status comm_reduce_scatter(struct comm *comm, const float *in, float *out, size_t count,
                                struct error *err)
{
    return count == 0 ? STATUS_OK : comm->ops->reduce_scatter(comm, in, out, count, err);
}

enum status comm_gather_bytes(struct comm *comm, const void *data, size_t bytes, void **out,
                              size_t *bytes_by_rank, struct error *err)
{
    return comm->ops->gather_bytes(comm, data, bytes, out, bytes_by_rank, err);
}

enum status comm_send(struct comm *comm, const void *data, size_t bytes, int to, struct error *err)
{
    return comm->ops->send(comm, data, bytes, to, err);
}

enum status comm_receive(struct comm *comm, void *data, size_t bytes, int from, struct error *err)
{
    return comm->ops->receive(comm, data, bytes, from, err);
}
