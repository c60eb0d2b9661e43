/* `temper plan --cluster` without an answer: what is short, by how much, and the cheapest change
 * that helps. */
#ifndef TEMPER_CLI_CLUSTER_REFUSAL_H
#define TEMPER_CLI_CLUSTER_REFUSAL_H

#include "planner/cluster_search.h"

/* Nothing of `answer` fits. STATUS_INFEASIBLE; STATUS_FAILED: the search was stopped before. */
enum status cluster_refuse(const struct cluster *cluster, const struct layouts_request *request,
                           const struct cluster_answer *answer, struct error *err);

#endif
