/* The front of a described cluster as an SVG file. */
#ifndef TEMPER_CLI_CLUSTER_FRONT_DRAW_H
#define TEMPER_CLI_CLUSTER_FRONT_DRAW_H

#include "cli/plan_cluster.h"
#include "planner/cluster_front.h"

/* Over all uniform layouts that fit, to options->svg. At least one row. */
enum status cluster_front_draw(const struct cluster_plan_options *options,
                               const struct cluster *cluster, const struct cluster_front *front,
                               struct error *err);

#endif
