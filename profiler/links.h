/* Time of the collectives and messages between this placement's ranks, by group and size. */
#ifndef TEMPER_PROFILER_LINKS_H
#define TEMPER_PROFILER_LINKS_H

#include "profiler/session.h"

/* Rows of METRIC_LINK_S by bytes of the whole array; nothing for a single rank. R ranks:
 *
 *   "all-reduce/nN/xX", "all-gather/nN/xX", "reduce-scatter/nN/xX"   groups of N ranks that are X
 *       apart, all groups of that kind at once, for all N >= 2 and X where N * X divides R, through
 *       the calls that may be under way while compute goes on (gradients, parameters)
 *   "tensor-all-gather/nN/x1", "tensor-reduce-scatter/nN/x1"   neighbours, through the blocking
 *       calls of tensor parallelism, which have a buffer to read and another to write
 *   "all-reduce/n2/xX" with X = R - R / p for the p >= 3 that divide R: the first and the last of p
 *       pipeline stages, which share a tied token table
 *   "point-to-point/xX"   ranks r and r + X where r / X is even, all pairs at once, each there and
 *       back, for the X < R that divide R or are R - R / p as above (the last stage hands over to
 *       the first when stages are interleaved)
 *
 * Sizes go from 4 KiB in factors of 4 (groups of two) or 16 to 64 MiB or the model's largest
 * gradient; all-reduce also at the gradients of each layer kind as X ways hold it. Sizes above
 * 1 MiB that the time does not allow are left out. A sample is the time of the slowest rank, all
 * behind one barrier. `seconds` is the time allowed. Collective. */
enum status links_measure(struct session *session, double seconds, struct error *err);
size_t links_pieces(const struct session *session); /* calls of session_progress to come */

#endif
