/* Starting this program again as several ranks under mpirun, and watching over them. */
#ifndef TEMPER_CLI_LAUNCH_H
#define TEMPER_CLI_LAUNCH_H

#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

/* In the environment of ranks that launch_ranks started: its caller speaks for them. */
#define LAUNCHED_VARIABLE "TEMPER_LAUNCHED"
/* Likewise: the number of this restart, from 1, and whether it continues from a checkpoint. */
#define RESTART_VARIABLE "TEMPER_RESTART"
#define RESUME_VARIABLE  "TEMPER_RESUME"

enum { LAUNCH_TEXT_BYTES = 640 };

struct launch_request {
    int ranks;           /* of one: this program itself is started, without mpirun */
    int threads;         /* compute threads of each rank, for the oversubscription warning */
    const char *command; /* "run" */
    int argc;            /* the command's own arguments */
    char **argv;
    const char *on_death; /* what the user can do when a rank died, a whole sentence; may be NULL */
    int64_t timeout_s;    /* ranks that give signs of life hang after this; 0: they may */
    int64_t restart;      /* how often the ranks were started before */
    bool resumes;         /* from a checkpoint of theirs */
};

/* How ranks ended that did not end by themselves. */
struct launch_end {
    bool is_death;                /* a rank died or hung: another start may go better */
    char what[LAUNCH_TEXT_BYTES]; /* the rank and what became of it */
    int64_t run_started_unix_ms;  /* of the run that they noted in the store; 0: none */
};

/* Run `mpirun -np RANKS temper COMMAND ARGS` and wait. Signals to this process reach the ranks.
 * When a rank failed with a message of its own, `err` stays empty and the rank's status is
 * returned; when one died or hung, all others are ended and err names it. Nothing of them is left
 * on this host. `end` (NULL allowed) is set in every case. */
enum status launch_ranks(const struct launch_request *request, struct launch_end *end,
                         struct error *err);
/* Has this process been asked to end the ranks? Then nothing is to be started again. */
bool launch_interrupted(void);

#endif
