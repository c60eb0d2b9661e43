#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"

static void test_clock__never_runs_backwards(void **state)
{
    (void)state;
    int64_t last_ns = clock_ns();
    for (int i = 0; i < 100000; i++) {
        int64_t now_ns = clock_ns();
        assert_true(now_ns >= last_ns);
        last_ns = now_ns;
    }
}

static void test_clock__seconds_and_nanoseconds_agree(void **state)
{
    (void)state;
    int64_t before_ns = clock_ns();
    double between_s = clock_s();
    int64_t after_ns = clock_ns();
    assert_true(between_s >= (double)before_ns * 1e-9 - 1e-6);
    assert_true(between_s <= (double)after_ns * 1e-9 + 1e-6);
}

static void test_clock__wall_clock_is_in_milliseconds_of_this_century(void **state)
{
    (void)state;
    assert_true(clock_unix_ms() > INT64_C(1577836800000)); /* 2020 */
    assert_true(clock_unix_ms() < INT64_C(4102444800000)); /* 2100 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock__never_runs_backwards),
        cmocka_unit_test(test_clock__seconds_and_nanoseconds_agree),
        cmocka_unit_test(test_clock__wall_clock_is_in_milliseconds_of_this_century),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
