/* What a step costs beside its layers, and what of its communication they hide. */
#ifndef TEMPER_PROFILER_STEP_H
#define TEMPER_PROFILER_STEP_H

#include "profiler/chain.h"

/* Emits, of whole passes under `setting`:
 * METRIC_STEP_OVERHEAD_S: time from a barrier to the reduction of the loss less the sum of the
 * layers' times: mostly ranks waiting for each other. METRIC_OVERLAP (several ranks only): 1 -
 * (with - without) / alone, at most 1. `with` and `without` are the times of a backward pass
 * that starts each layer's all-reduce when its gradients are final, and of one that does not;
 * `alone` is the time of blocking all-reduces of the same gradients. The embedding is left out: its
 * gradients are final last and nothing can hide them. Collective. */
enum status step_measure(struct chain *chain, struct chain_setting setting, double seconds,
                         struct error *err);
enum { STEP_PIECES = 1 };

#endif
