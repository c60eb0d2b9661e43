/* Not a cmocka program: rank 1 calls comm_abort(7), the others wait in a barrier that never ends.
 */
#include "executor/comm/comm.h"

#include <stdio.h>

int main(void)
{
    struct error err;
    struct comm *comm;
    if (comm_open(&comm, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (comm_rank(comm) == 1)
        comm_abort(comm, 7);
    (void)comm_barrier(comm, &err);
    comm_close(comm);
    return 0;
}
