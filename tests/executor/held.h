/* Random plans, and layouts of them that hold known values: for the tests of what moves tensors
 * between plans. */
#ifndef TEMPER_TESTS_EXECUTOR_HELD_H
#define TEMPER_TESTS_EXECUTOR_HELD_H

#include "executor/layout.h"
#include "executor/shard_copy.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "gpt2" or a llama builtin, in a size of tests: 2 blocks, hidden 8, 16 tokens, padded when split
 * by 3 or more than 16. `vocab` 0: 16. */
struct model held_model(const char *builtin, bool tied, int64_t vocab);
/* One rank, fp32, ZeRO 0. Release with plan_clear. */
struct plan held_plan_of_one(const struct model *model);
/* Any plan for so many ranks: the same for the same `seed`. Degrees, stages, chunks, ZeRO stages
 * and precisions differ by layer. Release with plan_clear. */
struct plan held_plan_random(const struct model *model, int ranks, uint64_t seed);

/* The arrays that a rank keeps between steps, all 0, without activations. `plan` is borrowed. */
void held_open(struct memory_layout *out, struct device *device, const struct plan *plan, int rank,
               bool with_moments);
void held_close(struct memory_layout *layout);
/* Every element as held_value says; what is padding stays as it is. */
void held_fill(struct memory_layout *layout, int64_t step);
/* Fails the test unless all arrays are the same in every bit. */
void held_assert_same(const struct memory_layout *a, const struct memory_layout *b);

/* Of element `index` of a whole tensor. */
float held_value(const struct tensor_place *place, enum tensor_array array, int64_t step,
                 uint64_t index);

#endif
