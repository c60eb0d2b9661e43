/* `temper plan --cluster --explain`: why the best layout is what it is, in words and as JSON. */
#ifndef TEMPER_CLI_CLUSTER_EXPLAIN_H
#define TEMPER_CLI_CLUSTER_EXPLAIN_H

#include "base/json.h"
#include "planner/cluster_explain.h"

void cluster_explain_text(const struct cluster_explanation *explanation, struct text *out);
/* The member "explanation" of the open object. */
void cluster_explain_json(const struct cluster_explanation *explanation, struct jout *out);

#endif
