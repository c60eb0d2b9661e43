/* What every strategy of every kind of layer costs on one mesh: degrees, placement and micro-batch
 * fixed. The cost model is asked once a strategy; schedules and parts of the space share the
 * answers. */
#ifndef TEMPER_PLANNER_PRICES_H
#define TEMPER_PLANNER_PRICES_H

#include "costmodel/cost.h"
#include "planner/layer_groups.h"
#include "planner/planner.h"

struct mesh {
    struct placement placement;
    int pipeline, data_parallel, tensor_parallel; /* T; their product is the placement's ranks */
    int64_t micro_batch, micro_batches;
};

/* A strategy, without its stage. */
struct priced {
    struct layer_strategy strategy;
    bool table_sequence; /* of a tied head: is the embedding beside it sequence parallel? Of an
                            embedding: is it itself? */
    enum precision table_gradients; /* of an embedding and a tied head: of the table both use */
    size_t spread;                  /* index into prices.spreads */
    double forward_s, backward_s, reduce_s, update_s; /* micro-batch; micro-batch; step; step */
    double step_j;                                    /* all ranks of the stage; NAN: absent */
    uint64_t static_bytes, inflight_bytes, scratch_bytes;
};

struct priced_kind {
    struct priced *items; /* [count], owned */
    size_t count, capacity;
};

enum { SPREADS_MAX = 32 };

struct spread_change {
    double forward_s, backward_s; /* a micro-batch */
    double step_j;                /* all ranks of a stage; NAN: absent */
};

struct prices {
    struct mesh mesh;
    struct priced_kind kinds[LAYER_KIND_COUNT];
    int spreads[SPREADS_MAX]; /* strategy_spread of the strategies, ascending: divisors of T */
    size_t spread_count;
    struct spread_change changes[SPREADS_MAX][SPREADS_MAX]; /* from, to */
    /* With more than one stage: the least seconds to hand a micro-batch of this spread to the next
     * stage and its gradient back, with the resharding there. */
    double send_s[SPREADS_MAX];
    double least_forward_send_s, least_backward_send_s; /* between any two virtual stages */
    double other_s, other_j;                            /* other_j NAN: absent */
    double idle_w;                                      /* NAN: absent */
    struct quantity process_bytes[PRECISION_COUNT];     /* by the lowest precision of a plan */
    bool has_precision[PRECISION_COUNT];                /* of some strategy */
    uint64_t ring_bytes;                                /* of both buffers of one ring */
    uint64_t narrow_stream_bytes, wide_stream_bytes;    /* of one stream: spread 1, any */
};

/* STATUS_INVALID: a measurement is missing, or the pins leave some layers no strategy that was
 * measured, or none shares a layer over all T ranks. `groups` are read only here. */
enum status prices_open(struct prices *out, const struct planner_request *request,
                        const struct layer_groups *groups, const struct mesh *mesh,
                        struct error *err);
void prices_close(struct prices *prices);

/* May the group's layers have it, as far as the pins say? */
bool prices_admit(const struct prices *prices, const struct layer_group *group,
                  const struct layer_strategy *strategy);

/* The layer that stands for all of its kind. */
size_t kind_layer(const struct model *model, enum layer_kind kind);
/* Everything but layers, prediction and objective; `schedule` and `virtual_stages` are the
 * caller's. */
void prices_plan(const struct planner_request *request, const struct mesh *mesh, struct plan *out);

#endif
