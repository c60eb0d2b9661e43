#include "executor/agree.h"

enum status agree(struct comm *comm, enum status mine, struct error *err)
{
    if (comm_size(comm) == 1) {
        err->is_agreed = mine != STATUS_OK;
        return mine;
    }
    /* The maximum of size - rank over the failing ranks is the lowest of them. */
    int64_t failing = mine == STATUS_OK ? 0 : comm_size(comm) - comm_rank(comm);
    TRY(comm_all_reduce_max_i64(comm, &failing, 1, err));
    if (failing == 0)
        return STATUS_OK;
    int root = comm_size(comm) - (int)failing;
    struct error told = {0};
    if (comm_rank(comm) == root)
        told = *err;
    TRY(comm_broadcast(comm, &told, sizeof told, root, err));
    told.is_agreed = true;
    *err = told;
    return told.status;
}
