/* What the passes of a run's layers reached of what the ranks' measured rates allow. */
#ifndef TEMPER_TRACES_ROOFLINE_H
#define TEMPER_TRACES_ROOFLINE_H

#include "ir/layer_work.h"
#include "traces/compare.h"

/* A head's loss may be computed in either pass, so that its two are one. */
enum roofline_pass { ROOFLINE_FORWARD, ROOFLINE_BACKWARD, ROOFLINE_BOTH };
const char *roofline_pass_name(enum roofline_pass pass); /* "forward", "backward", "both" */

/* All layers of one kind and precision, of a step of one rank: sums over the layers, of each the
 * mean over the ranks that have it. */
struct roofline_row {
    enum layer_kind kind;
    enum precision precision;
    enum roofline_pass pass;
    double seconds; /* measured */
    struct layer_work work;
    /* Of the limit by the time taken. NAN: the rates are not known; the matrix-product rate of a
     * run is that of the precision that most of its layers have. */
    double reached;
    bool is_memory; /* that sets the limit */
};

enum { ROOFLINE_ROWS_MAX = 2 * LAYER_KIND_COUNT * PRECISION_COUNT };

/* In the order of kinds, forward before backward; those that took time. Returns how many. */
size_t roofline_rows(const struct run_record *record, const struct run_comparison *comparison,
                     struct roofline_row out[ROOFLINE_ROWS_MAX]);

#endif
