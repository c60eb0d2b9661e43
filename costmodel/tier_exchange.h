/* Seconds of an all-to-all over the described links of a node group: every member of a group sends
 * an equal part of what it has to every other, one after the other (the pairwise exchange of Thakur
 * et al. 2005, section 4.4: (n - 1) alpha + bytes beta), over links of different rates at the same
 * time. */
#ifndef TEMPER_COSTMODEL_TIER_EXCHANGE_H
#define TEMPER_COSTMODEL_TIER_EXCHANGE_H

#include "costmodel/tier_collective.h"

/* What an all-to-all over one group costs; for many sizes over the same group. */
struct tier_exchange {
    int64_t ways;
    double latency_s; /* of all messages of one member */
    double byte_s;    /* of one byte that a member has, to itself included */
};

struct tier_exchange tier_exchange(const struct node_group *group, struct tier_group of);

/* `bytes` that each member has before (and after) the exchange. 0 for one way or no bytes. */
double all_to_all_s(const struct tier_exchange *exchange, double bytes);

#endif
