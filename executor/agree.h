/* All ranks learn of the failure of one. */
#ifndef TEMPER_EXECUTOR_AGREE_H
#define TEMPER_EXECUTOR_AGREE_H

#include "base/error.h"
#include "executor/comm/comm.h"

/* Collective: STATUS_OK when every rank's `mine` is; otherwise every rank gets the status and
 * message of the lowest failing rank, with err->is_agreed set. */
enum status agree(struct comm *comm, enum status mine, struct error *err);

#endif
