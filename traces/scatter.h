/* Points in a plane, numbered, as an SVG file of its own that any browser or paper takes: light,
 * and dark where the reader's system is. */
#ifndef TEMPER_TRACES_SCATTER_H
#define TEMPER_TRACES_SCATTER_H

#include "base/error.h"
#include "base/text.h"
#include "traces/svg.h"
#include <stddef.h>

struct scatter_point {
    double x, y;
    double shade;      /* 0 .. 1 of the third quantity, NAN: there is none */
    bool is_hollow;    /* a ring, of another kind than the dots: see scatter.hollow */
    const char *label; /* beside the dot where there is room; plain text, escaped here; borrowed */
    const char *words; /* shown under the pointer; likewise */
    const char *note;  /* in place of the label, of a point that stands out; NULL: none; likewise */
};

struct scatter_dot {
    double x, y;
};

struct scatter {
    const char *title;
    const char *note;                   /* one line below the title */
    struct axis x, y;                   /* axis_fit */
    const struct scatter_point *points; /* [count], by rising x, borrowed */
    size_t count;
    /* [rest_count], faint and without words behind the points; those outside the axes are left out,
     * and so are those that would lie on one that is drawn. NULL: none. Borrowed. */
    const struct scatter_dot *rest;
    size_t rest_count;
    bool has_stairs;             /* falling steps through the points: what they leave undominated */
    const char *filled, *hollow; /* words for dots and for rings; NULL: no legend of them */
    const char *shade_low, *shade_high; /* words for the ends of the third quantity; NULL: none */
};

/* STATUS_MEMORY only. */
enum status scatter_append(const struct scatter *scatter, struct text *out, struct error *err);

#endif
