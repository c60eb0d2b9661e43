/* `temper plan --compare A.json B.json`: two plans' predictions term by term, what makes the one
 * better, and in which choices they differ. Needs no store: plan files hold their predictions. */
#ifndef TEMPER_CLI_PLAN_COMPARE_H
#define TEMPER_CLI_PLAN_COMPARE_H

#include "base/error.h"
#include <stdbool.h>

/* Plans of other models or batches are compared all the same, and it is said. */
enum status plan_compare(const char *path_a, const char *path_b, bool json, struct error *err);

#endif
