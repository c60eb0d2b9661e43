/* Where a profile's rows go while it measures: a list in memory. */
#ifndef TEMPER_CLI_ROW_SINK_H
#define TEMPER_CLI_ROW_SINK_H

#include "profiler/profiler.h"

/* Zero-initialise; release with row_sink_free. */
struct row_sink {
    struct measurement *rows; /* [count], owned */
    size_t count, capacity;
};

/* A sink that adds to `rows`, which has to stay where it is. */
struct measurement_sink row_sink_into(struct row_sink *rows);
void row_sink_free(struct row_sink *rows);

#endif
