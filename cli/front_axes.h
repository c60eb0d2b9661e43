/* The axes of `--pareto`: names, how they are drawn, which of them two dimensions show. */
#ifndef TEMPER_CLI_FRONT_AXES_H
#define TEMPER_CLI_FRONT_AXES_H

#include "planner/front.h"
#include "traces/svg.h"

struct front_axis_row {
    const char *name; /* "time" */
    enum front_axis axis;
    enum axis_unit unit;
};
/* By rising bit of enum front_axis. */
enum { FRONT_AXIS_COUNT = 5 };
extern const struct front_axis_row front_axis_rows[FRONT_AXIS_COUNT];

/* "time,memory" as bits of `allowed`, at least two of them; a wrong text is STATUS_USAGE. */
enum status front_axes_parse(const char *text, unsigned allowed, unsigned *out, struct error *err);
/* "time, memory and energy" */
void front_axes_words(unsigned axes, char *out, size_t bytes);

/* What is drawn upwards, to the right, and (NULL: nothing) as a shade. */
struct front_view {
    const struct front_axis_row *x, *y, *shade;
};
struct front_view front_view_of(unsigned axes);

#endif
