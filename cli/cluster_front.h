/* `temper plan --cluster --pareto`: the front of all layouts as a table, CSV, SVG or JSON. */
#ifndef TEMPER_CLI_CLUSTER_FRONT_H
#define TEMPER_CLI_CLUSTER_FRONT_H

#include "cli/plan_cluster.h"
#include "planner/cluster_front.h"

/* Before anything is priced: axes that the cluster gives no figures for are refused by name.
 * STATUS_USAGE. */
enum status cluster_front_check(const struct cluster_plan_options *options,
                                const struct cluster *cluster, unsigned *axes, struct error *err);

/* At least one row. */
enum status cluster_front_tell(const struct cluster_plan_options *options,
                               const struct cluster *cluster, const struct cluster_front *front,
                               struct error *err);

#endif
