/* How the blocks of a stage can be spread over modes. Blocks of one class are alike, so what a
 * stage has of a class is a count of each mode, a mix. Of the mixes of n blocks those are kept that
 * no other is as good as in every respect: what a stage costs falls in none of them. Longer passes
 * may hide more communication, but never more than they add; where they may (hide_most in
 * planner/stage_columns.c) the search takes what the slowest of all would hide. */
#ifndef TEMPER_PLANNER_STAGE_MIXES_H
#define TEMPER_PLANNER_STAGE_MIXES_H

#include "costmodel/layout_memory.h"
#include "costmodel/layout_step.h"

/* What mixes are compared by; all but the last add up over blocks. */
enum mix_measure {
    MIX_FORWARD,   /* seconds of a micro-batch */
    MIX_BACKWARD,  /* likewise */
    MIX_KEPT,      /* bytes of a micro-batch on the device */
    MIX_AWAY,      /* and on the host */
    MIX_FP8,       /* elements with copies in 8 bit */
    MIX_PRODUCTS,  /* seconds of a micro-batch that draw power, by kind; 0 where energy weighs 0 */
    MIX_TRAFFIC,   /* likewise */
    MIX_EXCHANGES, /* likewise */
    MIX_WEIGHTS,   /* seconds of a micro-batch's gradients of weights under zb-h1, else 0: they may
                      wait   and hide messages, so that neither less nor more of them is better */
    MIX_WORKING,   /* bytes while a block works: the most of any */
    MIX_MEASURES
};

struct mix {
    uint16_t kinds[BLOCK_KINDS_MAX];
    double measures[MIX_MEASURES];
};

/* Zero-initialise; release with mix_set_free. */
struct mix_set {
    struct mix *items; /* [count], owned */
    size_t count, capacity;
};
void mix_set_free(struct mix_set *set);

/* The measures of one block of each kind. */
struct kind_measures {
    size_t count;
    double of[BLOCK_KINDS_MAX][MIX_MEASURES];
};
void kind_measures_fill(const struct stage_prices *prices, const struct stage_bytes *bytes,
                        bool energy_counts, struct kind_measures *out);

/* Under zb-h1: alike in MIX_WEIGHTS and MIX_FORWARD but for rounding? Of the three parts of a
 * micro-batch's work each may hide behind another, so that no order of these two tells. */
bool mix_same_split(const struct mix *a, const struct mix *b);

/* Fills the measures of its kinds. */
void mix_measure(const struct kind_measures *kinds, struct mix *mix);
/* Is `a` no worse in any measure, and stays so with whatever blocks are added to both? */
bool mix_covers(const struct kind_measures *kinds, const struct mix *a, const struct mix *b);

/* One mix of no block. */
enum status mix_set_begin(struct mix_set *out, struct error *err);
/* `from` and `blocks` blocks more, all of one mode, of one of `kinds` (bits). */
enum status mix_set_extend(const struct kind_measures *kinds, const struct mix_set *from,
                           unsigned admitted, unsigned blocks, struct mix_set *out,
                           struct error *err);
/* Every mix of a with every one of b. */
enum status mix_set_join(const struct kind_measures *kinds, const struct mix_set *a,
                         const struct mix_set *b, struct mix_set *out, struct error *err);

#endif
