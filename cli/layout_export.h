/* `temper plan --cluster ... --export`: a layout handed over, and what it costs that the target
 * cannot run all of it. For exported_text and exported_json. */
#ifndef TEMPER_CLI_LAYOUT_EXPORT_H
#define TEMPER_CLI_LAYOUT_EXPORT_H

#include "cli/plan_export.h"
#include "planner/layouts.h"

/* All borrowed. */
struct layout_handover {
    const struct cluster *cluster;
    const struct model *model;
    const struct layout *layout;
    const struct layout_weights *weights; /* what is best among the ways of a field */
    const struct priced_layout *units;    /* of the weights; NULL: the layout's own figures */
    uint64_t memory_cap_bytes;            /* of a device; 0: what it has */
    double risk;                          /* that memory exceeds it */
};

/* Level field by field, price every way with layout_predict, take the one with the least objective
 * of those that fit, and write. STATUS_INFEASIBLE: none fits, with what is missing.
 * STATUS_UNSUPPORTED: the target trains no such model or has no way. Release with exported_free. */
enum status layout_export(const struct export_request *request,
                          const struct layout_handover *handover, struct exported *out,
                          struct error *err);

#endif
