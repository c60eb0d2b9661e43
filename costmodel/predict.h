/* The predicted time, memory and energy of a whole plan, by term and by layer. */
#ifndef TEMPER_COSTMODEL_PREDICT_H
#define TEMPER_COSTMODEL_PREDICT_H

#include "costmodel/profile.h"
#include "ir/plan.h"

/* Fill `out` (cleared first; release with prediction_clear) for the valid `plan`, whose own
 * prediction is not read and may be `out`. The sums hold exactly: phases sum to the step time,
 * terms to the memory, layers to the phases but for PHASE_OTHER.
 *
 *     time = micro_batches * sum (forward + backward) + sum exposed gradient reduction
 *            + sum optimizer + other
 *     memory = plan_footprint + process memory
 *     energy = ranks * (the same sum of one rank's joules) + other
 *
 * A missing time or memory is STATUS_INVALID; a missing energy makes that energy and what it is
 * part of absent. */
enum status predict_plan(const struct profile *profile, const struct plan *plan,
                         struct prediction *out, struct error *err);

/* Peak memory that 95 of 100 runs stay below: what the cap is held against. Only the process's own
 * memory deviates; it is taken as normal. */
#define MEMORY_QUANTILE_DEVIATIONS 1.645
double memory_quantile_bytes(struct quantity memory_bytes);

#endif
