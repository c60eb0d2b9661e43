/* What one piece of work costs: the terms that both the planner's search and the prediction of a
 * whole plan are made of. Every equation and its source stand in docs/costmodel.md.
 *
 * The functions read a plan, since a layer's cost depends on how its ranks lie: the degrees, the
 * micro-batch and the strategy asked about. A search fills the layers of a plan with trial
 * strategies and asks layer by layer; what else of the plan each function reads is said there. The
 * plan is valid in all that is read (plan_validate). */
#ifndef TEMPER_COSTMODEL_COST_H
#define TEMPER_COSTMODEL_COST_H

#include "costmodel/collective.h"
#include "costmodel/profile.h"
#include "ir/plan.h"

/* ---- a layer ---- */

/* How often a term is spent in a step. */
enum cost_pass {
    COST_FORWARD,  /* in the forward pass of each micro-batch */
    COST_BACKWARD, /* in the backward pass of each micro-batch */
    COST_STEP,     /* once */
    COST_PASS_COUNT
};

struct layer_cost {
    /* Of one rank. Those of communication are what compute does not hide. */
    struct quantity time_s[COST_PASS_COUNT][PHASE_COUNT];
    /* One rank's share of the host's; absent where the profile knows none. */
    struct quantity energy_j[COST_PASS_COUNT][PHASE_COUNT];
    /* ir/state.h; the 16-bit copy of a tied table is the head's, which computes in it. */
    uint64_t parameter_bytes, gradient_bytes, optimizer_bytes;
    uint64_t inflight_bytes; /* per micro-batch in flight: footprint_saved_bytes */
    uint64_t scratch_bytes;  /* shared by the layers of a stage: footprint_scratch_bytes */
};

/* Reads of other layers only: in a tied model the embedding's strategy for the head's and the
 * reverse (one table; in two stages it is reduced over both), and whether the plan has rings
 * (footprint_ring_count), into which transient state goes instead of scratch.
 * Missing measurements: STATUS_INVALID naming what is missing (the layer's key, or the collective),
 * the placement and the `temper profile` command that would measure it. */
enum status cost_layer(const struct profile *profile, const struct plan *plan, size_t layer,
                       struct layer_cost *out, struct error *err);

/* All phases of one pass. */
struct quantity layer_cost_time(const struct layer_cost *cost, enum cost_pass pass);

/* The same in the terms of the search. */
struct layer_price {
    double tau_s;    /* each micro-batch, forward and backward, with its exposed communication */
    double gamma_s;  /* once: synchronisation of gradients that is not hidden */
    double update_s; /* once: optimizer, and gathering what it updated */
    double energy_j; /* of a whole step, all ranks of the stage; NAN: absent */
    uint64_t static_bytes, inflight_bytes, scratch_bytes;
};
struct layer_price layer_cost_price(const struct plan *plan, const struct layer_cost *cost);

/* ---- between layers ---- */

/* One micro-batch. */
struct reshard_cost {
    struct quantity forward_s; /* of the residual stream, from the first's spread to the second's */
    struct quantity backward_s;            /* of its gradient, back */
    struct quantity forward_j, backward_j; /* one rank's share of the host's */
};

/* Between two neighbours of different spread: to a spread that divides the one there is, each rank
 * cuts out its piece, which is free; else an all-gather over the ranks of the new spread
 * (executor/reshard.h). Where the two are on two stages the forward part is the later stage's work,
 * the backward part the earlier's. Reads the plan's degrees, micro-batch and threads, none of its
 * layers. */
enum status cost_reshard(const struct profile *profile, const struct plan *plan,
                         const struct layer_strategy *from, const struct layer_strategy *to,
                         struct reshard_cost *out, struct error *err);

/* One micro-batch from the last layer of a virtual stage to the first of the next, and its gradient
 * back: seconds until it has arrived. Sender and receiver wait for no more than their next action
 * needs, so that this is no term of a layer. */
struct handover_cost {
    struct quantity forward_s, backward_s;
};

/* Reads what cost_reshard does. `virtual_stage` is that of `from`. */
enum status cost_handover(const struct profile *profile, const struct plan *plan, int virtual_stage,
                          const struct layer_strategy *from, const struct layer_strategy *to,
                          struct handover_cost *out, struct error *err);

/* ---- beside the layers ---- */

struct step_cost {
    struct quantity other_s, other_j;         /* of the whole host */
    struct quantity process_bytes;            /* of a rank, outside the plan's layout */
    struct quantity idle_watts, active_watts; /* of the hosts; may be absent */
    uint64_t stream_bytes;                    /* of a rank: all streams, ir/footprint.h */
    uint64_t ring_bytes;                      /* of a rank: all buffers of its rings */
};
/* Reads of the layers whether any computes in 16 bit (the process holds what those kernels need,
 * too), and what footprint_stream_count and footprint_ring_count read. */
enum status cost_step(const struct profile *profile, const struct plan *plan, struct step_cost *out,
                      struct error *err);

#endif
