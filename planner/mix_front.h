/* Of blocks that are alike but for their backward passes and what they keep for them, the spreads
 * over modes that no other replaces: the multiple-choice knapsack's points of bytes and seconds,
 * all of them, where planner/mix_chain.h has those of its linear relaxation. */
#ifndef TEMPER_PLANNER_MIX_FRONT_H
#define TEMPER_PLANNER_MIX_FRONT_H

#include "planner/stage_mixes.h"

enum { MIX_GROUP_KINDS = RECOMPUTE_COUNT, MIX_LEVELS_MAX = BLOCK_KINDS_MAX };

/* Kinds of one class that are equal in every measure but MIX_BACKWARD, MIX_KEPT, MIX_WORKING. What
 * waits on the host is in a group of its own. */
struct mix_group {
    size_t class;
    size_t kinds[MIX_GROUP_KINDS]; /* [kind_count] */
    size_t kind_count;
};

/* The kinds of a class without those that another one of it covers (mix_covers); of quicker forward
 * passes first. Where energy counts its measures must be equal, too. Returns how many. */
size_t mix_groups(const struct kind_measures *kinds, unsigned admitted, size_t class,
                  struct mix_group out[BLOCK_KINDS_MAX]);

/* What so many items of a group keep, on the device, and how long they take backward. */
struct mix_point {
    double kept, backward_s;
    uint16_t items[MIX_GROUP_KINDS];
};

/* Zero-initialise; release with mix_front_free. */
struct mix_front {
    struct mix_point *points; /* [count], owned: of more bytes and fewer seconds from one on */
    size_t count;
    bool is_built;
};
void mix_front_free(struct mix_front *front);

/* Items of `item_blocks` blocks each, of the kinds that need at most `working` bytes while they
 * work. No point: there is no such kind, but items. */
enum status mix_front_build(const struct kind_measures *kinds, const struct mix_group *group,
                            unsigned items, unsigned item_blocks, double working,
                            struct mix_front *out, struct error *err);

/* One point of each of `fronts` [count], none of them empty, of at most so many bytes together and
 * as few seconds as such can have: their indices in chosen [count]. *found false: all keep more. */
enum status mix_fronts_least(const struct mix_front *const *fronts, size_t count, double bytes,
                             size_t *chosen, bool *found, struct error *err);

#endif
