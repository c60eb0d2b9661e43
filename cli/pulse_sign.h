/* One sign of life of a rank, as a line of text. */
#ifndef TEMPER_CLI_PULSE_SIGN_H
#define TEMPER_CLI_PULSE_SIGN_H

#include <stdbool.h>
#include <stdint.h>

enum { PULSE_MARK = 0x1e, PULSE_LINE_BYTES = 160, PULSE_CALL_BYTES = 32 };

struct pulse_sign {
    int rank;
    int64_t step;                /* the one worked on, from 1; 0: starting */
    uint64_t count;              /* grows when the rank gets on */
    int64_t waiting_ms;          /* for other ranks, in one call */
    char call[PULSE_CALL_BYTES]; /* what it waits in; empty: it does not wait */
    bool has_ended;              /* the last sign of a rank whose work is over */
};

/* Without the mark and the end of the line. */
void pulse_format(const struct pulse_sign *sign, char line[PULSE_LINE_BYTES]);
/* False: no sign of life. */
bool pulse_parse(const char *line, struct pulse_sign *out);

/* The other line: rank 0 is about to note a run in the store that begins at this time. */
void pulse_format_run(int64_t started_unix_ms, char line[PULSE_LINE_BYTES]);
bool pulse_parse_run(const char *line, int64_t *started_unix_ms);

#endif
