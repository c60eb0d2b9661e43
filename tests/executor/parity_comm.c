#include "parity_comm.h"

#include "base/bf16.h"
#include "executor/comm/comm_ops.h"
#include "ir/mesh.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct faulty_comm {
    struct comm base;
    struct comm *inner;
    bool owns_inner;
    int world_rank;
    const struct plan *plan;
    struct fault *fault;
    bool is_struck; /* the fault is in this group */
    int sums;       /* so far */
};

struct faulty_request {
    struct comm_request base;
    struct comm_request *inner; /* NULL: the sum was left out */
    /* [count] are multiplied once the sum is there; NULL: none are */
    float *scaled;
    uint16_t *scaled_bf16;
    size_t count;
};

static struct faulty_comm *self_of(struct comm *comm)
{
    return (struct faulty_comm *)comm;
}

static struct comm *inner_of(struct comm *comm)
{
    return self_of(comm)->inner;
}

/* What becomes of the next sum of this group. */
static enum fault_kind strike(struct faulty_comm *self)
{
    int at = self->sums++;
    if (!self->is_struck || (self->fault->kind == FAULT_ONE && at != self->fault->at))
        return FAULT_NONE;
    self->fault->planted++;
    return self->fault->kind == FAULT_ONE ? FAULT_MISSING : self->fault->kind;
}

static void scale(float *data, size_t count, int factor)
{
    for (size_t i = 0; i < count; i++)
        data[i] *= (float)factor;
}

static void scale_bf16(uint16_t *data, size_t count, int factor)
{
    for (size_t i = 0; i < count; i++)
        data[i] = bf16_from_float(float_from_bf16(data[i]) * (float)factor);
}

/* ---- groups ---- */

static enum status wrap(struct comm **out, struct comm *inner, const struct faulty_comm *parts,
                        struct error *err);

/* Which group of the plan's is it whose members have these ranks? */
static enum fault_group group_of(const struct plan *plan, const int *members, int count)
{
    bool one_stage = true, one_replica = true;
    for (int i = 1; i < count; i++) {
        if (mesh_stage_of(plan, members[i]) != mesh_stage_of(plan, members[0]))
            one_stage = false;
        if (mesh_replica_of(plan, members[i]) != mesh_replica_of(plan, members[0]))
            one_replica = false;
    }
    if (!one_stage)
        return FAULT_TABLE;
    return one_replica ? FAULT_TENSOR : FAULT_DATA;
}

static enum status faulty_split(struct comm *parent, int color, struct comm **out,
                                struct error *err)
{
    struct faulty_comm *self = self_of(parent);
    struct comm *inner = NULL;
    int members[64];
    TRY(comm_split(self->inner, color, &inner, err));
    assert(comm_size(inner) <= 64);
    enum status status =
        comm_all_gather(inner, &self->world_rank, members, sizeof self->world_rank, err);
    struct faulty_comm parts = *self;
    parts.base.parent = parent;
    parts.owns_inner = true;
    parts.is_struck = comm_size(inner) > 1 &&
                      group_of(self->plan, members, comm_size(inner)) == self->fault->group;
    if (status == STATUS_OK)
        status = wrap(out, inner, &parts, err);
    if (status != STATUS_OK)
        comm_close(inner);
    return status;
}

static void faulty_close(struct comm *comm)
{
    struct faulty_comm *self = self_of(comm);
    if (self->owns_inner)
        comm_close(self->inner);
    free(self);
}

static void faulty_abort(struct comm *comm, int exit_code)
{
    comm_abort(inner_of(comm), exit_code);
}

/* ---- sums, where the faults are ---- */

static enum status faulty_all_reduce(struct comm *comm, void *data, size_t count,
                                     enum comm_element element, struct error *err)
{
    enum fault_kind kind = element == ELEMENT_F32_SUM ? strike(self_of(comm)) : FAULT_NONE;
    if (kind == FAULT_MISSING)
        return STATUS_OK;
    TRY(inner_of(comm)->ops->all_reduce(inner_of(comm), data, count, element, err));
    if (kind == FAULT_SCALED)
        scale(data, count, comm->size);
    return STATUS_OK;
}

static enum status faulty_reduce_scatter(struct comm *comm, const float *in, float *out,
                                         size_t count, struct error *err)
{
    enum fault_kind kind = strike(self_of(comm));
    if (kind == FAULT_MISSING) {
        memcpy(out, in + (size_t)comm->rank * count, count * sizeof *out);
        return STATUS_OK;
    }
    TRY(comm_reduce_scatter(inner_of(comm), in, out, count, err));
    if (kind == FAULT_SCALED)
        scale(out, count, comm->size);
    return STATUS_OK;
}

/* A request of ours for one of the inner group's. */
static enum status own_request(struct comm *comm, struct faulty_request request,
                               struct comm_request **out, struct error *err)
{
    struct faulty_request *own = malloc(sizeof *own);
    if (own == NULL)
        return error_memory(err, sizeof *own, "a request");
    request.base = (struct comm_request){.owner = comm, .call = "a collective"};
    *own = request;
    *out = &own->base;
    return STATUS_OK;
}

typedef enum status (*sum_start)(struct comm *, float *, size_t, struct comm_request **,
                                 struct error *);
typedef enum status (*sum_bf16_start)(struct comm *, uint16_t *, size_t, struct comm_request **,
                                      struct error *);

static enum status faulty_start(struct comm *comm, sum_start start, float *data, size_t count,
                                struct comm_request **out, struct error *err)
{
    struct faulty_request request = {.count = count};
    enum fault_kind kind = strike(self_of(comm));
    if (kind != FAULT_MISSING)
        TRY(start(inner_of(comm), data, count, &request.inner, err));
    if (kind == FAULT_SCALED)
        request.scaled = data;
    return own_request(comm, request, out, err);
}

static enum status faulty_bf16_start(struct comm *comm, sum_bf16_start start, uint16_t *data,
                                     size_t count, struct comm_request **out, struct error *err)
{
    struct faulty_request request = {.count = count};
    enum fault_kind kind = strike(self_of(comm));
    if (kind != FAULT_MISSING)
        TRY(start(inner_of(comm), data, count, &request.inner, err));
    if (kind == FAULT_SCALED)
        request.scaled_bf16 = data;
    return own_request(comm, request, out, err);
}

static enum status faulty_all_reduce_start(struct comm *comm, float *data, size_t count,
                                           struct comm_request **out, struct error *err)
{
    return faulty_start(comm, comm_all_reduce_start, data, count, out, err);
}

static enum status faulty_reduce_scatter_start(struct comm *comm, float *data, size_t count,
                                               struct comm_request **out, struct error *err)
{
    return faulty_start(comm, comm_reduce_scatter_start, data, count, out, err);
}

static enum status faulty_all_reduce_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                                struct comm_request **out, struct error *err)
{
    return faulty_bf16_start(comm, comm_all_reduce_bf16_start, data, count, out, err);
}

static enum status faulty_reduce_scatter_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                                    struct comm_request **out, struct error *err)
{
    return faulty_bf16_start(comm, comm_reduce_scatter_bf16_start, data, count, out, err);
}

/* ---- the rest is passed on ---- */

static enum status faulty_all_gather_start(struct comm *comm, void *data, size_t count,
                                           size_t element_bytes, struct comm_request **out,
                                           struct error *err)
{
    struct faulty_request request = {0};
    TRY(comm_all_gather_start(inner_of(comm), data, count, element_bytes, &request.inner, err));
    return own_request(comm, request, out, err);
}

static enum status faulty_send_start(struct comm *comm, const void *data,
                                     const struct comm_message *message, struct comm_request **out,
                                     struct error *err)
{
    struct faulty_request request = {0};
    TRY(comm_send_start(inner_of(comm), data, message->bytes, message->rank, message->tag,
                        &request.inner, err));
    return own_request(comm, request, out, err);
}

static enum status faulty_receive_start(struct comm *comm, void *data,
                                        const struct comm_message *message,
                                        struct comm_request **out, struct error *err)
{
    struct faulty_request request = {0};
    TRY(comm_receive_start(inner_of(comm), data, message->bytes, message->rank, message->tag,
                           &request.inner, err));
    return own_request(comm, request, out, err);
}

static void faulty_poll(struct comm *comm)
{
    comm_poll(inner_of(comm));
}

static bool faulty_test(struct comm *comm, struct comm_request *request)
{
    struct faulty_request *own = (struct faulty_request *)request;
    return own->inner == NULL || comm_test(inner_of(comm), own->inner);
}

static enum status faulty_wait(struct comm *comm, struct comm_request *request, struct error *err)
{
    struct faulty_request *own = (struct faulty_request *)request;
    enum status status = comm_wait(inner_of(comm), own->inner, err);
    if (status == STATUS_OK && own->scaled != NULL)
        scale(own->scaled, own->count, comm->size);
    if (status == STATUS_OK && own->scaled_bf16 != NULL)
        scale_bf16(own->scaled_bf16, own->count, comm->size);
    free(own);
    return status;
}

static enum status faulty_barrier(struct comm *comm, struct error *err)
{
    return comm_barrier(inner_of(comm), err);
}

static enum status faulty_broadcast(struct comm *comm, void *data, size_t bytes, int root,
                                    struct error *err)
{
    return comm_broadcast(inner_of(comm), data, bytes, root, err);
}

static enum status faulty_all_gather(struct comm *comm, const void *in, void *out, size_t bytes,
                                     struct error *err)
{
    return comm_all_gather(inner_of(comm), in, out, bytes, err);
}

static enum status faulty_gather_bytes(struct comm *comm, const void *data, size_t bytes,
                                       void **out, size_t *bytes_by_rank, struct error *err)
{
    return comm_gather_bytes(inner_of(comm), data, bytes, out, bytes_by_rank, err);
}

static enum status faulty_send(struct comm *comm, const void *data, size_t bytes, int to,
                               struct error *err)
{
    return comm_send(inner_of(comm), data, bytes, to, err);
}

static enum status faulty_receive(struct comm *comm, void *data, size_t bytes, int from,
                                  struct error *err)
{
    return comm_receive(inner_of(comm), data, bytes, from, err);
}

static const struct comm_ops faulty_ops = {
    .split = faulty_split,
    .close = faulty_close,
    .abort = faulty_abort,
    .barrier = faulty_barrier,
    .broadcast = faulty_broadcast,
    .all_reduce = faulty_all_reduce,
    .all_reduce_start = faulty_all_reduce_start,
    .reduce_scatter_start = faulty_reduce_scatter_start,
    .all_reduce_bf16_start = faulty_all_reduce_bf16_start,
    .reduce_scatter_bf16_start = faulty_reduce_scatter_bf16_start,
    .all_gather_start = faulty_all_gather_start,
    .send_start = faulty_send_start,
    .receive_start = faulty_receive_start,
    .poll = faulty_poll,
    .test = faulty_test,
    .wait = faulty_wait,
    .all_gather = faulty_all_gather,
    .reduce_scatter = faulty_reduce_scatter,
    .gather_bytes = faulty_gather_bytes,
    .send = faulty_send,
    .receive = faulty_receive,
};

/* Takes the plan, the fault and what was decided about the group from `parts`. */
static enum status wrap(struct comm **out, struct comm *inner, const struct faulty_comm *parts,
                        struct error *err)
{
    struct faulty_comm *self = malloc(sizeof *self);
    if (self == NULL)
        return error_memory(err, sizeof *self, "a group");
    *self = *parts;
    struct comm *parent = parts->base.parent;
    self->base = *inner;
    self->base.ops = &faulty_ops;
    self->base.parent = parent;
    self->inner = inner;
    self->sums = 0;
    *out = &self->base;
    return STATUS_OK;
}

enum status comm_open_faulty(struct comm **out, struct comm *inner, const struct plan *plan,
                             struct fault *fault, struct error *err)
{
    const struct faulty_comm parts = {.world_rank = comm_rank(inner), .plan = plan, .fault = fault};
    return wrap(out, inner, &parts, err);
}
