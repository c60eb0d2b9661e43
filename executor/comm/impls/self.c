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

enum status comm_self_open(struct comm *parent, struct comm **out, struct error *err)
{
    struct self_comm *self = calloc(1, sizeof(*self));
    if (!self)
        return error_memory(err, sizeof(*self), "a group of one rank");
    self->base.ops = &comm_self_ops;
    self->base.parent = parent;
    self->base.size = 1;
    self->base.local_size = 1;
    self->base.chunk_count = SIZE_MAX;
    snprintf(self->base.library, sizeof(self->base.library), "none (one rank)");
    self->done.owner = &self->base;
    self->done.call = "nothing";
    *out = &self->base;
    return STATUS_OK;
}

static enum status self_open(struct comm **out, struct error *err)
{
    return comm_self_open(NULL, out, err);
}

static enum status self_split(struct comm *parent, int color, struct comm **out, struct error *err)
{
    (void)color;
    return comm_self_open(parent, out, err);
}

static void self_close(struct comm *comm)
{
    free(comm);
}

/* Split from a larger group, it ends that; else the caller exits by itself. */
static void self_abort(struct comm *comm, int exit_code)
{
    if (comm->parent)
        comm_abort(comm->parent, exit_code);
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

/* All of the sum, all of the blocks are here already. */
static enum status self_start(struct comm *comm, float *data, size_t count,
                              struct comm_request **out, struct error *err)
{
    (void)data;
    (void)count;
    (void)err;
    *out = &((struct self_comm *)comm)->done;
    return STATUS_OK;
}

static enum status self_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                   struct comm_request **out, struct error *err)
{
    (void)data;
    return self_start(comm, NULL, count, out, err);
}

static enum status self_all_gather_start(struct comm *comm, void *data, size_t count,
                                         size_t element_bytes, struct comm_request **out,
                                         struct error *err)
{
    (void)element_bytes;
    return self_start(comm, data, count, out, err);
}

static void self_poll(struct comm *comm)
{
    if (comm->parent)
        comm_poll(comm->parent);
}

static bool self_test(struct comm *comm, struct comm_request *request)
{
    (void)request;
    self_poll(comm);
    return true;
}

static enum status self_wait(struct comm *comm, struct comm_request *request, struct error *err)
{
    (void)comm;
    (void)request;
    (void)err;
    return STATUS_OK;
}

static enum status self_all_gather(struct comm *comm, const void *in, void *out, size_t bytes,
                                   struct error *err)
{
    (void)comm;
    (void)err;
    memmove(out, in, bytes);
    return STATUS_OK;
}

static enum status self_reduce_scatter(struct comm *comm, const float *in, float *out, size_t count,
                                       struct error *err)
{
    return self_all_gather(comm, in, out, count * sizeof(*out), err);
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

const struct comm_ops comm_self_ops = {
    .usable = self_usable,
    .open = self_open,
    .split = self_split,
    .close = self_close,
    .abort = self_abort,
    .barrier = self_barrier,
    .broadcast = self_broadcast,
    .all_reduce = self_all_reduce,
    .all_reduce_start = self_start,
    .reduce_scatter_start = self_start,
    .all_reduce_bf16_start = self_bf16_start,
    .reduce_scatter_bf16_start = self_bf16_start,
    .all_gather_start = self_all_gather_start,
    .poll = self_poll,
    .test = self_test,
    .wait = self_wait,
    .all_gather = self_all_gather,
    .reduce_scatter = self_reduce_scatter,
    .gather_bytes = self_gather_bytes,
};
