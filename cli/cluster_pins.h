/* `--pin` on a described cluster: all layers have the same split; some blocks may have their own
 * recompute and arithmetic. */
#ifndef TEMPER_CLI_CLUSTER_PINS_H
#define TEMPER_CLI_CLUSTER_PINS_H

#include "planner/layouts.h"
#include "planner/pins.h"

/* STATUS_USAGE names the pin that only measured profiles have and what stands in its place. */
enum status cluster_pins_take(const struct pins *pins, const struct model *model,
                              struct layout_pins *out, struct error *err);

/* STATUS_USAGE: the first of these pins that is plan-only (ir/plan_only.h). */
enum status cluster_pins_check_executable(const struct layout_pins *pins, struct error *err);

#endif
