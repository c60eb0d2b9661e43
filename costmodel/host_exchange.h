/* What a device exchanges with its host where activations or the optimizer's state are kept there
 * (`offload_activations`, `offload_optimizer` of a layout). Equations and sources stand in
 * docs/layout-model.md, "Offload". The device type says how fast link and host are. */
#ifndef TEMPER_COSTMODEL_HOST_EXCHANGE_H
#define TEMPER_COSTMODEL_HOST_EXCHANGE_H

#include "costmodel/layer_pass.h"

/* Of one device, for one micro-batch. */
struct host_load {
    double away_bytes; /* activations that leave after the forward pass and come back before the
                          backward pass */
    double owned;      /* parameters whose optimizer state the device owns */
    double hides_s[PASS_COUNT]; /* of a pass, work that transfers can go on beside */
};

/* Seconds of a micro-batch that the device waits for its host; 0 of a layout without offload. */
double host_wait_s(const struct layout_share *share, const struct host_load *load);
/* Seconds of the optimizer's step on the host, gradients and parameters on their way included. */
double host_update_s(const struct layout_share *share, double owned);
/* On the host, of a parameter whose optimizer state the device owns. */
double host_state_bytes(const struct layout *layout);

#endif
