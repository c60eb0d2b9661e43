#include "support.h"

#include "ir/event.h"
#include "ir/quantity.h"

static void test_quantity__names_parse_back(void **state)
{
    (void)state;
    for (int p = 0; p < PROVENANCE_COUNT; p++) {
        enum provenance parsed;
        assert_true(provenance_parse(provenance_name((enum provenance)p), &parsed));
        assert_int_equal(parsed, p);
    }
    enum provenance untouched = PROVENANCE_MODELLED;
    assert_false(provenance_parse("guessed", &untouched));
    assert_false(provenance_parse("", &untouched));
    assert_int_equal(untouched, PROVENANCE_MODELLED);
}

static void test_quantity__sum_adds_variances(void **state)
{
    (void)state;
    struct quantity a = {3.0, 0.3, PROVENANCE_MEASURED};
    struct quantity b = {4.0, 0.4, PROVENANCE_MEASURED};
    struct quantity sum = quantity_add(a, b);
    assert_near(sum.value, 7.0, 1e-12);
    assert_near(sum.deviation, 0.5, 1e-12);
    assert_int_equal(sum.provenance, PROVENANCE_MEASURED);
}

static void test_quantity__worse_provenance_stays(void **state)
{
    (void)state;
    for (int p = 0; p < PROVENANCE_COUNT; p++) {
        for (int q = 0; q < PROVENANCE_COUNT; q++) {
            struct quantity a = {1.0, 0.0, (enum provenance)p};
            struct quantity b = {2.0, 0.0, (enum provenance)q};
            assert_int_equal(quantity_add(a, b).provenance, p > q ? p : q);
        }
    }
}

static void test_quantity__absent_swallows(void **state)
{
    (void)state;
    struct quantity a = {1.0, 0.5, PROVENANCE_MEASURED};
    assert_int_equal(quantity_add(a, quantity_absent()).provenance, PROVENANCE_ABSENT);
    assert_int_equal(quantity_scale(quantity_absent(), 3.0).provenance, PROVENANCE_ABSENT);
}

static void test_quantity__repetition_scales_value_and_deviation(void **state)
{
    (void)state;
    struct quantity a = {2.0, 0.5, PROVENANCE_INTERPOLATED};
    struct quantity scaled = quantity_scale(a, 4.0);
    assert_near(scaled.value, 8.0, 0.0);
    assert_near(scaled.deviation, 2.0, 0.0);
    assert_int_equal(scaled.provenance, PROVENANCE_INTERPOLATED);
    assert_true(quantity_scale(a, -1.0).deviation > 0.0);
}

static void test_quantity__event_streams_have_names(void **state)
{
    (void)state;
    assert_string_equal(event_stream_name(STREAM_COMPUTE), "compute");
    assert_string_equal(event_stream_name(STREAM_COMM), "comm");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantity__names_parse_back),
        cmocka_unit_test(test_quantity__sum_adds_variances),
        cmocka_unit_test(test_quantity__worse_provenance_stays),
        cmocka_unit_test(test_quantity__absent_swallows),
        cmocka_unit_test(test_quantity__repetition_scales_value_and_deviation),
        cmocka_unit_test(test_quantity__event_streams_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
