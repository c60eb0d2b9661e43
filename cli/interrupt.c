#include "cli/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

atomic_int interrupt_requested;

/* SIGUSR1 comes from temper's launcher, from mpirun or from SLURM. */
static void set_of_requests(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGUSR1);
}

/* Takes each signal once; after that it is let through and does what it does by default. */
static void *take_requests(void *unused)
{
    sigset_t awaited;
    int number;
    (void)unused;
    set_of_requests(&awaited);
    while (sigwait(&awaited, &number) == 0) {
        sigset_t heard;
        interrupt_requested = 1;
        sigdelset(&awaited, number);
        sigemptyset(&heard);
        sigaddset(&heard, number);
        pthread_sigmask(SIG_UNBLOCK, &heard, NULL);
    }
    return NULL;
}

/* No handler, for it would run on the stack of whichever thread the signal meets: the products in
 * fp32 that oneDNN 2.6 generates keep data farther below the stack pointer than the 128 bytes that
 * a handler spares, and a training crashed of that. */
enum status interrupt_catch(struct error *err)
{
    sigset_t requests, before;
    pthread_t listener;
    set_of_requests(&requests);
    pthread_sigmask(SIG_BLOCK, &requests, &before);
    int code = pthread_create(&listener, NULL, take_requests, NULL);
    if (code != 0) {
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return error_set(err, STATUS_FAILED, "starting the thread that waits for signals: %s",
                         strerror(code));
    }
    pthread_detach(listener);
    /* A shell starts what it puts in the background with SIGINT ignored. */
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGUSR1, SIG_DFL);
    return STATUS_OK;
}
