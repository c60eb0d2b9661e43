/* What one stage of a shape can be: the mixes of modes that its blocks can have, priced by the cost
 * model, of which those stay that no other replaces in every layout. */
#ifndef TEMPER_PLANNER_STAGE_OPTIONS_H
#define TEMPER_PLANNER_STAGE_OPTIONS_H

#include "planner/shape.h"

/* Of items first .. end - 1 on this stage, priced when first asked for. *index: of the list. */
enum status stage_options_find(struct shape *shape, size_t stage, size_t first, size_t end,
                               size_t *index, struct error *err);
/* Have the limits been reached? */
bool shape_is_cut(struct shape *shape);

#endif
