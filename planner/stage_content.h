/* For planner/stage_*.c: one content of a stage, so many blocks of each class, and what makes an
 * option of one of its mixes. */
#ifndef TEMPER_PLANNER_STAGE_CONTENT_H
#define TEMPER_PLANNER_STAGE_CONTENT_H

#include "planner/shape.h"

struct content {
    struct option_list *list;
    struct stage_entry entry;  /* with every class at its first kind */
    struct stage_work slowest; /* its mix of the slowest modes */
};

/* Into its device, its host and the caps. */
bool stage_fits(const struct shape *shape, const struct stage_memory *memory);
/* kinds [BLOCK_KINDS_MAX]: blocks of each. */
void stage_set_kinds(const struct shape *shape, const uint16_t *kinds, struct stage_entry *entry);
/* `entry` has these kinds set, `memory` is its. */
struct stage_option stage_price_mix(struct shape *shape, const struct stage_entry *entry,
                                    const struct stage_work *slowest, const uint16_t *kinds,
                                    const struct stage_memory *memory);
/* Has the list an option that, whatever other stages there are, can replace this one? */
bool stage_option_is_replaced(const struct shape *shape, const struct option_list *list,
                              const struct stage_option *option);
/* Unless one of the list replaces it; those that it replaces go. */
enum status stage_offer_option(struct shape *shape, struct option_list *list,
                               const struct stage_option *option, struct error *err);

#endif
