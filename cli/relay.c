#include "cli/relay.h"

#include "cli/pulse_sign.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STREAMS = 2, CHUNK_BYTES = 4096, LOOK_INTERVAL_MS = 50, BANNER_DASHES = 70 };

static const char forwarding[] = "mpirun: Forwarding signal ";

static void close_end(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

enum status relay_open(struct relay *relay, const struct relay_listener *listener,
                       struct error *err)
{
    *relay = (struct relay){.read_end = {-1, -1}, .write_end = {-1, -1}, .listener = *listener};
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

/* ---- standard error ---- */

static void pass_on_error(struct relay *relay, const char *data, size_t bytes)
{
    if (bytes == 0)
        return;
    relay->has_spoken = true;
    (void)write_all(STDERR_FILENO, data, bytes); /* where nobody reads errors, none can be told */
}

static void release_held(struct relay *relay)
{
    pass_on_error(relay, relay->held, relay->held_bytes);
    relay->held_bytes = 0;
    relay->held[0] = '\0';
}

static bool is_dashes(const char *line, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (line[i] != '-')
            return false;
    return bytes >= BANNER_DASHES;
}

static void end_sign(struct relay *relay)
{
    relay->sign[relay->sign_bytes] = '\0';
    if (relay->listener.sign != NULL)
        relay->listener.sign(relay->listener.user, relay->sign);
    relay->in_sign = false;
    relay->sign_bytes = 0;
}

static void hold(struct relay *relay, char byte)
{
    relay->held[relay->held_bytes++] = byte;
    relay->held[relay->held_bytes] = '\0';
    if (relay->held_bytes + 1 < sizeof relay->held)
        return;
    release_held(relay);
    relay->state = byte == '\n' ? RELAY_LINE_START : RELAY_IN_LINE;
}

static void end_banner_line(struct relay *relay)
{
    size_t first = relay->line_first, bytes = relay->held_bytes - 1 - first;
    relay->line_first = relay->held_bytes;
    if (relay->state != RELAY_BANNER || !is_dashes(relay->held + first, bytes))
        return;
    bool is_known =
        relay->listener.banner != NULL && relay->listener.banner(relay->listener.user, relay->held);
    if (is_known)
        relay->held_bytes = 0;
    release_held(relay);
    relay->state = RELAY_LINE_START;
}

/* "mpirun: Forwarding signal 10 to job": it was asked to, by us. */
static bool tells_of_forwarding(const struct relay *relay)
{
    size_t bytes =
        relay->held_bytes < sizeof(forwarding) - 1 ? relay->held_bytes : sizeof(forwarding) - 1;
    return memcmp(relay->held, forwarding, bytes) == 0;
}

static bool holds_dashes(const struct relay *relay)
{
    return strspn(relay->held, "-") >= relay->held_bytes;
}

static void take_held_byte(struct relay *relay, char byte)
{
    bool was_dashes = holds_dashes(relay);
    hold(relay, byte);
    if (relay->state != RELAY_HELD_LINE)
        return; /* longer than can be held */
    if (byte == '\n' && was_dashes && relay->held_bytes > BANNER_DASHES) {
        relay->line_first = relay->held_bytes;
        relay->state = RELAY_BANNER;
        return;
    }
    if (byte != '\n' && (holds_dashes(relay) || tells_of_forwarding(relay)))
        return;
    if (tells_of_forwarding(relay))
        relay->held_bytes = 0;
    release_held(relay);
    relay->state = byte == '\n' ? RELAY_LINE_START : RELAY_IN_LINE;
}

/* One byte that is held back or of which something held depends. */
static void take_byte(struct relay *relay, char byte)
{
    if (relay->in_sign) {
        if (byte == '\n' || relay->sign_bytes + 1 == sizeof relay->sign)
            end_sign(relay);
        else
            relay->sign[relay->sign_bytes++] = byte;
    } else if (byte == PULSE_MARK) {
        relay->in_sign = true;
    } else if (relay->state == RELAY_BANNER) {
        hold(relay, byte);
        if (byte == '\n')
            end_banner_line(relay);
    } else {
        relay->state = RELAY_HELD_LINE;
        take_held_byte(relay, byte);
    }
}

static bool is_plain(const struct relay *relay, char byte)
{
    bool holds = relay->in_sign || relay->state == RELAY_BANNER || relay->state == RELAY_HELD_LINE;
    bool begins = relay->state == RELAY_LINE_START && (byte == '-' || byte == forwarding[0]);
    return !holds && !begins && byte != PULSE_MARK;
}

static void take_error_output(struct relay *relay, const char *data, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        size_t first = at;
        for (; at < bytes && is_plain(relay, data[at]); at++)
            relay->state = data[at] == '\n' ? RELAY_LINE_START : RELAY_IN_LINE;
        pass_on_error(relay, data + first, at - first);
        if (at < bytes)
            take_byte(relay, data[at++]);
    }
}

/* ---- both streams ---- */

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
        take_error_output(relay, chunk, (size_t)bytes);
    else if (!write_all(STDOUT_FILENO, chunk, (size_t)bytes))
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
        bool any = look(relay, LOOK_INTERVAL_MS);
        /* Not only when nothing came: of many ranks, one always says something. */
        if ((!any || !look(relay, 0)) && relay->listener.tick != NULL)
            relay->listener.tick(relay->listener.user);
        pid_t ended = waitpid(child, wait_status, WNOHANG);
        if (ended < 0 && errno != EINTR)
            return error_set(err, STATUS_IO, "waiting for mpirun: %s", strerror(errno));
        if (ended == child)
            break;
    }
    while (look(relay, 0))
        continue;
    release_held(relay);
    return STATUS_OK;
}
