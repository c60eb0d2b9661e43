/* Signals that ask for an end in order. */
#ifndef TEMPER_CLI_INTERRUPT_H
#define TEMPER_CLI_INTERRUPT_H

#include "base/error.h"
#include <stdatomic.h>

extern atomic_int interrupt_requested;

/* From now on the first SIGINT, SIGTERM or SIGUSR1 makes interrupt_requested non-zero; a second of
 * the same kind kills. Call it before any other thread is started: threads inherit that these
 * signals are none of theirs. Fails when no thread can be had, and then leaves all as it was. */
enum status interrupt_catch(struct error *err);

#endif
