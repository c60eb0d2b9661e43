#include "costmodel/collective.h"
#include "rows.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static const struct placement four = {4, 1};

static struct profile *open_small(void)
{
    static struct rows rows;
    struct model model = small_model();
    rows.count = 0;
    add_model_rows(&rows, &model, four);
    return open_rows(&rows);
}

static void test_collective__subjects(void **state)
{
    (void)state;
    static const struct {
        enum collective collective;
        struct collective_group group;
        const char *subject;
    } cases[] = {
        {COLLECTIVE_ALL_REDUCE, {2, 1}, "all-reduce/n2/x1"},
        {COLLECTIVE_ALL_GATHER, {4, 2}, "all-gather/n4/x2"},
        {COLLECTIVE_REDUCE_SCATTER, {16, 8}, "reduce-scatter/n16/x8"},
        {COLLECTIVE_POINT_TO_POINT, {2, 4}, "point-to-point/x4"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char subject[SUBJECT_BYTES];
        assert_string_equal(collective_subject(cases[i].collective, cases[i].group, subject),
                            cases[i].subject);
    }
}

static void test_collective__extrapolates_latency_and_bandwidth(void **state)
{
    (void)state;
    struct profile *profile = open_small();
    static const uint64_t sizes[] = {8, 1000, 5000, 1000000, 400000000};
    for (int collective = 0; collective <= COLLECTIVE_POINT_TO_POINT; collective++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
            struct quantity time_s = cost_collective(profile, four, (enum collective)collective,
                                                     (struct collective_group){2, 3}, sizes[i]);
            assert_true(
                near(time_s.value, link_s((enum collective)collective, 2, 3, (double)sizes[i])));
            bool is_row = sizes[i] == 1000 || sizes[i] == 1000000;
            assert_int_equal(time_s.provenance,
                             is_row ? PROVENANCE_MEASURED : PROVENANCE_INTERPOLATED);
        }
    }
    profile_close(profile);
}

static void test_collective__alone_or_empty_takes_no_time(void **state)
{
    (void)state;
    struct profile *profile = open_small();
    struct quantity alone =
        cost_collective(profile, four, COLLECTIVE_ALL_REDUCE, (struct collective_group){1, 9}, 64);
    struct quantity empty =
        cost_collective(profile, four, COLLECTIVE_ALL_REDUCE, (struct collective_group){9, 1}, 0);
    assert_true(alone.value == 0 && alone.provenance == PROVENANCE_MEASURED);
    assert_true(empty.value == 0 && empty.provenance == PROVENANCE_MEASURED);
    profile_close(profile);
}

/* Another size of group, distance or placement is no substitute. */
static void test_collective__unmeasured_group_is_absent(void **state)
{
    (void)state;
    struct profile *profile = open_small();
    const struct {
        struct placement placement;
        struct collective_group group;
    } cases[] = {{four, {3, 1}}, {four, {4, 9}}, {{8, 1}, {2, 1}}, {{4, 2}, {2, 1}}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_int_equal(
            cost_collective(profile, cases[i].placement, COLLECTIVE_ALL_GATHER, cases[i].group, 64)
                .provenance,
            PROVENANCE_ABSENT);
    profile_close(profile);
}

static struct profile *open_row(const char *subject)
{
    struct measurement row = {
        .metric = METRIC_LINK_S, .ranks = 4, .threads = 1, .bytes = 1000, .mean = 0.25, .n = 1};
    struct profile *profile = NULL;
    struct error err;
    (void)snprintf(row.subject, sizeof(row.subject), "%s", subject);
    assert_int_equal(profile_from_rows(&profile, &row, 1, "host", &err), STATUS_OK);
    return profile;
}

/* The ends of three ranks in a row: what the next narrower pair takes. */
static void test_collective__untiled_pair_takes_the_nearest(void **state)
{
    (void)state;
    struct profile *profile = open_row("all-reduce/n2/x2");
    const struct collective_group ends = {2, 3}, beyond = {2, 4};
    struct quantity time_s = cost_collective(profile, four, COLLECTIVE_ALL_REDUCE, ends, 1000);
    assert_true(near(time_s.value, 0.25));
    assert_int_equal(time_s.provenance, PROVENANCE_INTERPOLATED);
    assert_int_equal(cost_collective(profile, four, COLLECTIVE_ALL_REDUCE, beyond, 1000).provenance,
                     PROVENANCE_ABSENT);
    profile_close(profile);
}

/* A tensor-parallel collective has rows of its own, or takes what the plain one does. */
static void test_collective__tensor_parallel_falls_back(void **state)
{
    (void)state;
    const struct collective_group pair = {2, 1};
    struct profile *own = open_row("tensor-all-gather/n2/x1"), *plain = open_small();
    assert_true(
        near(cost_collective(own, four, COLLECTIVE_TENSOR_ALL_GATHER, pair, 1000).value, 0.25));
    assert_true(near(cost_collective(plain, four, COLLECTIVE_TENSOR_ALL_GATHER, pair, 1000).value,
                     link_s(COLLECTIVE_ALL_GATHER, 2, 1, 1000)));
    assert_true(
        near(cost_collective(plain, four, COLLECTIVE_TENSOR_REDUCE_SCATTER, pair, 1000).value,
             link_s(COLLECTIVE_REDUCE_SCATTER, 2, 1, 1000)));
    profile_close(own);
    profile_close(plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collective__subjects),
        cmocka_unit_test(test_collective__extrapolates_latency_and_bandwidth),
        cmocka_unit_test(test_collective__alone_or_empty_takes_no_time),
        cmocka_unit_test(test_collective__unmeasured_group_is_absent),
        cmocka_unit_test(test_collective__untiled_pair_takes_the_nearest),
        cmocka_unit_test(test_collective__tensor_parallel_falls_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
