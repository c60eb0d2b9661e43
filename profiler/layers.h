/* Times, energy and bytes of every layer kind, by running whole micro-batches through a chain. */
#ifndef TEMPER_PROFILER_LAYERS_H
#define TEMPER_PROFILER_LAYERS_H

#include "profiler/power.h"
#include "profiler/sweep.h"

struct layers;

/* A machine has good and bad moments, of seconds on a shared one: every setting is visited in each
 * of so many rounds, so that all meet the same. The first goes with layers_measure_size, the others
 * with layers_revisit. */
enum { LAYERS_ROUNDS = 4 };

/* `until_s`: session_elapsed_s when the layers are to be done. Keeps `chain` and `sweep`. */
enum status layers_open(struct layers **out, struct chain *chain, struct sweep *sweep,
                        double until_s, struct error *err);
void layers_close(struct layers *layers); /* NULL allowed */

/* Measure one size of the sweep. Every block of the chain in every pass is a sample; three passes
 * of four accumulate gradients, as most micro-batches of a step do. Passes repeat until the mean of
 * every kind is known well enough or the setting's share of a round's time is used up. *measured is
 * false, and nothing was done, when the time left does not do for the fewest passes; the first size
 * is always measured. Collective. */
enum status layers_measure_size(struct layers *layers, size_t size_index, bool *measured,
                                struct error *err);
/* The other rounds, of settings whose share of the time does for the fewest passes. Collective. */
enum status layers_revisit(struct layers *layers, struct error *err);
/* Emit METRIC_FORWARD_S, BACKWARD_S, FORWARD_J, BACKWARD_J, SAVED_BYTES and SCRATCH_BYTES
 * (modelled: from the table that lays them out) of all that was measured. A tied head that owns a
 * table has the rows of the head that does not: it does the same work in another table. Collective.
 */
enum status layers_emit(struct layers *layers, struct error *err);
/* METRIC_OPTIMIZER_S and OPTIMIZER_J of every kind and number of ways, in fp32 and with a copy in
 * each precision of 16 bit that is measured. Gradients must have been computed. Collective. */
enum status layers_measure_optimizer(struct layers *layers, double seconds, struct error *err);
size_t layers_optimizer_pieces(const struct layers *layers); /* calls of session_progress */

#endif
