/* `temper plan --pareto`: the front as a table, CSV, SVG or JSON, and its plans as files. */
#ifndef TEMPER_CLI_PLAN_FRONT_H
#define TEMPER_CLI_PLAN_FRONT_H

#include "planner/planner.h"

struct plan_front_options {
    const char *axes;               /* "time,memory,energy": two or three of them */
    int points_most;                /* 0: every point */
    const char *csv, *svg, *output; /* files; NULL: none. Each plan's name is numbered. */
    bool json;
};

/* A wrong `axes` is STATUS_USAGE. */
enum status plan_front(const struct planner_request *request,
                       const struct plan_front_options *options, struct error *err);

#endif
