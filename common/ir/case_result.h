/* What was predicted of measured runs, and how far off it is. error = predicted / measured - 1. */
#ifndef TEMPER_IR_CASE_RESULT_H
#define TEMPER_IR_CASE_RESULT_H

#include "ir/run_case.h"

/* Of one run. */
struct case_result {
    struct quantity time_s;       /* of a step; absent: the run is skipped */
    struct quantity memory_bytes; /* of the fullest device, of what the run's figure counts */
    struct quantity energy_j;     /* of all devices in a step */
    bool fits;                    /* in the device's memory */
};

/* Over the runs of which the figure was measured and predicted. */
struct case_errors {
    size_t count;
    double mean_absolute; /* a fraction: 0.034 is 3.4 %; NAN of no run, as the two below */
    double mean;          /* signed: above 0, more is predicted than measured */
    double worst;         /* signed, the largest in size */
    size_t worst_index;   /* of its run */
};

struct case_summary {
    size_t rows, skipped;
    struct case_errors time, memory, energy;
    /* Out of memory, over the runs that were predicted. */
    size_t judged;  /* rows - skipped */
    size_t agreed;  /* predicted to fit and ran, or not to fit and failed */
    size_t failed;  /* measured: out of memory */
    size_t missed;  /* of these, predicted to fit */
    size_t refused; /* ran, and were predicted not to fit */
};

/* NAN where one of the two is absent or nothing was measured. */
double case_error(struct quantity predicted, struct quantity measured);
/* results: [cases->count], in the order of the rows. */
struct case_summary case_summarise(const struct run_cases *cases,
                                   const struct case_result *results);
/* agreed / judged; NAN where no run was judged. */
double case_agreement(const struct case_summary *summary);

/* A table of runs with all that was found about it. */
struct case_table {
    struct run_cases cases;
    struct case_result *results; /* [cases.count], owned; NULL of an empty table */
    struct case_summary summary;
};
/* Zeroed results for all rows. */
enum status case_table_load(struct case_table *out, const char *path,
                            const struct cluster *described, struct error *err);
void case_table_free(struct case_table *table);

/* ---- why runs were skipped ---- */

struct case_reason {
    const char *text; /* borrowed from the first of its rows */
    size_t rows;
    size_t first_line;
};

/* Every reason once, in the order of the file; returns how many. `out` holds `capacity`, the rest
 * is counted in the last one under the text "other reasons". */
size_t case_reasons(const struct run_cases *cases, struct case_reason *out, size_t capacity);

#endif
