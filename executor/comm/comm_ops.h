/* What an implementation of comm.h supplies; seen by comm.c, launcher.c and impls/ only.
 *
 * An implementation embeds `struct comm` as the first member of its own struct, and `struct
 * comm_request` likewise. Every function has the contract of its namesake in comm.h; the counts of
 * blocking collectives are never zero, except in `gather_bytes`, `send` and `receive`. Messages are
 * only asked of groups of several ranks. */
#ifndef TEMPER_COMM_COMM_OPS_H
#define TEMPER_COMM_COMM_OPS_H

#include "executor/comm/comm.h"

enum { COMM_LIBRARY_BYTES = 64 };

enum comm_element { ELEMENT_F32_SUM, ELEMENT_F64_SUM, ELEMENT_I32_MAX, ELEMENT_I64_MAX };

struct comm {
    const struct comm_ops *ops;
    struct comm *parent; /* the group that this one was split from; NULL: none */
    int rank, size, local_size;
    char library[COMM_LIBRARY_BYTES];
    size_t chunk_count; /* most elements that one call of the library takes; equal on all ranks */
};

struct comm_request {
    const struct comm *owner;
    const char *call; /* what a rank that waits for it is waiting for */
};

/* A message to or from one rank. */
struct comm_message {
    size_t bytes;
    int rank, tag;
};

struct comm_ops {
    bool (*usable)(void); /* comm_open takes the first of the table that is */
    enum status (*open)(struct comm **out, struct error *err);
    enum status (*split)(struct comm *parent, int color, struct comm **out, struct error *err);
    void (*close)(struct comm *comm);
    void (*abort)(struct comm *comm, int exit_code);
    enum status (*barrier)(struct comm *comm, struct error *err);
    enum status (*broadcast)(struct comm *comm, void *data, size_t bytes, int root,
                             struct error *err);
    enum status (*all_reduce)(struct comm *comm, void *data, size_t count,
                              enum comm_element element, struct error *err);
    enum status (*all_reduce_start)(struct comm *comm, float *data, size_t count,
                                    struct comm_request **out, struct error *err);
    enum status (*reduce_scatter_start)(struct comm *comm, float *data, size_t count,
                                        struct comm_request **out, struct error *err);
    enum status (*all_reduce_bf16_start)(struct comm *comm, uint16_t *data, size_t count,
                                         struct comm_request **out, struct error *err);
    enum status (*reduce_scatter_bf16_start)(struct comm *comm, uint16_t *data, size_t count,
                                             struct comm_request **out, struct error *err);
    enum status (*all_gather_start)(struct comm *comm, void *data, size_t count,
                                    size_t element_bytes, struct comm_request **out,
                                    struct error *err);
    enum status (*send_start)(struct comm *comm, const void *data,
                              const struct comm_message *message, struct comm_request **out,
                              struct error *err);
    enum status (*receive_start)(struct comm *comm, void *data, const struct comm_message *message,
                                 struct comm_request **out, struct error *err);
    void (*poll)(struct comm *comm);
    bool (*test)(struct comm *comm, struct comm_request *request);
    enum status (*wait)(struct comm *comm, struct comm_request *request, struct error *err);
    enum status (*all_gather)(struct comm *comm, const void *in, void *out, size_t bytes,
                              struct error *err);
    enum status (*reduce_scatter)(struct comm *comm, const float *in, float *out, size_t count,
                                  struct error *err);
    enum status (*gather_bytes)(struct comm *comm, const void *data, size_t bytes, void **out,
                                size_t *bytes_by_rank, struct error *err);
    enum status (*send)(struct comm *comm, const void *data, size_t bytes, int to,
                        struct error *err);
    enum status (*receive)(struct comm *comm, void *data, size_t bytes, int from,
                           struct error *err);
};

extern const struct comm_ops comm_self_ops;
extern const struct comm_ops comm_mpi_ops;

/* A group of this rank alone that was split from `parent`; NULL: from none. */
enum status comm_self_open(struct comm *parent, struct comm **out, struct error *err);

#endif
