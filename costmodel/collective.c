#include "costmodel/collective.h"

#include <assert.h>
#include <stdio.h>

static const char *const names[COLLECTIVE_COUNT] = {
    [COLLECTIVE_ALL_REDUCE] = "all-reduce",
    [COLLECTIVE_ALL_GATHER] = "all-gather",
    [COLLECTIVE_REDUCE_SCATTER] = "reduce-scatter",
    [COLLECTIVE_POINT_TO_POINT] = "point-to-point",
    [COLLECTIVE_TENSOR_ALL_GATHER] = "tensor-all-gather",
    [COLLECTIVE_TENSOR_REDUCE_SCATTER] = "tensor-reduce-scatter",
};

const char *collective_subject(enum collective collective, struct collective_group group,
                               char subject[SUBJECT_BYTES])
{
    if (collective == COLLECTIVE_POINT_TO_POINT)
        (void)snprintf(subject, SUBJECT_BYTES, "%s/x%d", names[collective], group.apart);
    else
        (void)snprintf(subject, SUBJECT_BYTES, "%s/n%d/x%d", names[collective], group.ways,
                       group.apart);
    return subject;
}

static struct quantity measured(const struct profile *profile, struct placement placement,
                                enum collective collective, struct collective_group group,
                                uint64_t bytes)
{
    char subject[SUBJECT_BYTES];
    const struct series_key key = {
        .subject = collective_subject(collective, group, subject),
        .metric = METRIC_LINK_S,
        .placement = placement,
    };
    return profile_at_bytes(profile, &key, (int64_t)bytes);
}

/* A pair of ranks whose distance does not tile the placement, such as the first and the last of
 * three stages, is measured by nobody: the widest distance within it that was stands for it. */
static struct quantity nearest_pair(const struct profile *profile, struct placement placement,
                                    enum collective collective, struct collective_group group,
                                    uint64_t bytes)
{
    struct quantity seconds = quantity_absent();
    while (seconds.provenance == PROVENANCE_ABSENT && --group.apart >= 1)
        seconds = measured(profile, placement, collective, group, bytes);
    if (seconds.provenance < PROVENANCE_INTERPOLATED)
        seconds.provenance = PROVENANCE_INTERPOLATED;
    return seconds;
}

struct quantity cost_collective(const struct profile *profile, struct placement placement,
                                enum collective collective, struct collective_group group,
                                uint64_t bytes)
{
    assert(group.ways >= 1);
    if (group.ways == 1 || bytes == 0)
        return (struct quantity){.value = 0};
    struct quantity seconds = measured(profile, placement, collective, group, bytes);
    if (seconds.provenance == PROVENANCE_ABSENT && collective == COLLECTIVE_TENSOR_ALL_GATHER)
        return cost_collective(profile, placement, COLLECTIVE_ALL_GATHER, group, bytes);
    if (seconds.provenance == PROVENANCE_ABSENT && collective == COLLECTIVE_TENSOR_REDUCE_SCATTER)
        return cost_collective(profile, placement, COLLECTIVE_REDUCE_SCATTER, group, bytes);
    bool tiles = placement.ranks % (group.ways * group.apart) == 0;
    if (collective == COLLECTIVE_POINT_TO_POINT)
        tiles = placement.ranks % group.apart == 0;
    bool is_pair = group.ways == 2 && group.apart < placement.ranks;
    if (seconds.provenance == PROVENANCE_ABSENT && is_pair && !tiles)
        return nearest_pair(profile, placement, collective, group, bytes);
    return seconds;
}
