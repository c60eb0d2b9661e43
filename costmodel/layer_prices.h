/* What layers cost on devices of one group and keep there, computed once for all layouts that have
 * the same layers. Most layouts of a search differ in what their layers do not see: stages,
 * replicas, ZeRO. Remembered figures are those that are computed afresh, bit for bit. */
#ifndef TEMPER_COSTMODEL_LAYER_PRICES_H
#define TEMPER_COSTMODEL_LAYER_PRICES_H

#include "costmodel/layer_bytes.h"

/* Of one kind of block. */
struct block_prices {
    struct block_kind kind;
    double parameters; /* of its matrices, on one device */
    double experts;    /* of them, of experts */
    struct layer_bytes bytes;
    double late_bytes; /* late_weight_bytes; 0 but under zb-h1 */
    bool has_passes;   /* computed when first asked for */
    struct pass_time pass[PASS_COUNT];
};

enum { LAYER_PRICES_KINDS = 12 }; /* recompute modes, with and without experts and offload */

/* Of the layers of one view on one group. Made by layer_prices_start, in place: it is not copied.
 */
struct layer_prices {
    const struct node_group *group;
    struct layout view;
    struct layout_share share; /* of the view */
    struct layer_bytes head_bytes;
    bool has_tables; /* computed when first asked for */
    struct pass_time embedding[PASS_COUNT], head[PASS_COUNT];
    size_t kind_count;
    struct block_prices kinds[LAYER_PRICES_KINDS]; /* [kind_count], in the order of asking */
};

/* A layout as its layers see it: what they must not depend on is 0. */
struct layout layer_view(const struct layout *layout);

/* Group and model are borrowed as long as `out` is used. */
void layer_prices_start(const struct node_group *group, const struct model *model,
                        const struct layout *layout, struct layer_prices *out);
/* `spare` takes it where there is no room left to remember; valid as long as both. */
const struct block_prices *layer_prices_block(struct layer_prices *prices,
                                              const struct block_kind *kind,
                                              struct block_prices *spare);
/* The same with its passes. */
const struct block_prices *layer_prices_passes(struct layer_prices *prices,
                                               const struct block_kind *kind,
                                               struct block_prices *spare);
/* Fills embedding and head. */
void layer_prices_tables(struct layer_prices *prices);

/* Those of many views of one model, for one thread. Owned by who prices the layouts. */
struct layer_memory;
/* NULL: out of memory. */
struct layer_memory *layer_memory_new(const struct model *model);
void layer_memory_free(struct layer_memory *memory); /* NULL allowed */
/* Of this layout's view on this group, as far as they are computed; valid until the memory is
 * freed. NULL: there is no room for another one. */
struct layer_prices *layer_memory_prices(struct layer_memory *memory,
                                         const struct node_group *group,
                                         const struct layout *layout);

#endif
