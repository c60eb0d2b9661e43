/* Energy counters of this host: Linux powercap (RAPL) where readable. */
#ifndef TEMPER_PROFILER_ENERGY_H
#define TEMPER_PROFILER_ENERGY_H

#include "base/error.h"
#include <stdbool.h>

struct energy_meter;

/* `root` is the powercap folder (NULL: the system's); tests pass a recorded one. Never fails for
 * lack of a counter: *out is then a meter that is not available. */
enum status energy_open(struct energy_meter **out, const char *root, struct error *err);
void energy_close(struct energy_meter *meter); /* NULL allowed */
bool energy_available(const struct energy_meter *meter);
/* "intel-rapl:0 package-0, intel-rapl:0:1 dram", or why there is none. */
const char *energy_source(const struct energy_meter *meter);
/* Joules of the whole host since the meter was opened: package domains and the memory beside them
 * (core, uncore and psys are part of those or cover them again). Counter wrap-around is handled
 * when read at least once a wrap (minutes). */
enum status energy_read_joules(struct energy_meter *meter, double *joules, struct error *err);

#endif
