#include "cli/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STREAMS = 2, CHUNK_BYTES = 4096, LOOK_INTERVAL_MS = 50 };

static void close_end(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

enum status relay_open(struct relay *relay, struct error *err)
{
    *relay = (struct relay){.read_end = {-1, -1}, .write_end = {-1, -1}};
    for (int i = 0; i < STREAMS; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) {
            int code = errno;
            relay_close(relay);
            return error_set(err, STATUS_IO, "starting mpirun: pipe: %s", strerror(code));
        }
        relay->read_end[i] = ends[0];
        relay->write_end[i] = ends[1];
    }
    return STATUS_OK;
}

void relay_close(struct relay *relay)
{
    for (int i = 0; i < STREAMS; i++) {
        close_end(&relay->read_end[i]);
        close_end(&relay->write_end[i]);
    }
}

void relay_enter(const struct relay *relay)
{
    dup2(relay->write_end[0], STDOUT_FILENO);
    dup2(relay->write_end[1], STDERR_FILENO);
}

static bool write_all(int to, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t written = write(to, data, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        data += written;
        bytes -= (size_t)written;
    }
    return true;
}

/* One piece of stream i; false at its end. */
static bool pass_on(struct relay *relay, int i)
{
    char chunk[CHUNK_BYTES];
    ssize_t bytes = read(relay->read_end[i], chunk, sizeof chunk);
    if (bytes < 0)
        return errno == EINTR;
    if (bytes == 0)
        return false;
    if (i == 1)
        relay->has_spoken = true;
    bool taken = write_all(i == 0 ? STDOUT_FILENO : STDERR_FILENO, chunk, (size_t)bytes);
    if (!taken && i == 0)
        relay->output_lost = true;
    return true;
}

/* Whether anything arrived within the time. */
static bool look(struct relay *relay, int timeout_ms)
{
    bool any = false;
    struct pollfd ends[STREAMS];
    for (int i = 0; i < STREAMS; i++)
        ends[i] = (struct pollfd){.fd = relay->read_end[i], .events = POLLIN};
    if (poll(ends, STREAMS, timeout_ms) <= 0)
        return false;
    for (int i = 0; i < STREAMS; i++) {
        if (ends[i].revents == 0)
            continue;
        if (pass_on(relay, i))
            any = true;
        else
            close_end(&relay->read_end[i]);
    }
    return any;
}

enum status relay_until_exit(struct relay *relay, pid_t child, int *wait_status, struct error *err)
{
    for (int i = 0; i < STREAMS; i++)
        close_end(&relay->write_end[i]);
    /* Not until the streams end: a process that outlives the child may hold them. */
    for (;;) {
        look(relay, LOOK_INTERVAL_MS);
        pid_t ended = waitpid(child, wait_status, WNOHANG);
        if (ended < 0 && errno != EINTR)
            return error_set(err, STATUS_IO, "waiting for mpirun: %s", strerror(errno));
        if (ended == child)
            break;
    }
    while (look(relay, 0))
        continue;
    return STATUS_OK;
}
