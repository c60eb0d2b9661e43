/* `temper plan --top N`: the best plans that differ in what the ranks do. */
#ifndef TEMPER_CLI_PLAN_TOP_H
#define TEMPER_CLI_PLAN_TOP_H

#include "planner/planner.h"

struct plan_top_options {
    int64_t most;
    const char *output; /* each plan's name is numbered; NULL: none */
    bool json;
};

enum status plan_top(const struct planner_request *request, const struct plan_top_options *options,
                     struct error *err);

#endif
