/* Mixes of many blocks over many modes, where all that no other covers are too many to try: a chain
 * of them from the leanest to the quickest, each with one item more in a quicker mode.
 *
 * Least seconds within so many bytes, one mode an item, is the multiple-choice knapsack problem.
 * Its linear relaxation is solved by taking of each class the lower hull of its modes in the plane
 * of bytes and seconds, and the hulls' edges in the order of seconds saved per byte (Sinha and
 * Zoltners 1979): the optimum at any memory lies between two neighbours of the chain. */
#ifndef TEMPER_PLANNER_MIX_CHAIN_H
#define TEMPER_PLANNER_MIX_CHAIN_H

#include "costmodel/stage_list.h"
#include <stdint.h>

/* What one item of each kind adds to its stage; of the kinds of some class only. */
struct chain_prices {
    double bytes[BLOCK_KINDS_MAX], seconds[BLOCK_KINDS_MAX];
};

/* Items that may each be of one of some kinds; no kind is of two classes. */
struct chain_class {
    unsigned kinds; /* bits, at least one */
    unsigned items;
};

/* An edge of a hull: so many items, one after the other, from one kind to another. */
struct chain_edge {
    size_t from, to;
    unsigned items;
    double bytes, seconds; /* that one item adds and saves, both above 0 */
};

struct mix_chain {
    uint16_t leanest[BLOCK_KINDS_MAX];        /* items of each kind where the chain begins */
    double least_bytes, most_s;               /* of that mix */
    struct chain_edge edges[BLOCK_KINDS_MAX]; /* [edge_count], what saves most per byte first */
    size_t edge_count;
    size_t count; /* mixes, at least one */
};

void mix_chain_build(const struct chain_prices *prices, const struct chain_class *classes,
                     size_t class_count, struct mix_chain *out);
/* Items of each kind of the mix `index` < count. */
void mix_chain_at(const struct mix_chain *chain, size_t index, uint16_t items[BLOCK_KINDS_MAX]);
/* No mix of at most so many bytes takes fewer seconds; INFINITY: there is none. */
double mix_chain_least_s(const struct mix_chain *chain, double bytes);

#endif
