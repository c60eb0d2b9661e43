#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/reporter.h"
#include <string.h>

struct heard {
    size_t done, total;
    char what[64];
    char warning[2048];
};

static void hear_progress(void *user, const char *what, size_t done, size_t total)
{
    struct heard *heard = user;
    heard->done = done;
    heard->total = total;
    strncpy(heard->what, what, sizeof(heard->what) - 1);
}

static void hear_warning(void *user, const char *message)
{
    struct heard *heard = user;
    strncpy(heard->warning, message, sizeof(heard->warning) - 1);
}

static void test_reporter__passes_on_what_it_is_told(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct reporter reporter = {&heard, hear_progress, hear_warning};
    report_progress(&reporter, "linear", 3, 9);
    report_warning(&reporter, "%d ranks on %d cores", 4, 2);
    assert_string_equal(heard.what, "linear");
    assert_int_equal(heard.done, 3);
    assert_int_equal(heard.total, 9);
    assert_string_equal(heard.warning, "4 ranks on 2 cores");
}

static void test_reporter__nobody_listening_is_fine(void **state)
{
    (void)state;
    struct reporter deaf = {0};
    report_progress(NULL, "x", 1, 2);
    report_warning(NULL, "x");
    report_progress(&deaf, "x", 1, 2);
    report_warning(&deaf, "x");
}

static void test_reporter__long_warnings_are_cut(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct reporter reporter = {&heard, NULL, hear_warning};
    report_warning(&reporter, "%5000d", 1);
    assert_true(strlen(heard.warning) > 500);
    assert_true(strlen(heard.warning) < 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reporter__passes_on_what_it_is_told),
        cmocka_unit_test(test_reporter__nobody_listening_is_fine),
        cmocka_unit_test(test_reporter__long_warnings_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
