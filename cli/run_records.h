/* What rank 0 of a run writes down: store rows, JSON lines, the printed step line. */
#ifndef TEMPER_CLI_RUN_RECORDS_H
#define TEMPER_CLI_RUN_RECORDS_H

#include "cli/cmd_run.h"
#include "store/store.h"
#include "traces/recorder.h"

struct run_records;

/* Opens the store and tries the places to write to on rank 0 (elsewhere the records do nothing) and
 * measures or looks up what step lines are shares of. Collective. */
enum status run_records_open(struct run_records **out, const struct run_context *run,
                             struct error *err);
void run_records_close(struct run_records *records); /* NULL allowed */

/* The layout is known, weights are loaded and the first step is next: an older log is replaced only
 * now, and a restarted run's own continued. `layout_bytes` of this rank. Collective. */
enum status run_records_begin(struct run_records *records, int64_t steps_done, int64_t layout_bytes,
                              struct error *err);
/* The next step begins: its energy counts from here. */
void run_records_step_begin(struct run_records *records);
/* Memory of the fullest rank. */
struct rank_memory {
    int64_t resident_bytes; /* now */
    int64_t peak_bytes;     /* the most so far */
};
/* One step is over. */
enum status run_records_step(struct run_records *records, const struct step_result *step,
                             const struct rank_memory *memory, struct error *err);
/* A checkpoint follows: what was recorded until now reaches the files first, since a restart from
 * it goes on behind that. */
enum status run_records_flush(struct run_records *records, struct error *err);
enum status run_records_evaluation(struct run_records *records, int64_t steps, double loss,
                                   struct error *err);
/* The run is over, well or not: events of all ranks go to the store. `recorder` may be NULL.
 * Collective. */
enum status run_records_end(struct run_records *records, struct recorder *recorder,
                            enum run_status status, int64_t skipped_steps, struct error *err);
/* The run failed and the other ranks cannot be asked: note what is known here. Rank 0 alone. */
void run_records_abandon(struct run_records *records, int64_t skipped_steps);
/* The closing lines, or the JSON object. */
enum status run_records_tell(struct run_records *records, struct error *err);

#endif
