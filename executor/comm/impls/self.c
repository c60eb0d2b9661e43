/* A group of one rank, without any library: every collective is the identity or a copy. */
#include "executor/comm/comm_ops.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct self_comm {
    struct comm base;
    struct comm_request done; /* what every start hands out: nothing remains to be waited for */
};

static bool self_usable(void)
{
    return true;
}

static enum status self_open(struct comm **out, struct error *err)
{
    struct self_comm *self = calloc(1, sizeof(*self));
    if (!self)
        return error_memory(err, sizeof(*self), "a group of one rank");
    self->base.ops = &comm_self_ops;
    self->base.size = 1;
    self->base.local_size = 1;
    self->base.chunk_count = SIZE_MAX;
    snprintf(self->base.library, sizeof(self->base.library), "none (one rank)");
    self->done.owner = &self->base;
    *out = &self->base;
    return STATUS_OK;
}

static void self_close(struct comm *comm)
{
    free(comm);
}

static void self_abort(struct comm *comm, int exit_code)
{
    (void)comm;
    (void)exit_code; /* no other rank to end: the caller exits by itself */
}

static enum status self_barrier(struct comm *comm, struct error *err)
{
    (void)comm;
    (void)err;
    return STATUS_OK;
}

static enum status self_broadcast(struct comm *comm, void *data, size_t bytes, int root,
                                  struct error *err)
{
    (void)comm;
    (void)data;
    (void)bytes;
    (void)root;
    (void)err;
    return STATUS_OK;
}

static enum status self_all_reduce(struct comm *comm, void *data, size_t count,
                                   enum comm_element element, struct error *err)
{
    (void)comm;
    (void)data;
    (void)count;
    (void)element;
    (void)err;
    return STATUS_OK;
}

static enum status self_start(struct comm *comm, float *data, size_t count,
                              struct comm_request **out, struct error *err)
{
    (void)data;
    (void)count;
    (void)err;
    *out = &((struct self_comm *)comm)->done;
    return STATUS_OK;
}

static void self_poll(struct comm *comm)
{
    (void)comm;
}

static enum status self_wait(struct comm *comm, struct comm_request *request, struct error *err)
{
    (void)comm;
    (void)request;
    (void)err;
    return STATUS_OK;
}

/* Of one rank both the gather and the scatter are a copy. */
static enum status self_copy(struct comm *comm, const float *in, float *out, size_t count,
                             struct error *err)
{
    (void)comm;
    (void)err;
    memmove(out, in, count * sizeof(*out));
    return STATUS_OK;
}

static enum status self_gather_bytes(struct comm *comm, const void *data, size_t bytes, void **out,
                                     size_t *bytes_by_rank, struct error *err)
{
    (void)comm;
    void *copy = malloc(bytes > 0 ? bytes : 1);
    if (!copy)
        return error_memory(err, bytes, "gathered bytes");
    if (bytes > 0)
        memcpy(copy, data, bytes);
    if (bytes_by_rank)
        bytes_by_rank[0] = bytes;
    *out = copy;
    return STATUS_OK;
}

static enum status self_send(struct comm *comm, const void *data, size_t bytes, int to,
                             struct error *err)
{
    (void)comm;
    (void)data;
    return error_set(err, STATUS_INVALID,
                     "cannot send %zu bytes to rank %d: this group has one rank only", bytes, to);
}

static enum status self_receive(struct comm *comm, void *data, size_t bytes, int from,
                                struct error *err)
{
    (void)comm;
    (void)data;
    return error_set(err, STATUS_INVALID,
                     "cannot receive %zu bytes from rank %d: this group has one rank only", bytes,
                     from);
}

const struct comm_ops comm_self_ops = {
    .usable = self_usable,
    .open = self_open,
    .close = self_close,
    .abort = self_abort,
    .barrier = self_barrier,
    .broadcast = self_broadcast,
    .all_reduce = self_all_reduce,
    .start = self_start,
    .poll = self_poll,
    .wait = self_wait,
    .all_gather = self_copy,
    .reduce_scatter = self_copy,
    .gather_bytes = self_gather_bytes,
    .send = self_send,
    .receive = self_receive,
};
