/* What the devices of one stage hold. layout_memory() asks for every stage of a layout; a search
 * that tries what a stage may have asks for that one. */
#ifndef TEMPER_COSTMODEL_LAYOUT_MEMORY_H
#define TEMPER_COSTMODEL_LAYOUT_MEMORY_H

#include "costmodel/layout_parts.h"

/* Of a parameter on one device. */
struct state_bytes {
    double parameters, gradients, optimizer;
};

/* What stages on devices of one group are put together from. */
struct stage_bytes {
    struct layout_share share;
    struct state_bytes state, expert_state;
    struct layer_bytes head;
    double process;
    const struct block_kind *kinds; /* [kind_count], borrowed */
    size_t kind_count;
    struct layer_bytes blocks[BLOCK_KINDS_MAX];
    double matrices[BLOCK_KINDS_MAX]; /* elements of a block's matrices on one device */
    double late[BLOCK_KINDS_MAX]; /* bytes that zb-h1 keeps for a block's gradients of weights */
};
/* `layers` are of the layout's view. */
void stage_bytes_fill(struct layer_prices *layers, const struct layout *layout,
                      const struct block_kind *kinds, size_t kind_count, struct stage_bytes *out);

/* Bytes of one device. */
struct stage_memory {
    double terms[MEMORY_TERM_COUNT];
    double sum;
    double cached;            /* of it: what the allocator can give back */
    double device_bytes;      /* that the device has */
    double host_bytes;        /* what offload puts on the device's share of the host */
    double host_memory_bytes; /* that share */
};
/* Of the first stage of the entry, which of its stages has most micro-batches in flight; under
 * zb-h1 of the first or the last of them. */
void stage_memory_fill(const struct stage_bytes *bytes, const struct stage_entry *entry,
                       struct stage_memory *out);
/* One standard deviation of the sum. */
double stage_memory_deviation(const struct stage_memory *memory);

#endif
