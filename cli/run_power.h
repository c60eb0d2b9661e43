/* What a run's figures are shares of and how its energy is known: matmul peak, counters, power
 * model. */
#ifndef TEMPER_CLI_RUN_POWER_H
#define TEMPER_CLI_RUN_POWER_H

#include "cli/cmd_run.h"
#include "ir/quantity.h"
#include "store/store.h"

struct run_power;

/* Rank 0 reads the host's rows in `store`; rates that were never profiled are measured now, by all
 * ranks at once. Collective; `store` is NULL but on rank 0. */
enum status run_power_open(struct run_power **out, const struct run_context *run,
                           struct store *store, struct error *err);
void run_power_close(struct run_power *power); /* NULL allowed */

/* Of all ranks together, in the precision that most of the plan's FLOPs are computed in. */
double run_power_matmul_flops(const struct run_power *power);
/* Of all ranks together, bytes read + written. */
double run_power_copy_bytes_s(const struct run_power *power);

/* A step begins: its energy counts from here. */
void run_power_start(struct run_power *power);
/* Since run_power_start: measured by counter, or modelled from watts and `seconds`, or absent. */
struct quantity run_power_step_energy(struct run_power *power, double seconds);

#endif
