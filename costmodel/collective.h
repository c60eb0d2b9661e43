/* What the ranks exchange: the measured time of a collective or a message. */
#ifndef TEMPER_COSTMODEL_COLLECTIVE_H
#define TEMPER_COSTMODEL_COLLECTIVE_H

#include "costmodel/profile.h"

enum collective {
    COLLECTIVE_ALL_REDUCE,
    COLLECTIVE_ALL_GATHER,
    COLLECTIVE_REDUCE_SCATTER,
    COLLECTIVE_POINT_TO_POINT,
    /* Inside layers and between neighbours of different spread: blocking, of the whole array at
     * once. Where they were not measured, the plain ones stand for them. */
    COLLECTIVE_TENSOR_ALL_GATHER,
    COLLECTIVE_TENSOR_REDUCE_SCATTER,
    COLLECTIVE_COUNT
};

/* Groups of `ways` ranks, each `apart` in rank from the next in its group, all groups of the
 * placement at once; `ways` is 2 of a message between two ranks. */
struct collective_group {
    int ways, apart;
};

/* The subject that it is measured under: "all-reduce/n2/x1", "point-to-point/x4". Returns
 * `subject`. */
const char *collective_subject(enum collective collective, struct collective_group group,
                               char subject[SUBJECT_BYTES]);

/* Seconds, with nothing to hide them. `bytes` of the whole array: reduced, gathered, before it is
 * scattered, or of the message. Nothing to move or a group of one rank takes no time; absent where
 * this group was not measured in this placement. A pair whose distance does not tile the placement
 * takes what the next narrower measured pair does. */
struct quantity cost_collective(const struct profile *profile, struct placement placement,
                                enum collective collective, struct collective_group group,
                                uint64_t bytes);

#endif
