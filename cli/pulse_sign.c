#include "cli/pulse_sign.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void pulse_format(const struct pulse_sign *sign, char line[PULSE_LINE_BYTES])
{
    snprintf(line, PULSE_LINE_BYTES, "pulse %d %" PRId64 " %" PRIu64 " %" PRId64 " %s %d",
             sign->rank, sign->step, sign->count, sign->waiting_ms,
             sign->call[0] == '\0' ? "-" : sign->call, sign->has_ended ? 1 : 0);
}

bool pulse_parse(const char *line, struct pulse_sign *out)
{
    struct pulse_sign sign = {0};
    int has_ended = 0, bytes = 0;
    _Static_assert(PULSE_CALL_BYTES == 32, "the width below");
    int found = sscanf(line, "pulse %d %" SCNd64 " %" SCNu64 " %" SCNd64 " %31s %d%n", &sign.rank,
                       &sign.step, &sign.count, &sign.waiting_ms, sign.call, &has_ended, &bytes);
    if (found != 6 || line[bytes] != '\0')
        return false;
    if (strcmp(sign.call, "-") == 0)
        sign.call[0] = '\0';
    sign.has_ended = has_ended != 0;
    *out = sign;
    return true;
}

void pulse_format_run(int64_t started_unix_ms, char line[PULSE_LINE_BYTES])
{
    snprintf(line, PULSE_LINE_BYTES, "run %" PRId64, started_unix_ms);
}

bool pulse_parse_run(const char *line, int64_t *started_unix_ms)
{
    int bytes = 0;
    int64_t found = 0;
    if (sscanf(line, "run %" SCNd64 "%n", &found, &bytes) != 1 || line[bytes] != '\0')
        return false;
    *started_unix_ms = found;
    return true;
}
