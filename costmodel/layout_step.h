/* A step of a layout, put together from its layers' passes: stages, pipeline, and what the
 * data-parallel devices exchange. Shared by layout_time.c and layout_energy.c. */
#ifndef TEMPER_COSTMODEL_LAYOUT_STEP_H
#define TEMPER_COSTMODEL_LAYOUT_STEP_H

#include "costmodel/data_exchange.h"
#include "costmodel/layout_parts.h"

/* What stages on devices of one group are put together from: each kind of block, and the tables. */
struct stage_prices {
    const struct layout *layout;
    struct layout_share share;
    struct data_exchange exchange, expert_exchange;
    size_t kind_count;
    struct pass_time kinds[BLOCK_KINDS_MAX][PASS_COUNT];
    double parameters[BLOCK_KINDS_MAX]; /* of a block's matrices, on one device */
    double experts[BLOCK_KINDS_MAX];    /* of them, of experts */
    double away_bytes[BLOCK_KINDS_MAX]; /* of a micro-batch, that wait on the host */
    double message_s;                   /* to the next stage and back; 0 of one stage */
    struct pass_time embedding[PASS_COUNT], head[PASS_COUNT];
};
/* `layers` are of the layout's view. */
void stage_prices_fill(struct layer_prices *layers, const struct layout *layout,
                       const struct block_kind *kinds, size_t kind_count, struct stage_prices *out);

/* Stages of one entry of a list. */
struct stage_work {
    double count;
    size_t group;                      /* of the cluster's */
    double blocks;                     /* of one of them */
    double matrices;                   /* elements of its blocks' matrices on one device */
    double experts;                    /* of them, of experts */
    double tables;                     /* embedding, head: each a vocab x hidden */
    double parameters;                 /* that one device holds: matrices and tables */
    struct pass_time pass[PASS_COUNT]; /* of one micro-batch, all chunks */
    double pass_s[PASS_COUNT];
    double weights_s; /* of the backward pass: gradients of blocks' weights, which zb-h1 puts off */
    double message_s; /* a micro-batch's way to the next stage and back */
    double away_bytes; /* of a micro-batch, that wait on the host */
    /* Of one micro-batch, exposed: what ZeRO 3 gathers and scatters; waiting for the host. */
    double gather_s, scatter_s, host_s;
    /* Once a step, exposed: gradients, and parameters after the update. */
    double reduce_s, renew_s;
    double optimizer_s;
};
/* `entry` counts the prices' kinds. */
void stage_work_fill(const struct stage_prices *prices, const struct stage_entry *entry,
                     struct stage_work *out);
/* Of one micro-batch, both passes and what ZeRO 3 and the host's link expose. */
double stage_work_s(const struct stage_work *stage);

/* How a stage's work makes up the time of the pipeline: the sum of fill_s over the stages, once,
 * and the largest repeat_s. */
struct stage_span {
    double fill_s, repeat_s;
};
struct stage_span stage_span(const struct layout *layout, const struct stage_work *stage);

struct layout_step {
    const struct layout *layout;
    struct stage_prices prices[CLUSTER_GROUPS_MAX]; /* of the groups that stages stand on */
    struct stage_work stages[LAYOUT_STAGES_MAX];
    size_t stage_count;
    size_t slowest; /* of the stages */
    double micro_batches;
    double transfer_s;  /* sum of the waits for neighbours' messages in a step */
    double pipeline_s;  /* from the first forward to the last backward pass, transfers included */
    double reduce_s;    /* exposed, once a step */
    double gather_s;    /* exposed, once a step */
    double optimizer_s; /* of the device that has most to do */
    double step_s;
};

void layout_step(const struct layout_parts *parts, struct layout_step *out);
/* The step of stages that are filled already, with the layout and the prices of their groups. */
void layout_step_join(const struct cluster *cluster, struct layout_step *step);

#endif
