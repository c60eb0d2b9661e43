/* Which cores the threads of each rank run on. Knows hwloc. */
#ifndef TEMPER_COMM_BINDING_H
#define TEMPER_COMM_BINDING_H

#include "executor/comm/comm.h"

/* Give this rank `threads` processing units of its host for itself, in the order of the machine's
 * topology, so that a rank's threads are neighbours (of a core, a cache, a NUMA node) and memory
 * that they touch first is near them. Before threads are started and memory is touched.
 *
 * BIND_NEAR: only on a host of several NUMA nodes or last-level caches, where a rank's threads have
 * something to be near to; on one that has a single of each the system's own choice was as quick.
 *
 * Nothing is bound, *bound is false and the status OK, where it would not help or could hurt: a
 * single rank on the host (another job may be beside it), ranks whose threads do not fill exactly
 * the units that they may use, ranks that a launcher has bound already, a system that does not say
 * what it has. All ranks of a host have the same number of threads. Collective. */
enum comm_binding { BIND_NEAR, BIND_ALWAYS };
enum status comm_bind(struct comm *comm, int threads, enum comm_binding binding, bool *bound,
                      struct error *err);

#endif
