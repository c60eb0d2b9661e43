/* Dice, and a profile of random measurements for a small real model. */
#ifndef TEMPER_TESTS_PLANNER_FIXTURE_H
#define TEMPER_TESTS_PLANNER_FIXTURE_H

#include "costmodel/profile.h"
#include "ir/model.h"
#include <stdbool.h>
#include <stdint.h>

struct dice {
    uint64_t seed, index;
};
uint64_t roll(struct dice *dice, uint64_t bound); /* 0 .. bound - 1 */
double roll_real(struct dice *dice);              /* [0, 1) */
bool roll_true(struct dice *dice, uint64_t one_in);

struct profile_options {
    struct placement placements[4];
    size_t placement_count;
    int64_t micro_batches[4]; /* ascending, measured */
    size_t micro_batch_count;
    bool bf16;
    bool fp16;
    bool energy;
    bool tiled;  /* attention in tiles, too */
    bool plain;  /* nothing was measured for recomputation and parts of layers */
    bool narrow; /* selective recompute was measured of plain attention alone, as it was once */
    bool even;   /* all layers and precisions take the same, selective recompute nothing more */
};

/* gpt2-like, `blocks` blocks of width 32. */
struct model tiny_model(int64_t blocks, bool tied_head);
/* Fails the test on any error; close with profile_close. */
struct profile *random_profile(struct dice *dice, const struct model *model,
                               const struct profile_options *options);

#endif
