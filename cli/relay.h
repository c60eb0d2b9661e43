/* Passing on what a child process writes, so that a reader of ours that has gone away (`| head`)
 * ends neither the child nor us. */
#ifndef TEMPER_CLI_RELAY_H
#define TEMPER_CLI_RELAY_H

#include "base/error.h"
#include <stdbool.h>
#include <sys/types.h>

/* The child's standard output and standard error, in this order. */
struct relay {
    int read_end[2];
    int write_end[2];
    bool output_lost; /* our standard output did not take everything */
    bool has_spoken;  /* something came on standard error */
};

enum status relay_open(struct relay *relay, struct error *err);
/* In the child: standard output and standard error become the relay's. */
void relay_enter(const struct relay *relay);
/* In the parent: pass everything on until the child has ended. `wait_status` as from waitpid. */
enum status relay_until_exit(struct relay *relay, pid_t child, int *wait_status, struct error *err);
void relay_close(struct relay *relay);

#endif
