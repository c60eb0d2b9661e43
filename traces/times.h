/* The recorded times of a run by layer and by stage. */
#ifndef TEMPER_TRACES_TIMES_H
#define TEMPER_TRACES_TIMES_H

#include "base/error.h"
#include "ir/quantity.h"
#include "store/store.h"

/* Over ranks, of the mean time of one phase; both 0 when nothing was recorded. */
struct rank_spread {
    double minimum_s, maximum_s;
};

/* Means over ranks, with the mean of their deviations. */
struct time_cell {
    double mean_s, deviation_s;
};

struct times {
    const struct plan *plan;                /* borrowed */
    struct time_cell (*cells)[PHASE_COUNT]; /* [layers + stages + 1]: see times.c */
    bool by_layer[PHASE_COUNT];             /* was the phase recorded for any layer? */
    bool *has_rank;                         /* [plan.ranks]: has recorded times */
    size_t *stage_ranks;                    /* [stages]: how many of them have */
    size_t rank_count;
    struct rank_spread spread[PHASE_COUNT]; /* over all ranks, of the whole step */
    bool spread_seen[PHASE_COUNT];
};

/* STATUS_CORRUPT when a time is of a rank or layer that the plan does not have, or of a layer that
 * is not on the rank's stage. */
enum status times_open(struct times *out, const struct run_record *record, struct error *err);
void times_close(struct times *times);

/* Does time in this phase belong to a layer? The pipeline's is a stage's, the rest the step's. */
bool times_is_of_layer(enum phase phase);

/* Of one step. Absent where no rank that could tell was recorded; otherwise a phase that no row
 * names took no time. */
struct quantity times_of_layer(const struct times *times, size_t layer, enum phase phase);
struct quantity times_of_stage(const struct times *times, int stage, enum phase phase);
struct quantity times_of_all(const struct times *times, enum phase phase);

/* All phases of all recorded ranks, in rank seconds: what energy is apportioned by. */
double times_rank_seconds(const struct times *times);
/* The recorded stage with most to do, waiting for other stages not counted; of equals the first.
 * -1: none was recorded. */
int times_critical_stage(const struct times *times);

#endif
