/* Seconds of collectives over the described links of a node group: rings of latency and bandwidth
 * (Thakur et al. 2005), as NCCL builds them over domains of links of different rates. */
#ifndef TEMPER_COSTMODEL_TIER_COLLECTIVE_H
#define TEMPER_COSTMODEL_TIER_COLLECTIVE_H

#include "ir/cluster.h"

/* `ways` devices that are `apart`, while all other devices do the same among themselves. */
struct tier_group {
    int64_t ways, apart;
};

/* What a collective over one group costs; for many sizes over the same group. */
struct tier_ring {
    int64_t ways;
    double latency_s; /* of once around */
    double bytes_s;   /* of one device in one direction, at most; INFINITY for one way */
};

struct tier_ring tier_ring(const struct node_group *group, struct tier_group of);

/* `bytes` of the whole array. 0 for one way or no bytes. */
double ring_all_gather_s(const struct tier_ring *ring, double bytes);
double ring_reduce_scatter_s(const struct tier_ring *ring, double bytes);
double ring_all_reduce_s(const struct tier_ring *ring, double bytes);
/* From one device to the next of the group. */
double ring_message_s(const struct tier_ring *ring, double bytes);

/* What `whole_s` of communication beside `hides_s` of independent compute adds to a step: all that
 * finds nothing to hide behind, and a tenth of the rest, by which it slows that compute. */
double exposed_s(double whole_s, double hides_s);

#endif
