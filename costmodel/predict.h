/* The predicted time, memory and energy of a whole plan, by term and by layer. */
#ifndef TEMPER_COSTMODEL_PREDICT_H
#define TEMPER_COSTMODEL_PREDICT_H

#include "costmodel/profile.h"
#include "ir/plan.h"

/* Fill `out` (cleared first; release with prediction_clear) for the valid `plan`, whose own
 * prediction is not read and may be `out`.
 *
 * A layer's times are of one rank that has it, over a whole step. Stage i ends its last backward
 * pass at end_i (costmodel/simulate.h), with D_i the exposed synchronisation of its gradients and
 * U_i its optimizer and the gathering of what that updated; the norm of the gradient, which all
 * ranks need before they update, stands between the two:
 *
 *     time = max_i (end_i + D_i) + max_i U_i + other
 *
 * The phases are those of the critical stage, the one with most to do (of equals the first): each
 * is the sum over that stage's layers, and PHASE_PIPELINE is what is left of the time, in which the
 * stage waits for others. With one stage nothing is left, and
 *
 *     time = micro_batches * sum (forward + backward + what each waits for) + sum exposed
 *            synchronisation + sum (optimizer + gather) + other
 *
 *     memory = plan_footprint of the fullest stage + process memory
 *     energy = sum over all layers of (ranks that have it * joules of one)
 *            + idle power during what every stage waits + other
 *
 * These sums hold exactly:
 *   the phases' times sum to the time, their energies to the energy, the terms to the memory;
 *   the times of the critical stage's layers, in the order of the chain, sum to the phase's, and
 *   the energies of all layers to the phase's energy, but for PHASE_PIPELINE and PHASE_OTHER, which
 *   are no layer's.
 *
 * A missing time or memory is STATUS_INVALID; a missing energy makes that energy and what it is
 * part of absent. */
enum status predict_plan(const struct profile *profile, const struct plan *plan,
                         struct prediction *out, struct error *err);

/* The stage whose layers take longest in this prediction of the plan: whose phases it gives. */
int predict_critical_stage(const struct plan *plan, const struct prediction *prediction);

/* Peak memory that 95 of 100 runs stay below. Only the process's own memory deviates; it is taken
 * as normal. */
#define MEMORY_RISK                0.05
#define MEMORY_QUANTILE_DEVIATIONS 1.6448536269514722 /* normal_deviations(MEMORY_RISK) */
double memory_quantile_bytes(struct quantity memory_bytes);
/* The same for another share of runs that may exceed it, below 1; 0: MEMORY_RISK. What a cap is
 * held against. */
double memory_held_bytes(struct quantity memory_bytes, double risk);

#endif
