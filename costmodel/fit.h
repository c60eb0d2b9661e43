/* Calibrates a described cluster from measured runs: the shares of its efficiency curves and of its
 * link tiers are moved until predicted step times come as near to the measured ones as they can.
 * The method is in docs/validate.md. */
#ifndef TEMPER_COSTMODEL_FIT_H
#define TEMPER_COSTMODEL_FIT_H

#include "base/reporter.h"
#include "ir/run_case.h"

enum { FIT_FOLDS_MAX = 20 };

/* Errors are fractions: the mean over the tables of each one's mean absolute error of step time. */
struct fit_report {
    size_t rows;   /* with a measured step time */
    size_t tables; /* that have such rows */
    size_t shares; /* that were free to move */
    size_t folds;
    double error_before, error_after; /* over all rows, which the fit saw */
    double error_held_out;            /* of each row under the shares fitted without its fold */
};

/* Fits the first group of `cluster`, on which the tables were loaded (`described` of
 * run_cases_load). Each table counts the same whatever its number of rows. Rows are dealt to the
 * folds in turn. On success `cluster` and the clusters of all rows have the fitted shares; else
 * they are as before. STATUS_INVALID: fewer than two rows a fold. */
enum status fit_cluster(struct cluster *cluster, struct run_cases *tables, size_t table_count,
                        size_t folds, const struct reporter *reporter, struct fit_report *out,
                        struct error *err);

#endif
