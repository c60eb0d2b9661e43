/* The columns of one shape: every stage, interval of blocks and mix of modes that fits and could be
 * part of a layout below the threshold, priced by the cost model. See planner/tailor.h. */
#ifndef TEMPER_PLANNER_STAGE_COLUMNS_H
#define TEMPER_PLANNER_STAGE_COLUMNS_H

#include "planner/columns.h"
#include "planner/shape.h"

/* Append the columns of layouts whose objective may be below `threshold`. None: there is no such
 * layout, unless lacks_floors or is_cut. A column's label is the index of its option, its cost
 * INFINITY where none is known that fits but a floor is. */
enum status shape_columns(struct shape *shape, double threshold, struct columns *out,
                          struct error *err);
/* Give the columns the floors of their options, and back what they are. */
void shape_take_floors(const struct shape *shape, struct columns *columns);
void shape_take_options(const struct shape *shape, struct columns *columns);
/* The chosen columns' [stages] blocks and modes. */
void shape_assign(const struct shape *shape, const struct columns *columns, const size_t *chosen,
                  struct block_mode *modes, int64_t *stage_blocks);

#endif
