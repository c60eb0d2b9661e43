/* Passing on what a child process writes, so that a reader of ours that has gone away (`| head`)
 * ends neither the child nor us; and taking out of it what is meant for us alone. */
#ifndef TEMPER_CLI_RELAY_H
#define TEMPER_CLI_RELAY_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { RELAY_HELD_BYTES = 4096 };

/* Who hears what is taken out of standard error. */
struct relay_listener {
    void *user;
    /* A line that began with PULSE_MARK (cli/pulse_sign.h), without it. */
    void (*sign)(void *user, const char *line);
    /* What mpirun says between two lines of dashes. True: it is told otherwise; false: pass it on.
     */
    bool (*banner)(void *user, const char *text);
    /* Some twenty times a second or oftener, when all that has come is passed on. */
    void (*tick)(void *user);
};

/* Where standard error stands. A line that begins like one of mpirun's own is held until it is
 * clear whose it is. */
enum relay_state { RELAY_LINE_START, RELAY_IN_LINE, RELAY_HELD_LINE, RELAY_BANNER };

/* The child's standard output and standard error, in this order. */
struct relay {
    int read_end[2];
    int write_end[2];
    struct relay_listener listener;
    bool output_lost; /* our standard output did not take everything */
    bool has_spoken;  /* something was passed on of standard error */
    enum relay_state state;
    bool in_sign; /* within a line for the listener, which may stand anywhere */
    char sign[RELAY_HELD_BYTES];
    size_t sign_bytes;
    char held[RELAY_HELD_BYTES]; /* a line or a banner so far */
    size_t held_bytes;
    size_t line_first; /* of the banner's current line */
};

enum status relay_open(struct relay *relay, const struct relay_listener *listener,
                       struct error *err);
/* In the child: standard output and standard error become the relay's. */
void relay_enter(const struct relay *relay);
/* In the parent: pass everything on until the child has ended. `wait_status` as from waitpid. */
enum status relay_until_exit(struct relay *relay, pid_t child, int *wait_status, struct error *err);
void relay_close(struct relay *relay);

#endif
