#include "costmodel/tier_collective.h"

#include <assert.h>
#include <math.h>

/* Share of hidden communication's time by which it slows the compute that hides it: it takes some
 * of the processors and of the memory's rate. */
static const double contention_share = 0.1;

/* How many members of the group stand in a domain of so many neighbours, at least one. */
static double members_in(struct tier_group of, int64_t devices)
{
    int64_t members = devices / of.apart;
    if (members < 1)
        return 1;
    return (double)(members < of.ways ? members : of.ways);
}

/* A ring enters and leaves a domain once, over the links of all its members that are in there: each
 * of them drives one ring of its own (NCCL's channels). */
struct tier_ring tier_ring(const struct node_group *group, struct tier_group of)
{
    struct tier_ring ring = {.ways = of.ways, .bytes_s = INFINITY};
    const struct link_tier *widest = of.ways > 1 ? node_group_tier(group, of.ways, of.apart) : NULL;
    double ways = (double)of.ways, inside = 1; /* members in a domain of the tier before */
    if (widest == NULL)
        return ring;
    for (const struct link_tier *tier = group->tiers; tier <= widest; tier++) {
        double members = tier == widest ? ways : members_in(of, tier->devices);
        if (members > inside || tier == widest) {
            double bytes_s = tier->bytes_s * tier->share * inside;
            ring.bytes_s = bytes_s < ring.bytes_s ? bytes_s : ring.bytes_s;
            /* hops over this tier, once around the ring */
            ring.latency_s += tier->latency_s * (ways / inside - ways / members);
        }
        inside = members;
    }
    return ring;
}

double ring_all_gather_s(const struct tier_ring *ring, double bytes)
{
    if (ring->ways <= 1 || bytes <= 0)
        return 0;
    double others = (double)(ring->ways - 1) / (double)ring->ways;
    return ring->latency_s + others * bytes / ring->bytes_s;
}

double ring_reduce_scatter_s(const struct tier_ring *ring, double bytes)
{
    return ring_all_gather_s(ring, bytes);
}

double ring_all_reduce_s(const struct tier_ring *ring, double bytes)
{
    return 2 * ring_all_gather_s(ring, bytes);
}

double ring_message_s(const struct tier_ring *ring, double bytes)
{
    if (ring->ways <= 1 || bytes <= 0)
        return 0;
    return ring->latency_s / (double)(ring->ways - 1) + bytes / ring->bytes_s;
}

double exposed_s(double whole_s, double hides_s)
{
    double hidden_s = whole_s < hides_s ? whole_s : hides_s;
    return whole_s - (1 - contention_share) * hidden_s;
}
