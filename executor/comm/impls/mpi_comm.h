/* Inside of the MPI implementation: groups, their requests under way, and the messages of them all.
 *
 * mpi.c opens and splits groups, mpi_blocking.c has the blocking calls, mpi_request.c starts and
 * ends requests, mpi_piece.c cuts collectives into pieces, mpi_family.c watches the messages. */
#ifndef TEMPER_COMM_IMPLS_MPI_COMM_H
#define TEMPER_COMM_IMPLS_MPI_COMM_H

#include "executor/comm/comm_ops.h"

#include <mpi.h>

enum { MPI_WINDOW_PIECES = 4 };

struct mpi_comm;
struct mpi_lane;
struct mpi_piece;
struct mpi_request;

/* What one kind of collective does with a piece. */
struct mpi_work {
    const char *call;
    bool adds; /* needs scratch */
    /* Hand it to MPI, each message through mpi_posted. */
    void (*start)(struct mpi_comm *mpi, struct mpi_piece *piece);
    /* All messages have ended: work on what they brought, and post more or none. NULL: nothing. */
    void (*advance)(struct mpi_comm *mpi, struct mpi_piece *piece);
    size_t (*pieces)(const struct mpi_comm *mpi, const struct mpi_request *request);
};

/* A collective under way in pieces of which [0, started) have been handed to MPI, or a message. */
struct mpi_request {
    struct comm_request base;
    struct mpi_comm *group;
    const struct mpi_work *work; /* NULL: a message */
    struct mpi_lane *lane;       /* likewise */
    char *data;                  /* its elements */
    char *out;         /* of a reduce-scatter: its block of piece i goes to out + first_i */
    size_t count;      /* as in comm.h */
    bool is_partition; /* its blocks are those of base/partition.h; else `count` elements apart */
    MPI_Datatype type;
    size_t element_bytes; /* of `type`; a sum's are fp32 or, of 2 bytes, bf16 */
    MPI_Op op;
    size_t pieces, started;
    size_t under_way; /* pieces or messages that MPI has and that have not ended */
    int failure;      /* the first that MPI reported about it; MPI_SUCCESS so far */
    int from, arrived_bytes, due_bytes; /* of a message that came shorter than it was due */
    struct mpi_request *next_queued;    /* in its lane */
    struct mpi_request *older, *newer;  /* of its group */
};

/* A place in a window. */
struct mpi_piece {
    struct mpi_request *request; /* NULL: free */
    size_t index;                /* of the request's pieces */
    size_t number;               /* of all pieces that its lane has started */
    size_t messages;             /* that have not ended */
    bool is_summed;              /* our block holds its sum */
    float *scratch;              /* [size - 1] blocks of other ranks; NULL until one is needed */
};

/* Collectives that start in the order of their requests, a few pieces at a time. */
struct mpi_lane {
    MPI_Comm ranks;
    struct mpi_piece window[MPI_WINDOW_PIECES];
    struct mpi_request *oldest, *newest; /* with pieces that MPI has not got */
    size_t started;                      /* pieces so far: the same count at every rank */
    float *scratch;                      /* of the window */
};

/* Whose message MPI has. */
struct mpi_message {
    struct mpi_request *request;
    struct mpi_piece *piece; /* NULL: the request is a message */
    int due_bytes;           /* what has to arrive; -1: nothing, or MPI knows */
};

/* All groups split from one, and all messages of theirs that MPI has: one look serves them all. */
struct mpi_family {
    MPI_Request *handles;       /* [capacity], of which `count` are in use; none is null */
    struct mpi_message *owners; /* likewise */
    int *ended;                 /* [capacity] */
    MPI_Status *states;         /* [capacity] */
    size_t count, capacity;
    size_t window_messages; /* the most that the windows of all groups can need */
    struct mpi_comm *groups;
    int failure;   /* of MPI itself: nothing more will end; MPI_SUCCESS so far */
    bool owns_mpi; /* started MPI, so ends it */
};

struct mpi_comm {
    struct comm base;
    struct mpi_family *family;
    struct mpi_comm *next_group; /* of the family */
    struct mpi_lane direct;      /* blocking calls, which pass what is queued */
    struct mpi_lane queue;       /* requests */
    MPI_Comm messages;           /* sends and receives under way: their tags are the caller's */
    struct mpi_request *oldest, *newest;
};

/* STATUS_OK for MPI_SUCCESS, else STATUS_FAILED with MPI's own text after `what`. */
enum status mpi_check(int code, const char *what, struct error *err);

/* ---- mpi_family.c ---- */

/* Room for `extra` messages beside what all windows need and the messages there are. */
enum status mpi_family_reserve(struct mpi_family *family, size_t extra, struct error *err);
void mpi_family_free(struct mpi_family *family);
/* A message that MPI was given with this result; there is room. */
void mpi_posted(struct mpi_comm *mpi, const struct mpi_message *message, int code,
                MPI_Request handle);
/* Advance the pieces whose messages have ended, and hand queued ones to MPI in their places. */
void mpi_lane_fill(struct mpi_comm *mpi, struct mpi_lane *lane);
/* Take note of what has ended and refill all windows; `wait`: until something has. */
void mpi_family_push(struct mpi_family *family, bool wait);
/* Wait for one call of MPI, pushing the family meanwhile. */
int mpi_await(struct mpi_comm *mpi, int code, MPI_Request *handle, MPI_Status *state);

/* ---- mpi_piece.c ---- */

extern const struct mpi_work mpi_work_all_reduce; /* of any type, by MPI's own */
extern const struct mpi_work mpi_work_sum;        /* all-reduce of fp32 or bf16 */
extern const struct mpi_work mpi_work_reduce_scatter;
extern const struct mpi_work mpi_work_all_gather;

/* ---- mpi_request.c ---- */

/* Queue a collective as `request` describes it: work, data, out, count, is_partition, type,
 * element_bytes, op. */
enum status mpi_collective_start(struct mpi_comm *mpi, struct mpi_lane *lane,
                                 const struct mpi_request *request, struct comm_request **out,
                                 struct error *err);
enum status mpi_all_reduce_start(struct comm *comm, float *data, size_t count,
                                 struct comm_request **out, struct error *err);
enum status mpi_reduce_scatter_start(struct comm *comm, float *data, size_t count,
                                     struct comm_request **out, struct error *err);
enum status mpi_all_reduce_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                      struct comm_request **out, struct error *err);
enum status mpi_reduce_scatter_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                          struct comm_request **out, struct error *err);
enum status mpi_all_gather_start(struct comm *comm, void *data, size_t count, size_t element_bytes,
                                 struct comm_request **out, struct error *err);
enum status mpi_send_start(struct comm *comm, const void *data, const struct comm_message *message,
                           struct comm_request **out, struct error *err);
enum status mpi_receive_start(struct comm *comm, void *data, const struct comm_message *message,
                              struct comm_request **out, struct error *err);
void mpi_poll(struct comm *comm);
bool mpi_test(struct comm *comm, struct comm_request *request);
enum status mpi_wait(struct comm *comm, struct comm_request *request, struct error *err);
/* Let all that is under way end, and free it. */
void mpi_requests_end(struct mpi_comm *mpi);

/* ---- mpi_blocking.c ---- */

enum status mpi_barrier(struct comm *comm, struct error *err);
enum status mpi_broadcast(struct comm *comm, void *data, size_t bytes, int root, struct error *err);
enum status mpi_all_reduce(struct comm *comm, void *data, size_t count, enum comm_element element,
                           struct error *err);
enum status mpi_all_gather(struct comm *comm, const void *in, void *out, size_t bytes,
                           struct error *err);
enum status mpi_reduce_scatter(struct comm *comm, const float *in, float *out, size_t count,
                               struct error *err);
enum status mpi_gather_bytes(struct comm *comm, const void *data, size_t bytes, void **out,
                             size_t *bytes_by_rank, struct error *err);
enum status mpi_send(struct comm *comm, const void *data, size_t bytes, int to, struct error *err);
enum status mpi_receive(struct comm *comm, void *data, size_t bytes, int from, struct error *err);

#endif
