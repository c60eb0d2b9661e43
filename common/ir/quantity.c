#include "ir/quantity.h"

#include "ir/names.h"
#include <math.h>

static const char *const provenances[PROVENANCE_COUNT] = {
    [PROVENANCE_MEASURED] = "measured",
    [PROVENANCE_INTERPOLATED] = "interpolated",
    [PROVENANCE_MODELLED] = "modelled",
    [PROVENANCE_ABSENT] = "absent",
};
const struct name_list provenance_names = {provenances, PROVENANCE_COUNT};

const char *provenance_name(enum provenance provenance)
{
    return name_of(&provenance_names, provenance);
}

_Bool provenance_parse(const char *name, enum provenance *out)
{
    unsigned value;
    if (!name_parse(&provenance_names, name, &value))
        return 0;
    *out = (enum provenance)value;
    return 1;
}

struct quantity quantity_absent(void)
{
    return (struct quantity){.provenance = PROVENANCE_ABSENT};
}

struct quantity quantity_add(struct quantity a, struct quantity b)
{
    if (a.provenance == PROVENANCE_ABSENT || b.provenance == PROVENANCE_ABSENT)
        return quantity_absent();
    return (struct quantity){
        .value = a.value + b.value,
        .deviation = hypot(a.deviation, b.deviation),
        .provenance = a.provenance > b.provenance ? a.provenance : b.provenance,
    };
}

struct quantity quantity_scale(struct quantity a, double count)
{
    if (a.provenance == PROVENANCE_ABSENT)
        return quantity_absent();
    return (struct quantity){
        .value = a.value * count,
        .deviation = a.deviation * fabs(count),
        .provenance = a.provenance,
    };
}
