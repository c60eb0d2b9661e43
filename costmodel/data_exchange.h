/* What the devices that replicate a stage exchange: gradients, and parameters under ZeRO
 * (Rajbhandari et al. 2020). */
#ifndef TEMPER_COSTMODEL_DATA_EXCHANGE_H
#define TEMPER_COSTMODEL_DATA_EXCHANGE_H

#include "costmodel/layer_pass.h"

struct data_exchange {
    struct tier_ring shard;    /* of the devices that ZeRO divides state over */
    struct tier_ring replicas; /* of those that hold the same shard */
    double parameter_bytes;    /* of one element as it is gathered */
    double gradient_bytes;     /* of one element as it is reduced */
};

/* Of a stage whose devices are of this group. */
struct data_exchange data_exchange(const struct node_group *group, const struct layout *layout);
/* The same of its experts: an expert has `expert` times fewer replicas than other weights, that
 * many times further apart, and ZeRO divides it over as many times fewer devices. */
struct data_exchange expert_exchange(const struct node_group *group, const struct layout *layout);

/* Each over `parameters` elements of a device; 0 where there is nobody to exchange with. */
double gradient_reduce_s(const struct data_exchange *exchange, const struct layout *layout,
                         double parameters);
/* Does each of both take no longer under `a` than under `b`, for any number of parameters from
 * `least` to `most`? They are linear in it, so that the ends tell. */
bool exchange_covers(const struct data_exchange *a, const struct data_exchange *b,
                     const struct layout *layout, double least, double most);
double parameter_gather_s(const struct data_exchange *exchange, double parameters);

#endif
