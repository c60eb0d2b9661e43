/* What the tests of groups share: the group of all ranks and data that each rank can predict. */
#ifndef TEMPER_TESTS_COMM_HARNESS_H
#define TEMPER_TESTS_COMM_HARNESS_H

#include "base/hash.h"
#include "base/rng.h"
#include "executor/comm/comm_ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct error err_ = {0};                                                                   \
        if ((call) != STATUS_OK)                                                                   \
            fail_msg("%s: %s", #call, err_.message);                                               \
    } while (0)

/* What rank r contributes at index i. Small integers: their fp32 sums are exact in any order. */
static inline float exact_value(int rank, size_t index)
{
    return (float)((int)((index * 31 + (size_t)rank * 17) % 251) - 125);
}

/* Magnitudes over six decades: sums differ in their last bits with the order. */
static inline float rough_value(int rank, size_t index)
{
    double u = rng_uniform(7, (uint64_t)rank, index);
    return (float)((u - 0.5) * pow(10.0, (double)(index % 7) - 3.0));
}

static const float SENTINEL = 12345.0F; /* behind the end of what `filled` gives */

static inline float *filled(int rank, size_t count, float (*value)(int rank, size_t index))
{
    float *data = malloc((count + 1) * sizeof(*data));
    assert_non_null(data);
    for (size_t i = 0; i < count; i++)
        data[i] = value(rank, i);
    data[count] = SENTINEL;
    return data;
}

/* All ranks of the group hold the same bits: the greatest and the least of their hashes agree. */
static inline void expect_same_bits(struct comm *group, const void *data, size_t bytes)
{
    int64_t hash = (int64_t)(hash_bytes(data, bytes) >> 1);
    int64_t extremes[2] = {hash, -hash};
    OK(comm_all_reduce_max_i64(group, extremes, 2, &err_));
    assert_int_equal(extremes[0], -extremes[1]);
}

#endif
