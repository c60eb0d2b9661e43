/* Profiles, plans, runs and their events in one SQLite file; the only part of temper that knows
 * SQLite.
 *
 * The schema and its version stand in docs/store.md. A store written by a newer temper is refused
 * by version; one of an older version is read as it is and brought to this one when it is opened to
 * be written, all of it or nothing; a file that is not a store is refused by name. Every batch of
 * rows is one transaction, so that a store survives kill -9 at any moment. Only one process of a
 * run writes. */
#ifndef TEMPER_STORE_STORE_H
#define TEMPER_STORE_STORE_H

#include "base/error.h"
#include "base/host.h"
#include "ir/event.h"
#include "ir/layer.h"
#include "ir/plan.h"
#include "ir/quantity.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;

enum store_mode {
    STORE_READ,   /* must exist; nothing can be added */
    STORE_CREATE, /* read and write; made if absent */
};

/* Errors name the path. No such file, or an empty one to read: STATUS_INVALID with the command that
 * makes one. No store: STATUS_INVALID. Truncated or damaged: STATUS_CORRUPT. A newer schema:
 * STATUS_UNSUPPORTED with both numbers. No access: STATUS_IO. */
enum status store_open(struct store **out, const char *path, enum store_mode mode,
                       struct error *err);
void store_close(struct store *store); /* NULL allowed */
const char *store_path(const struct store *store);

/* Transactions for many rows at once: commit or roll back; store_begin twice is a bug. Outside of
 * one, each call below that adds is a transaction of its own, all its rows or none. A call that
 * fails inside of one (full disk: STATUS_IO) leaves the rollback to the caller; a commit that fails
 * has rolled back. What was committed before stays in any case. */
enum status store_begin(struct store *store, struct error *err);
enum status store_commit(struct store *store, struct error *err);
void store_rollback(struct store *store); /* does nothing outside a transaction */

/* ---- profiles: measurements ---- */

/* What was measured about a subject. */
enum metric {
    METRIC_FORWARD_S,   /* one micro-batch through one layer */
    METRIC_BACKWARD_S,  /* with what is recomputed */
    METRIC_OPTIMIZER_S, /* one layer's norm, clip and AdamW, per step */
    METRIC_FORWARD_J,   /* energy of the whole host during the phase, divided by its ranks */
    METRIC_BACKWARD_J,
    METRIC_OPTIMIZER_J,
    METRIC_SAVED_BYTES, /* activations kept for backward */
    METRIC_SCRATCH_BYTES,
    METRIC_LINK_S,           /* one collective or message of `bytes` */
    METRIC_PROCESS_BYTES,    /* resident memory of a rank that is not laid out by the plan */
    METRIC_OVERLAP,          /* share of a gradient all-reduce that compute hides: at most 1;
                                below 0 it slows compute by more than it hides */
    METRIC_STEP_OVERHEAD_S,  /* time of a step outside layers, communication and optimizer */
    METRIC_MATMUL_FLOPS,     /* measured matrix-product rate of one rank, FLOP/s */
    METRIC_COPY_BYTES_S,     /* measured memory copy rate of one rank, bytes/s (read + written) */
    METRIC_IDLE_W,           /* power of the placement's hosts at rest, watts */
    METRIC_ACTIVE_W,         /* while this placement's ranks and threads work */
    METRIC_HOST_RANKS,       /* of the placement's ranks, how many are on one host */
    METRIC_FORWARD_TENSOR_S, /* exchanges of the ranks that share a layer, waiting included */
    METRIC_BACKWARD_TENSOR_S,
    METRIC_COUNT
};
const char *metric_name(enum metric metric); /* "forward", "forward_energy", "link", ... */
const char *metric_unit(enum metric metric); /* "s", "J", "B", "W", "1", "FLOP/s", "B/s" */

enum { SUBJECT_BYTES = 128 };

/* One row. The key is all but the figures: subject, metric, precision, recompute, attention,
 * micro_batch, ranks, threads, bytes;
 * a newer session's row for the same key and host stands before an older one. */
struct measurement {
    char subject[SUBJECT_BYTES]; /* layer_part_key(), "machine", or of a link "all-reduce/n2/x1":
                                    see docs/store.md */
    enum metric metric;
    enum precision precision;
    enum recompute recompute;
    enum attention_kernel attention; /* of attention layers; else plain */
    int64_t micro_batch;             /* sequences; 0 where it does not apply */
    int ranks;                       /* that worked at the same time */
    int threads;                     /* of each rank */
    int64_t bytes;                   /* message size; 0 where it does not apply */
    uint64_t n;
    double mean;
    double deviation;
    enum provenance provenance;
    int64_t measured_unix_ms;
};

/* Where and with what a profile was made; one row a `temper profile`. */
struct profile_session {
    int64_t id; /* set by the store */
    struct host_info host;
    char libraries[256]; /* names and versions */
    char revision[48];   /* temper's version and git revision */
    char model_name[MODEL_NAME_BYTES];
    char options[256]; /* the command line, as given */
    int64_t started_unix_ms;
};

enum status store_profile_begin(struct store *store, struct profile_session *session,
                                struct error *err);
enum status store_measurement_add(struct store *store, int64_t session_id,
                                  const struct measurement *measurement, struct error *err);

struct measurement_list {
    struct measurement *rows; /* owned */
    size_t count;
};
void measurement_list_free(struct measurement_list *list);
/* The newest row of every key measured on `host_name` (NULL: on the host of the newest session).
 * host_out (NULL allowed) receives that host's name. An empty store gives STATUS_INVALID with the
 * command that would fill it. */
enum status store_measurements_load(struct store *store, const char *host_name,
                                    struct measurement_list *out, char host_out[64],
                                    struct error *err);

/* ---- plans ---- */

enum status store_plan_add(struct store *store, const struct plan *plan, int64_t *id,
                           struct error *err); /* equal but for created_unix_ms: the same id */
enum status store_plan_load(struct store *store, int64_t id, struct plan *out, struct error *err);

/* ---- runs ---- */

enum run_status { RUN_RUNNING, RUN_DONE, RUN_INTERRUPTED, RUN_FAILED, RUN_STATUS_COUNT };
const char *run_status_name(enum run_status status);

struct run_info {
    int64_t id; /* set by the store */
    int64_t plan_id;
    char host[64];
    char data_path[256];
    char options[256];
    char revision[48];
    int64_t seed;
    int64_t started_unix_ms, ended_unix_ms;
    enum run_status status;
    int64_t process_bytes_at_start; /* of the fullest rank, before the layout */
    int64_t layout_bytes;           /* what the plan's layout took, of the fullest rank */
    int64_t peak_bytes;             /* highest resident memory of any rank */
    double matmul_flops;            /* the peak that the step line's share is of; 0 unknown */
    double copy_bytes_s;            /* of all ranks' copies, read + written; 0 unknown */
    struct quantity energy_j;       /* whole run, all ranks; may be absent */
    int64_t skipped_steps;          /* gradient not finite */
};

struct run_step {
    int64_t step; /* from 0; once a run */
    double loss, gradient_norm, learning_rate;
    double seconds;
    int64_t tokens;
    int64_t resident_bytes; /* of the fullest rank */
    bool skipped;
    struct quantity energy_j; /* of this step; may be absent */
};

struct run_evaluation {
    int64_t step; /* after this many steps; a second one there replaces the first */
    double loss;
};

/* Time of one layer's phase over all steps after the warm-up, per step, of one rank. */
struct layer_time {
    int32_t rank;
    int32_t layer; /* EVENT_NO_LAYER: of the whole step */
    enum phase phase;
    uint64_t n; /* steps */
    double mean_s, deviation_s;
};

enum status store_run_begin(struct store *store, struct run_info *run, struct error *err);
enum status store_run_update(struct store *store, const struct run_info *run, struct error *err);
/* The run that began at this time has died: note that it failed, now. Nothing is noted of one that
 * was done, or that there is none of. */
enum status store_run_bury(struct store *store, int64_t started_unix_ms, struct error *err);
enum status store_run_steps_add(struct store *store, int64_t run_id, const struct run_step *steps,
                                size_t count, struct error *err);
enum status store_run_evaluation_add(struct store *store, int64_t run_id,
                                     const struct run_evaluation *evaluation, struct error *err);
enum status store_run_events_add(struct store *store, int64_t run_id, const struct event *events,
                                 size_t count, struct error *err);
enum status store_run_layer_times_add(struct store *store, int64_t run_id,
                                      const struct layer_time *times, size_t count,
                                      struct error *err);

/* Everything of one run, for reports. id 0: the newest run. */
struct run_record {
    struct run_info info;
    struct plan plan;
    struct run_step *steps;
    size_t step_count;
    struct run_evaluation *evaluations;
    size_t evaluation_count;
    struct event *events; /* by start time */
    size_t event_count;
    struct layer_time *layer_times;
    size_t layer_time_count;
};
enum status store_run_load(struct store *store, int64_t id, struct run_record *out,
                           struct error *err);
void run_record_free(struct run_record *record);

#endif
