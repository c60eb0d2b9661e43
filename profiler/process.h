/* The memory of a rank that no plan lays out. */
#ifndef TEMPER_PROFILER_PROCESS_H
#define TEMPER_PROFILER_PROCESS_H

#include "profiler/chain.h"

/* METRIC_PROCESS_BYTES under `precision`: resident memory of the fullest rank less what was
 * allocated on the device, after a whole step in that precision: layers, all-reduces, optimizer.
 * Libraries keep the code that they once generated. That of fp32 is the most (3 MiB in oneDNN, of
 * 16 bit 0.4), so measure fp32 last: then no row is much more than a run has. Collective. */
enum status process_measure(struct chain *chain, enum precision precision, struct error *err);

#endif
