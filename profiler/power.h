/* Joules of what was timed: counted, else modelled, else absent. */
#ifndef TEMPER_PROFILER_POWER_H
#define TEMPER_PROFILER_POWER_H

#include "profiler/session.h"

/* What the counter gained while one phase ran, over many passes; rank 0 keeps it. */
struct energy_tally {
    double joules, seconds;
};

/* A reading to take differences from; zero where there is no counter. */
struct energy_reading {
    double joules, at_s;
};
enum status power_read(const struct session *session, struct energy_reading *out,
                       struct error *err);
/* Add what was used since `from`, and move `from` to now. */
enum status power_add(const struct session *session, struct energy_reading *from,
                      struct energy_tally *tally, struct error *err);

/* Rank 0: the row of the joules of one rank during `seconds`. With a counter: the host's watts
 * during `tally` times the seconds, divided by the ranks on the host (of several hosts rank 0's
 * stands for all). Else with the request's power: idle + (active - idle) * min(1, busy threads /
 * cores) watts, divided alike. Else an absent row: n = 0, mean 0. Emitted through session_emit. */
enum status power_emit(struct session *session, struct measurement row,
                       const struct summary *seconds, const struct energy_tally *tally,
                       struct error *err);

/* METRIC_IDLE_W and METRIC_ACTIVE_W of the host: counted while all ranks sleep and multiply
 * matrices, else as the request gives them, else absent. Collective. */
enum status power_measure_host(struct session *session, double seconds, struct error *err);

#endif
