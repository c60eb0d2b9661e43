/* `temper plan --cluster`: the best layout on a cluster that is described, not at hand. */
#ifndef TEMPER_CLI_PLAN_CLUSTER_H
#define TEMPER_CLI_PLAN_CLUSTER_H

#include "cli/plan_export.h"
#include "planner/layouts.h"
#include "planner/planner.h"

struct cluster_plan_options {
    const struct model *model;
    const char *cluster;    /* "h100x1024", or a cluster file */
    const char *framework;  /* whose behaviour is predicted */
    const char *arithmetic; /* of matrix products */
    int64_t global_batch;
    uint64_t memory_cap_bytes; /* 0: what the device has */
    struct layout_weights weights;
    const struct pins *pins; /* of all layers alike; those of single kinds are refused */
    double time_limit_s;
    int64_t top;                           /* layouts to print */
    const char *pareto;                    /* axes of the front to print instead; NULL: none */
    const char *csv;                       /* file for the front; NULL: none */
    const struct export_request *handover; /* of the best one */
    bool json;
};

/* Prints the answer. STATUS_INFEASIBLE: no layout fits; the message says how far the leanest is
 * from it. */
enum status plan_for_cluster(const struct cluster_plan_options *options, struct error *err);

#endif
