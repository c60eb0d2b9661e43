/* What `temper plan --cluster` answers: the best layout, its stages, its terms, and the proof. */
#ifndef TEMPER_CLI_CLUSTER_ANSWER_H
#define TEMPER_CLI_CLUSTER_ANSWER_H

#include "cli/plan_cluster.h"
#include "planner/cluster_explain.h"

/* The answer has a best layout. `explanation` NULL: none was asked for. */
enum status cluster_answer_tell(const struct cluster_plan_options *options,
                                const struct cluster *cluster, const struct cluster_answer *answer,
                                const struct cluster_explanation *explanation, struct error *err);

#endif
