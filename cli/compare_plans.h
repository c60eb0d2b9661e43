/* Two plan files side by side: predictions term by term, choices, and the layers that differ. */
#ifndef TEMPER_CLI_COMPARE_PLANS_H
#define TEMPER_CLI_COMPARE_PLANS_H

#include "base/error.h"
#include <stdbool.h>

/* Plans of other models or batches are compared all the same, and it is said. */
enum status compare_plans(const char *path_a, const char *path_b, bool json, struct error *err);

#endif
