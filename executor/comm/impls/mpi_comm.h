/* Inside of the MPI implementation: the group and its requests under way. */
#ifndef TEMPER_COMM_IMPLS_MPI_COMM_H
#define TEMPER_COMM_IMPLS_MPI_COMM_H

#include "executor/comm/comm_ops.h"

#include <mpi.h>

/* One all-reduce under way: `count` pieces, in the group's slots from `first` on. */
struct mpi_request {
    struct comm_request base;
    size_t first, count;
    struct mpi_request *older, *newer; /* of the group's list, in the order of their starts */
};

struct mpi_comm {
    struct comm base;
    MPI_Comm group;
    bool owns_mpi; /* started MPI, so ends it */
    /* All outstanding pieces side by side, so that one call of MPI_Testsome sees them all. A slot
     * whose piece has ended is MPI_REQUEST_NULL. */
    MPI_Request *slots;
    int *finished; /* scratch of MPI_Testsome, as long as `slots` */
    MPI_Status *statuses;
    size_t slot_count, slot_capacity;
    struct mpi_request *oldest, *newest;
    int poll_error; /* what MPI_Testsome reported about a piece; MPI_SUCCESS so far */
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
