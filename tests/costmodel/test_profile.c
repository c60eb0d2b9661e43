#include "costmodel/profile.h"
#include "rows.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct series_key key = {
    .subject = "attention/x", .metric = METRIC_FORWARD_S, .placement = {2, 1}};

static struct measurement at(int64_t micro_batch, double mean)
{
    return (struct measurement){.subject = "attention/x",
                                .metric = METRIC_FORWARD_S,
                                .ranks = 2,
                                .threads = 1,
                                .micro_batch = micro_batch,
                                .mean = mean,
                                .deviation = 0.1 * mean};
}

static void expect(const struct profile *profile, int64_t micro_batch, double value,
                   double deviation, enum provenance provenance)
{
    struct quantity found = profile_at_micro_batch(profile, &key, micro_batch);
    if (!near(found.value, value) || !near(found.deviation, deviation) ||
        found.provenance != provenance)
        fail_msg("at %lld: %g +- %g (%s), expected %g +- %g (%s)", (long long)micro_batch,
                 found.value, found.deviation, provenance_name(found.provenance), value, deviation,
                 provenance_name(provenance));
}

static void test_profile__interpolates_between_and_beyond_sizes(void **state)
{
    (void)state;
    static struct rows rows;
    rows.count = 0;
    add_row(&rows, at(8, 5.0)); /* out of order on purpose */
    add_row(&rows, at(2, 1.0));
    add_row(&rows, at(4, 2.0));
    struct profile *profile = open_rows(&rows);
    expect(profile, 2, 1.0, 0.1, PROVENANCE_MEASURED);
    expect(profile, 8, 5.0, 0.5, PROVENANCE_MEASURED);
    expect(profile, 3, 1.5, 0.15, PROVENANCE_INTERPOLATED);
    expect(profile, 6, 3.5, 0.35, PROVENANCE_INTERPOLATED);
    expect(profile, 12, 8.0, 0.8, PROVENANCE_INTERPOLATED);
    expect(profile, 1, 0.5, 0.05, PROVENANCE_INTERPOLATED);
    profile_close(profile);
}

static void test_profile__extrapolation_stays_sensible(void **state)
{
    (void)state;
    static struct rows rows;
    rows.count = 0;
    add_row(&rows, at(4, 2.0)); /* noise: more work took less time */
    add_row(&rows, at(8, 1.8));
    struct profile *profile = open_rows(&rows);
    expect(profile, 16, 1.8, 0.18, PROVENANCE_INTERPOLATED);
    profile_close(profile);
    rows.count = 0;
    add_row(&rows, at(4, 1.0)); /* faster than proportional: the line would cross zero */
    add_row(&rows, at(8, 4.0));
    profile = open_rows(&rows);
    expect(profile, 1, 0.25, 0.025, PROVENANCE_INTERPOLATED);
    profile_close(profile);
}

static void test_profile__one_size_is_proportional(void **state)
{
    (void)state;
    static struct rows rows;
    rows.count = 0;
    add_row(&rows, at(4, 2.0))->provenance = PROVENANCE_MODELLED;
    struct profile *profile = open_rows(&rows);
    expect(profile, 4, 2.0, 0.2, PROVENANCE_MODELLED);
    expect(profile, 6, 3.0, 0.3, PROVENANCE_MODELLED);
    expect(profile, 1, 0.5, 0.05, PROVENANCE_MODELLED);
    profile_close(profile);
}

static void test_profile__nothing_is_absent_not_zero(void **state)
{
    (void)state;
    static struct rows rows;
    rows.count = 0;
    add_row(&rows, at(4, 2.0))->provenance = PROVENANCE_ABSENT;
    add_row(&rows, at(4, 2.0))->threads = 2;
    struct profile *profile = open_rows(&rows);
    assert_int_equal(profile_at_micro_batch(profile, &key, 4).provenance, PROVENANCE_ABSENT);
    assert_int_equal(profile_value(profile, &key).provenance, PROVENANCE_ABSENT);
    profile_close(profile);
    profile = NULL;
    rows.count = 0;
    profile = open_rows(&rows);
    assert_int_equal(profile_at_bytes(profile, &key, 4).provenance, PROVENANCE_ABSENT);
    assert_int_equal(profile_placements(profile, NULL, 0), 0);
    profile_close(profile);
}

static void test_profile__newest_row_of_a_key_counts(void **state)
{
    (void)state;
    static struct rows rows;
    rows.count = 0;
    add_row(&rows, at(4, 7.0))->measured_unix_ms = 2000;
    add_row(&rows, at(4, 2.0))->measured_unix_ms = 1000;
    struct profile *profile = open_rows(&rows);
    expect(profile, 4, 7.0, 0.7, PROVENANCE_MEASURED);
    profile_close(profile);
}

static void test_profile__refuses_figures_that_cannot_be(void **state)
{
    (void)state;
    static const double wrong[] = {-1.0, NAN, INFINITY};
    for (size_t i = 0; i < 3; i++) {
        struct measurement row = at(4, 1.0);
        struct profile *profile = NULL;
        struct error err;
        row.mean = wrong[i];
        row.deviation = 0;
        assert_int_equal(profile_from_rows(&profile, &row, 1, "testhost", &err), STATUS_INVALID);
        assert_non_null(strstr(err.message, "attention/x"));
        row.mean = 1;
        row.deviation = wrong[i];
        assert_int_equal(profile_from_rows(&profile, &row, 1, "testhost", &err), STATUS_INVALID);
        assert_null(profile);
    }
}

static void test_profile__hash_is_of_content_not_order(void **state)
{
    (void)state;
    static struct rows rows;
    rows.count = 0;
    add_row(&rows, at(2, 1.0));
    add_row(&rows, at(4, 2.0));
    struct profile *a = open_rows(&rows);
    rows.count = 0;
    add_row(&rows, at(4, 2.0));
    add_row(&rows, at(2, 1.0));
    struct profile *b = open_rows(&rows);
    rows.items[0].mean = nextafter(2.0, 3.0);
    struct profile *c = open_rows(&rows);
    assert_true(profile_hash(a) == profile_hash(b));
    assert_false(profile_hash(a) == profile_hash(c));
    profile_close(a);
    profile_close(b);
    profile_close(c);
}

static void test_profile__lists_placements_in_order(void **state)
{
    (void)state;
    static struct rows rows;
    struct model model = small_model();
    struct placement placements[2] = {{0, 0}, {0, 0}};
    rows.count = 0;
    add_model_rows(&rows, &model, (struct placement){2, 1});
    struct measurement other = at(4, 1.0);
    other.ranks = 1;
    other.threads = 2;
    add_row(&rows, other);
    struct profile *profile = open_rows(&rows);
    assert_int_equal(profile_placements(profile, placements, 2), 2);
    assert_int_equal(placements[0].ranks, 1);
    assert_int_equal(placements[0].threads, 2);
    assert_int_equal(placements[1].ranks, 2);
    assert_int_equal(profile_placements(profile, placements, 1), 2);
    assert_int_equal(profile_largest_micro_batch(profile, "attention/x", placements[0]), 4);
    assert_int_equal(profile_largest_micro_batch(profile, "mlp/x", placements[0]), 0);
    char mlp[LAYER_KEY_BYTES];
    layer_key(&model, LAYER_MLP, mlp);
    assert_true(profile_covers(profile, mlp, PRECISION_BF16, (struct placement){2, 1}));
    assert_false(profile_covers(profile, mlp, PRECISION_BF16, (struct placement){1, 2}));
    assert_false(profile_covers(profile, "attention/x", PRECISION_FP32, (struct placement){1, 2}));
    profile_close(profile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile__interpolates_between_and_beyond_sizes),
        cmocka_unit_test(test_profile__extrapolation_stays_sensible),
        cmocka_unit_test(test_profile__one_size_is_proportional),
        cmocka_unit_test(test_profile__nothing_is_absent_not_zero),
        cmocka_unit_test(test_profile__newest_row_of_a_key_counts),
        cmocka_unit_test(test_profile__refuses_figures_that_cannot_be),
        cmocka_unit_test(test_profile__hash_is_of_content_not_order),
        cmocka_unit_test(test_profile__lists_placements_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
