/* What one piece of work costs: the terms that both the planner's search and the prediction of a
 * whole plan are made of. Sources of the equations are named in cost.c and predict.c. */
#ifndef TEMPER_COSTMODEL_COST_H
#define TEMPER_COSTMODEL_COST_H

#include "costmodel/profile.h"

/* One layer under one mode, on one rank. */
struct layer_work {
    enum layer_kind kind;
    struct layer_precision_mode mode; /* that the kind admits */
    int64_t micro_batch;              /* sequences */
    struct placement placement;
    bool bf16_copy; /* some layer of the plan computes in bf16: the optimizer writes the bf16 copy
                       of every parameter (executor/optimizer.h) */
};

/* Energies are one rank's share of the host's; absent where the profile knows none. */
struct layer_cost {
    struct quantity forward_s, backward_s;    /* one micro-batch */
    struct quantity forward_j, backward_j;    /* one micro-batch */
    struct quantity optimizer_s, optimizer_j; /* one step */
    struct quantity grad_reduce_s,
        grad_reduce_j;      /* one step: the part that compute does not hide */
    uint64_t saved_bytes;   /* per micro-batch in flight, the boundary before the layer included */
    uint64_t scratch_bytes; /* shared by all layers: the largest counts */
    uint64_t parameter_bytes; /* fp32, and the bf16 copy where there is one; not rounded up */
    uint64_t gradient_bytes;
    uint64_t optimizer_bytes;
};

/* Missing measurements: STATUS_INVALID naming the layer key, precision and placement and the
 * `temper profile` command that would measure them. */
enum status cost_layer(const struct profile *profile, const struct model *model,
                       const struct layer_work *work, struct layer_cost *out, struct error *err);

/* What a step costs beside its layers. */
struct step_cost {
    struct quantity other_s, other_j;         /* of the whole host */
    struct quantity process_bytes;            /* of a rank, outside the plan's layout */
    struct quantity idle_watts, active_watts; /* of the host; may be absent */
};
/* `bf16_copy`: some layer computes in bf16, so the process holds what bf16 kernels need, too. */
enum status cost_step(const struct profile *profile, struct placement placement, bool bf16_copy,
                      struct step_cost *out, struct error *err);

/* One all-reduce of fp32 gradients with nothing to hide it; absent when none was measured with
 * these ranks. */
struct quantity cost_all_reduce(const struct profile *profile, struct placement placement,
                                uint64_t bytes);

#endif
