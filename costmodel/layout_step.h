/* A step of a layout, put together from its layers' passes: stages, pipeline, and what the
 * data-parallel devices exchange. Shared by layout_time.c and layout_energy.c. */
#ifndef TEMPER_COSTMODEL_LAYOUT_STEP_H
#define TEMPER_COSTMODEL_LAYOUT_STEP_H

#include "costmodel/layer_pass.h"

/* Stages are of three makes. With one stage all of it is the first. */
enum stage_make { STAGE_FIRST, STAGE_MIDDLE, STAGE_LAST, STAGE_MAKE_COUNT };

struct stage_work {
    double count;                      /* stages of that make */
    double blocks;                     /* of one of them */
    double tables;                     /* embedding, head: each a vocab x hidden */
    double parameters;                 /* that one device holds */
    struct pass_time pass[PASS_COUNT]; /* of one micro-batch, all chunks */
    double pass_s[PASS_COUNT];
    /* Of one micro-batch, exposed: what ZeRO 3 gathers and scatters. */
    double gather_s, scatter_s;
};

struct layout_step {
    struct layout_share share;
    struct stage_work stages[STAGE_MAKE_COUNT];
    enum stage_make slowest;
    double micro_batches;
    double transfer_s;  /* sum of the waits for neighbours' messages in a step */
    double pipeline_s;  /* from the first forward to the last backward pass, transfers included */
    double reduce_s;    /* exposed, once a step */
    double gather_s;    /* exposed, once a step */
    double optimizer_s; /* of the device that holds most */
    double step_s;
};

void layout_step(const struct cluster *cluster, const struct model *model,
                 const struct layout *layout, struct layout_step *out);
/* Of one micro-batch, both passes and what ZeRO 3 exposes. */
double stage_work_s(const struct stage_work *stage);

#endif
