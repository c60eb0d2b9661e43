/* Measures this machine and this model: the layers' time, memory and energy, and the links between
 * ranks, through the very functions that the executor runs. */
#ifndef TEMPER_PROFILER_PROFILER_H
#define TEMPER_PROFILER_PROFILER_H

#include "base/reporter.h"
#include "executor/comm/comm.h"
#include "executor/ops/device.h"
#include "ir/model.h"
#include "store/store.h"
#include <stdbool.h>

enum { PROFILE_MICRO_BATCHES_MAX = 16 };

/* Power of one whole node, watts. Below zero: not given. */
struct power_model {
    double idle_watts;
    double active_watts;
};

struct profile_request {
    const struct model *model;
    int64_t micro_batches[PROFILE_MICRO_BATCHES_MAX]; /* sizes to measure, ascending */
    size_t micro_batch_count;         /* 0: choose by the model's size and the time budget */
    bool precisions[PRECISION_COUNT]; /* wanted; those the device cannot do are left out */
    double relative_error;            /* stop repeating when the mean is known this well: 0.03 */
    double budget_s;                  /* for this placement, all in all */
    uint64_t memory_limit_bytes;      /* per rank; larger working sets are left out and reported */
    struct power_model power;         /* < 0: not given */
    int host_cores;           /* that all ranks of a host share; 0: as this process may use now */
    struct reporter reporter; /* rank 0's */
};

/* Growing list of rows. */
struct measurement_sink {
    void *user;
    enum status (*add)(void *user, const struct measurement *row, struct error *err);
};

/* Measure one placement: all ranks of `comm` work at the same time, `device` has the threads. Rows
 * go to rank 0's sink (others may pass NULL); on an error none of them need be complete.
 * Collective.
 *
 *   subject "machine": METRIC_MATMUL_FLOPS and METRIC_PROCESS_BYTES by precision (process memory of
 *     bf16 includes that of fp32), COPY_BYTES_S, STEP_OVERHEAD_S, OVERLAP (several ranks),
 *     HOST_RANKS, IDLE_W and ACTIVE_W
 *   each part of a layer (layer_part_key) whose ways divide the ranks and that layer_part_check
 *     admits, precision and recompute mode that its kind admits, micro-batch of the group that
 *     shares it: FORWARD_S, BACKWARD_S (compute alone), FORWARD_J, BACKWARD_J, SAVED_BYTES,
 *     SCRATCH_BYTES; parts of several ways at fewer sizes, see profiler/sweep.h
 *   each part and precision: OPTIMIZER_S, OPTIMIZER_J; bf16 and fp16 mean "with such a copy" and
 *     are there for every kind
 *   a tied head with a table of its own (several ranks): the same, see profiler/layers.h
 *   links (several ranks): LINK_S by bytes, subjects as profiler/links.h lists them
 *
 * Times are means over all ranks after the rule of profiler/samples.h; power and joules that are
 * neither counted nor modelled give a row with provenance absent and n = 0. Sizes that do not fit
 * the memory limit or the time are left out with a warning. Nothing fits: STATUS_INVALID; no
 * precision that the device has: STATUS_UNSUPPORTED. */
enum status profile_placement(const struct profile_request *request, struct comm *comm,
                              struct device *device, const struct measurement_sink *sink,
                              struct error *err);

#endif
