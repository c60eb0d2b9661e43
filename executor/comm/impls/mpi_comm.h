/* Inside of the MPI implementation: the group and its requests under way. */
#ifndef TEMPER_COMM_IMPLS_MPI_COMM_H
#define TEMPER_COMM_IMPLS_MPI_COMM_H

#include "executor/comm/comm_ops.h"

#include <mpi.h>

enum { MPI_WINDOW_PIECES = 4 };

/* One all-reduce under way, in pieces: [0, started) of `data` has been given to MPI, of which
 * `under_way` pieces have not ended. */
struct mpi_request {
    struct comm_request base;
    float *data;
    size_t count, started;             /* elements */
    size_t under_way;                  /* pieces */
    struct mpi_request *older, *newer; /* of the group's list, in the order of their starts */
};

struct mpi_comm {
    struct comm base;
    MPI_Comm group;
    MPI_Comm queue; /* the same ranks, for all-reduces under way */
    bool owns_mpi;  /* started MPI, so ends it */
    /* The window: what MPI works on, and whose it is. MPI_REQUEST_NULL where there is room. */
    MPI_Request pieces[MPI_WINDOW_PIECES];
    struct mpi_request *owners[MPI_WINDOW_PIECES];
    struct mpi_request *oldest, *newest;
    struct mpi_request *next_started; /* first with pieces that MPI has not got; NULL: none */
    int failure; /* the first that MPI reported about a piece; MPI_SUCCESS so far */
};

/* STATUS_OK for MPI_SUCCESS, else STATUS_FAILED with MPI's own text after `what`. */
enum status mpi_check(int code, const char *what, struct error *err);

enum status mpi_start(struct comm *comm, float *data, size_t count, struct comm_request **out,
                      struct error *err);
void mpi_poll(struct comm *comm);
enum status mpi_wait(struct comm *comm, struct comm_request *request, struct error *err);
/* Let all that is under way end, and free it. */
void mpi_requests_end(struct mpi_comm *mpi);

#endif
