#include "costmodel/tier_exchange.h"

#include <math.h>

/* Members of the group that stand in a tier's domain, at least one. */
static double members_in(struct tier_group of, const struct link_tier *tier)
{
    int64_t members = tier->devices / of.apart;
    return fmin(fmax((double)members, 1), (double)of.ways);
}

struct tier_exchange tier_exchange(const struct node_group *group, struct tier_group of)
{
    struct tier_exchange exchange = {.ways = of.ways};
    const struct link_tier *widest = node_group_tier(group, of.ways, of.apart);
    double inside = 1; /* members in a domain of the tier before: they need not go over this one */
    if (of.ways <= 1 || widest == NULL)
        return exchange;
    for (const struct link_tier *tier = group->tiers; tier <= widest; tier++) {
        double members = tier == widest ? (double)of.ways : members_in(of, tier);
        double part = (members - inside) / (double)of.ways;
        exchange.byte_s = fmax(exchange.byte_s, part / (tier->bytes_s * tier->share));
        exchange.latency_s += tier->latency_s * (members - inside);
        inside = members;
    }
    return exchange;
}

double all_to_all_s(const struct tier_exchange *exchange, double bytes)
{
    if (exchange->ways <= 1 || bytes <= 0)
        return 0;
    return exchange->latency_s + bytes * exchange->byte_s;
}
