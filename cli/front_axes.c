#include "cli/front_axes.h"

#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

const struct front_axis_row front_axis_rows[FRONT_AXIS_COUNT] = {
    {"time", FRONT_TIME, AXIS_SECONDS},    {"memory", FRONT_MEMORY, AXIS_BYTES},
    {"energy", FRONT_ENERGY, AXIS_JOULES}, {"cost", FRONT_COST, AXIS_PLAIN},
    {"carbon", FRONT_CARBON, AXIS_GRAMS},
};

static enum status refuse_axes(const char *text, unsigned allowed, struct error *err)
{
    if (allowed == FRONT_MEASURED)
        return error_set(err, STATUS_USAGE,
                         "option --pareto: '%s' is not two or three of time, memory, energy, such "
                         "as time,memory; cost and carbon go with --cluster",
                         text);
    return error_set(err, STATUS_USAGE,
                     "option --pareto: '%s' is not two or more of time, memory, energy, cost, "
                     "carbon, such as time,memory",
                     text);
}

enum status front_axes_parse(const char *text, unsigned allowed, unsigned *out, struct error *err)
{
    const char *at = text;
    *out = 0;
    for (;;) {
        size_t length = strcspn(at, ",");
        unsigned axis = 0;
        for (size_t i = 0; i < FRONT_AXIS_COUNT; i++) {
            const struct front_axis_row *row = &front_axis_rows[i];
            if (strlen(row->name) == length && memcmp(row->name, at, length) == 0)
                axis = row->axis & allowed;
        }
        if (axis == 0 || (*out & axis) != 0)
            return refuse_axes(text, allowed, err);
        *out |= axis;
        if (at[length] == '\0')
            break;
        at += length + 1;
    }
    return (*out & (*out - 1)) == 0 ? refuse_axes(text, allowed, err) : STATUS_OK;
}

void front_axes_words(unsigned axes, char *out, size_t bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < FRONT_AXIS_COUNT; i++) {
        if (!(axes & front_axis_rows[i].axis) || used >= bytes)
            continue;
        bool is_last = (axes >> (i + 1)) == 0;
        int written = snprintf(out + used, bytes - used, "%s%s",
                               used == 0 ? ""
                               : is_last ? " and "
                                         : ", ",
                               front_axis_rows[i].name);
        used += written > 0 ? (size_t)written : 0;
    }
}

/* The first of `order` that is among `*axes`, which loses it; NULL: none. */
static const struct front_axis_row *take(const enum front_axis order[FRONT_AXIS_COUNT],
                                         unsigned *axes)
{
    for (size_t i = 0; i < FRONT_AXIS_COUNT; i++) {
        for (size_t k = 0; (*axes & order[i]) != 0 && k < FRONT_AXIS_COUNT; k++) {
            if (front_axis_rows[k].axis != order[i])
                continue;
            *axes &= ~(unsigned)order[i];
            return &front_axis_rows[k];
        }
    }
    return NULL;
}

struct front_view front_view_of(unsigned axes)
{
    static const enum front_axis upwards[] = {FRONT_TIME, FRONT_COST, FRONT_ENERGY, FRONT_CARBON,
                                              FRONT_MEMORY};
    static const enum front_axis right[] = {FRONT_MEMORY, FRONT_ENERGY, FRONT_CARBON, FRONT_COST,
                                            FRONT_TIME};
    struct front_view view;
    view.y = take(upwards, &axes);
    view.x = take(right, &axes);
    view.shade = take(right, &axes);
    return view;
}
