/* `temper plan --cluster`: the best layout on a cluster that is described, not at hand. */
#ifndef TEMPER_CLI_PLAN_CLUSTER_H
#define TEMPER_CLI_PLAN_CLUSTER_H

#include "cli/plan_export.h"
#include "planner/cluster_search.h"
#include "planner/planner.h"

struct cluster_plan_options {
    const struct model *model;
    const char *model_source; /* as the user named it */
    const char *cluster;      /* "h100x1024", or a cluster file */
    const char *framework;    /* whose behaviour is predicted */
    const char *arithmetic;   /* of matrix products; "bf16,fp8": chosen block by block */
    int64_t global_batch;
    uint64_t memory_cap_bytes; /* 0: what the device has */
    double risk;               /* that memory exceeds it */
    bool executable;           /* leave out what `temper run` cannot execute */
    struct layout_weights weights;
    const struct pins *pins; /* of all layers alike; those of single kinds are refused */
    const char *pins_text;   /* as the user gave them */
    double gap_target, time_limit_s;
    int64_t top;           /* layouts to print */
    bool explain;          /* why the best one is what it is */
    const char *pareto;    /* axes of the front to print instead; NULL: none */
    unsigned axes;         /* the same as bits of enum front_axis, once they are parsed */
    const char *csv, *svg; /* files for the front; NULL: none */
    int64_t points;        /* see struct cluster_front_request; < 0: the usual */
    const struct export_request *handover; /* of the best one */
    bool json;
};

/* Prints the answer. STATUS_INFEASIBLE: no layout fits; the message says how far the leanest is
 * from it. */
enum status plan_for_cluster(const struct cluster_plan_options *options, struct error *err);

/* What was asked: model, cluster, framework. */
void cluster_plan_head(const struct cluster_plan_options *options, const struct cluster *cluster,
                       struct text *out);

#endif
