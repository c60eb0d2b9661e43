/* The memory of a rank that no plan lays out. */
#ifndef TEMPER_PROFILER_PROCESS_H
#define TEMPER_PROFILER_PROCESS_H

#include "profiler/chain.h"

/* METRIC_PROCESS_BYTES under `precision`: resident memory of the fullest rank less what was
 * allocated on the device, after a whole step in that precision: layers, all-reduces, optimizer.
 * Libraries keep what they once took, so measure fp32 before anything runs in bf16: the row of bf16
 * then has the kernels and buffers of both, as a bf16 plan does. Collective. */
enum status process_measure(struct chain *chain, enum precision precision, struct error *err);

#endif
