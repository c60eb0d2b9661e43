/* What `temper plan --cluster` answers: the best layout, its stages, its terms, and the proof. */
#ifndef TEMPER_CLI_CLUSTER_ANSWER_H
#define TEMPER_CLI_CLUSTER_ANSWER_H

#include "cli/plan_cluster.h"

/* The answer has a best layout. */
enum status cluster_answer_tell(const struct cluster_plan_options *options,
                                const struct cluster *cluster, const struct cluster_answer *answer,
                                struct error *err);

#endif
