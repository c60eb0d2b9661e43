/* The exact timeline of a pipeline schedule: every stage works through its list of ir/schedule.h,
 * each action as soon as the stage is free and its input has arrived.
 *
 * Receives are posted ahead and sends do not block, so that a transfer delays nobody but the action
 * that reads it; transfers do not slow each other. */
#ifndef TEMPER_COSTMODEL_SIMULATE_H
#define TEMPER_COSTMODEL_SIMULATE_H

#include "base/error.h"
#include "ir/schedule.h"
#include <stddef.h>

/* Times of one micro-batch, seconds, finite and >= 0. V = stages * chunks virtual stages; virtual
 * stage i is chunk i / stages of stage i % stages. */
struct simulation_input {
    struct schedule_shape shape;       /* that passes schedule_check */
    const double *forward_s;           /* [V] */
    const double *backward_s;          /* [V] */
    const double *forward_transfer_s;  /* [V - 1]: of the output of virtual stage i to i + 1 */
    const double *backward_transfer_s; /* [V - 1]: of the gradient of virtual stage i + 1 to i */
    /* [V]: what of backward_s the gradients of the weights take; read under zb-h1 alone. */
    const double *weights_s;
};

struct simulated_action {
    struct schedule_action action;
    double start_s, end_s; /* from the start of the step */
};

struct simulated_stage {
    struct simulated_action *actions; /* in the order of the schedule */
    size_t count;
    double busy_s; /* sum of the actions' times */
    double idle_s; /* makespan - busy: the bubble, transfers that were waited for included */
    double end_s;  /* of the last action */
};

struct simulation {
    struct simulated_stage *stages; /* [stage_count], owned */
    int stage_count;
    double makespan_s; /* from the start of the first action to the end of the last */
};

/* Takes time and memory in proportion to the number of actions. Lists that wait for each other are
 * STATUS_FAILED. */
enum status simulate(const struct simulation_input *input, struct simulation *out,
                     struct error *err);
void simulation_free(struct simulation *simulation); /* a zeroed one is allowed */

#endif
