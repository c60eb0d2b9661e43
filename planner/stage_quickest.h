/* Options of a content where time alone counts. Of blocks of one class and one arithmetic all have
 * the same forward pass; how many of each arithmetic there are (and how many go to the host) is a
 * split of the content. Of the mixes of a split the one that fits and has the shortest backward
 * pass replaces all others: a split is one option at most, found exactly by planner/mix_front.h. */
#ifndef TEMPER_PLANNER_STAGE_QUICKEST_H
#define TEMPER_PLANNER_STAGE_QUICKEST_H

#include "planner/stage_content.h"

/* Does time alone count, and are splits times points no more than this? */
bool stage_quickest_serves(struct shape *shape, const struct content *content, double work_most);
enum status stage_quickest_price(struct shape *shape, const struct content *content,
                                 struct error *err);

/* What is remembered of one group of devices. */
struct front_table;
void front_table_free(struct front_table *table); /* NULL allowed */

#endif
