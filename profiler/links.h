/* Time of the collectives and messages between this placement's ranks, by size. */
#ifndef TEMPER_PROFILER_LINKS_H
#define TEMPER_PROFILER_LINKS_H

#include "profiler/session.h"

/* Rows of METRIC_LINK_S for "all-reduce", "all-gather", "reduce-scatter" and "point-to-point", from
 * 4 KiB in factors of 4 to 64 MiB or the model's largest gradient; all-reduce also at the gradient
 * size of each layer kind. A sample is the time of the slowest rank, all behind one barrier; in
 * point-to-point neighbouring ranks (0-1, 2-3, ...) send there and back at once, and a sample is
 * half of that. Nothing for a single rank. `seconds` is the time allowed. Collective. */
enum status links_measure(struct session *session, double seconds, struct error *err);
size_t links_pieces(const struct session *session); /* calls of session_progress to come */

#endif
