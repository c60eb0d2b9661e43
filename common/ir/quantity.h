/* A figure that knows how far to trust it. */
#ifndef TEMPER_IR_QUANTITY_H
#define TEMPER_IR_QUANTITY_H

/* In the order of trust, best first: combining two quantities keeps the worse provenance. */
enum provenance {
    PROVENANCE_MEASURED,     /* timed or counted on the hardware at hand */
    PROVENANCE_INTERPOLATED, /* between or beyond measured points */
    PROVENANCE_MODELLED,     /* from a formula or a figure that the user gave */
    PROVENANCE_ABSENT,       /* not known; `value` means nothing and is never printed as 0 */
    PROVENANCE_COUNT
};

struct quantity {
    double value;
    double deviation; /* one standard deviation, in the same unit */
    enum provenance provenance;
};

const char *provenance_name(enum provenance provenance); /* "measured", ... */
/* False for an unknown name. */
_Bool provenance_parse(const char *name, enum provenance *out);

struct quantity quantity_absent(void);
/* Sums of independent quantities: deviations add in quadrature, the worse provenance stays. */
struct quantity quantity_add(struct quantity a, struct quantity b);
/* `count` repetitions of the same uncertain thing: value and deviation scale alike. */
struct quantity quantity_scale(struct quantity a, double count);

#endif
