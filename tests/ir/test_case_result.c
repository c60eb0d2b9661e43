#include "support.h"

#include "ir/case_result.h"
#include <math.h>

static struct quantity known(double value)
{
    return (struct quantity){.value = value, .provenance = PROVENANCE_MEASURED};
}

/* Measured 10, 20 and 40 s, predicted 11, 19 and none; memory measured once, 10 % under, energy
 * once, 10 % over; the third ran out of memory as predicted, the fourth is skipped, the fifth ran
 * although refused. */
static struct run_case rows[5];
static const struct case_result results[5] = {
    {.time_s = {11, 0, PROVENANCE_MODELLED},
     .memory_bytes = {90, 0, PROVENANCE_MODELLED},
     .energy_j = {880, 0, PROVENANCE_MODELLED},
     .fits = true},
    {.time_s = {19, 0, PROVENANCE_MODELLED},
     .memory_bytes = {50, 0, PROVENANCE_MODELLED},
     .fits = true},
    {.time_s = {40, 0, PROVENANCE_MODELLED},
     .memory_bytes = {500, 0, PROVENANCE_MODELLED},
     .fits = false},
    {.time_s = {0, 0, PROVENANCE_ABSENT}, .memory_bytes = {0, 0, PROVENANCE_ABSENT}, .fits = false},
    {.time_s = {30, 0, PROVENANCE_MODELLED},
     .memory_bytes = {300, 0, PROVENANCE_MODELLED},
     .fits = false},
};

static struct run_cases made(void)
{
    memset(rows, 0, sizeof(rows));
    for (size_t i = 0; i < COUNT(rows); i++) {
        rows[i].line = i + 2;
        rows[i].step_s = rows[i].memory_bytes = rows[i].energy_j = quantity_absent();
    }
    rows[0].step_s = known(10);
    rows[0].memory_bytes = known(100);
    rows[0].energy_j = known(800);
    rows[1].step_s = known(20);
    rows[2].out_of_memory = true;
    rows[3].step_s = known(1);
    snprintf(rows[3].skipped, CASE_TEXT_BYTES, "column 'tp' is empty");
    rows[4].step_s = known(20);
    return (struct run_cases){.name = "made", .rows = rows, .count = COUNT(rows)};
}

/* Errors +10 %, -5 % and +50 %: 65 / 3 in size, 55 / 3 with their signs. */
static void test_case_summary__errors(void **state)
{
    (void)state;
    struct run_cases cases = made();
    struct case_summary summary = case_summarise(&cases, results);
    assert_int_equal(summary.rows, 5);
    assert_int_equal(summary.skipped, 1);
    assert_int_equal(summary.time.count, 3);
    assert_near(summary.time.mean_absolute, 0.65 / 3, 1e-12);
    assert_near(summary.time.mean, 0.55 / 3, 1e-12);
    assert_near(summary.time.worst, 0.5, 1e-12);
    assert_int_equal(summary.time.worst_index, 4);
    assert_int_equal(summary.memory.count, 1);
    assert_int_equal(summary.energy.count, 1);
    assert_near(summary.energy.mean, 0.1, 1e-12);
    assert_near(summary.memory.mean_absolute, 0.1, 1e-12);
    assert_near(summary.memory.worst, -0.1, 1e-12);
}

static void test_case_summary__out_of_memory(void **state)
{
    (void)state;
    struct run_cases cases = made();
    struct case_summary summary = case_summarise(&cases, results);
    assert_int_equal(summary.judged, 4);
    assert_int_equal(summary.agreed, 3);
    assert_int_equal(summary.failed, 1);
    assert_int_equal(summary.missed, 0);
    assert_int_equal(summary.refused, 1);
    assert_near(case_agreement(&summary), 0.75, 1e-12);
}

static void test_case_summary__of_nothing_is_not_zero(void **state)
{
    (void)state;
    struct run_cases cases = made();
    struct run_cases none = {.rows = rows, .count = 0};
    struct case_summary summary = case_summarise(&none, results);
    assert_true(isnan(summary.time.mean_absolute) && isnan(summary.time.worst));
    assert_true(isnan(case_agreement(&summary)));
    assert_true(isnan(case_error(results[3].time_s, cases.rows[0].step_s)));
    assert_true(isnan(case_error(known(1), quantity_absent())));
    assert_true(isnan(case_error(known(1), known(0))));
}

static void test_case_reasons__are_counted_once(void **state)
{
    (void)state;
    struct run_cases cases = made();
    struct case_reason reasons[4];
    snprintf(rows[0].skipped, CASE_TEXT_BYTES, "column 'gbs' is empty");
    snprintf(rows[4].skipped, CASE_TEXT_BYTES, "column 'gbs' is empty");
    assert_int_equal(case_reasons(&cases, reasons, 4), 2);
    assert_string_equal(reasons[0].text, "column 'gbs' is empty");
    assert_int_equal(reasons[0].rows, 2);
    assert_int_equal(reasons[0].first_line, 2);
    assert_int_equal(reasons[1].rows, 1);
    assert_int_equal(reasons[1].first_line, 5);
    assert_int_equal(case_reasons(&cases, reasons, 1), 1);
    assert_string_equal(reasons[0].text, "other reasons");
    assert_int_equal(reasons[0].rows, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_case_summary__errors),
        cmocka_unit_test(test_case_summary__out_of_memory),
        cmocka_unit_test(test_case_summary__of_nothing_is_not_zero),
        cmocka_unit_test(test_case_reasons__are_counted_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
