/* Starting this program again as several ranks under mpirun, and watching over them. */
#ifndef TEMPER_CLI_LAUNCH_H
#define TEMPER_CLI_LAUNCH_H

#include "base/error.h"

/* In the environment of ranks that launch_ranks started: its caller speaks for them. */
#define LAUNCHED_VARIABLE "TEMPER_LAUNCHED"

struct launch_request {
    int ranks;
    int threads;         /* compute threads of each rank, for the oversubscription warning */
    const char *command; /* "run" */
    int argc;            /* the command's own arguments */
    char **argv;
    const char *on_death; /* what the user can do when a rank died, a whole sentence; may be NULL */
};

/* Run `mpirun -np RANKS temper COMMAND ARGS` and wait. Signals to this process reach the ranks.
 * When a rank failed with a message of its own, `err` stays empty and the rank's status is
 * returned; when it died, err says of what. */
enum status launch_ranks(const struct launch_request *request, struct error *err);

#endif
