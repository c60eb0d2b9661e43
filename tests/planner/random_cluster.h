/* Described clusters, models and layouts that nobody has built: small, of every family, and with
 * all that time, memory and energy of a layout depend on. */
#ifndef TEMPER_TESTS_PLANNER_RANDOM_CLUSTER_H
#define TEMPER_TESTS_PLANNER_RANDOM_CLUSTER_H

#include "fixture.h"
#include "ir/cluster.h"
#include "ir/layout.h"

/* `groups` unlike node groups that have `devices` in all; of memory there is enough for anything.
 */
void random_cluster(struct dice *dice, int64_t devices, size_t groups, struct cluster *out);
/* Fails the test unless it is a valid one. */
struct model random_model(struct dice *dice, int64_t blocks);

#endif
