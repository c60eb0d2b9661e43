/* `temper plan --compare A.json B.json`: two plan files, or two answers of `temper plan --cluster
 * ... --json`: predictions term by term, what makes the one better and what it pays for that, and
 * in which choices they differ. Needs no store: the files hold their predictions. */
#ifndef TEMPER_CLI_PLAN_COMPARE_H
#define TEMPER_CLI_PLAN_COMPARE_H

#include "base/error.h"
#include <stdbool.h>

/* STATUS_INVALID: a file is neither, or they are not of one kind. */
enum status plan_compare(const char *path_a, const char *path_b, bool json, struct error *err);

#endif
