/* What the answers of `temper plan` have in common: one plan's figures as JSON, plans as rows of a
 * table, plans into files, and why there is none. */
#ifndef TEMPER_CLI_PLAN_TELL_H
#define TEMPER_CLI_PLAN_TELL_H

#include "base/units.h"
#include "cli/cli.h"
#include "planner/planner.h"

/* "status" to "energy_provenance" and "plan", as members of the open object. */
enum status plan_tell_json(const struct plan *plan, struct jout *out, struct error *err);
/* Print the finished document where `status`, which says whether it is whole, is STATUS_OK; free it
 * in any case. Returns the first failure. */
enum status plan_tell_done(struct jout *out, enum status status, struct error *err);
void plan_tell_statistics_json(const struct search_statistics *statistics, struct jout *out);
void plan_tell_statistics(const struct search_statistics *statistics);

/* The message and, under --json, the object for scripts; returns STATUS_INFEASIBLE, with `err`
 * filled. */
enum status plan_tell_infeasible(const struct infeasibility *why, bool json, struct error *err);

/* Ranks, degrees, schedule, micro-batch and threads: the end of a table's head and of its rows. */
extern const char plan_shape_head[];
void plan_shape_cells(const struct plan *plan, struct text *out);
/* "memory (p95)" for a risk of 0.05 (which 0 stands for): what a cap is held against. */
enum { PERCENTILE_BYTES = 32 };
const char *plan_percentile_head(double risk, char buffer[PERCENTILE_BYTES]);
/* "absent" for a quantity that is not known, else its value. */
const char *plan_energy_cell(double energy_j, char buffer[UNIT_TEXT_BYTES]);

/* plan.json and 3 make plan-3.json: before the last dot of the name, or at its end. STATUS_USAGE
 * when that is too long. */
enum { NUMBERED_PATH_BYTES = 4096 };
enum status plan_numbered_path(const char *path, size_t number, char out[NUMBERED_PATH_BYTES],
                               struct error *err);

#endif
