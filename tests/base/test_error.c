#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include <string.h>

static void test_error__set_fills_and_returns_the_status(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(error_set(&err, STATUS_IO, "line %d of %s", 7, "a"), STATUS_IO);
    assert_int_equal(err.status, STATUS_IO);
    assert_string_equal(err.message, "line 7 of a");
}

static void test_error__prefix_keeps_status_and_message(void **state)
{
    (void)state;
    struct error err;
    (void)error_set(&err, STATUS_CORRUPT, "wrong checksum");
    assert_int_equal(error_prefix(&err, "file %s", "x"), STATUS_CORRUPT);
    assert_string_equal(err.message, "file x: wrong checksum");
}

static void test_error__arguments_may_be_the_message_itself(void **state)
{
    (void)state;
    struct error err;
    (void)error_set(&err, STATUS_IO, "inner");
    (void)error_set(&err, STATUS_FAILED, "outer (%s)", err.message);
    assert_string_equal(err.message, "outer (inner)");
    (void)error_prefix(&err, "%s", err.message);
    assert_string_equal(err.message, "outer (inner): outer (inner)");
}

static void test_error__long_messages_are_cut_not_overrun(void **state)
{
    (void)state;
    struct error err;
    char longer[3 * ERROR_MESSAGE_BYTES];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    (void)error_set(&err, STATUS_IO, "%s", longer);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
    (void)error_prefix(&err, "%s", longer);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
    (void)error_set(&err, STATUS_IO, "short");
    (void)error_prefix(&err, "%.*s", ERROR_MESSAGE_BYTES - 3, longer);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
}

static void test_error__control_bytes_do_not_reach_the_terminal(void **state)
{
    (void)state;
    struct error err;
    (void)error_set(&err, STATUS_INVALID, "key '%s'", "\x1b[2Jgone\x7f!");
    assert_string_equal(err.message, "key '?[2Jgone?!'");
    (void)error_prefix(&err, "%s", "\x1b]0;");
    assert_string_equal(err.message, "?]0;: key '?[2Jgone?!'");
    (void)error_set(&err, STATUS_INVALID, "two\n\tlines, \xc3\xa9");
    assert_string_equal(err.message, "two\n\tlines, \xc3\xa9");
}

static void test_error__memory_names_size_and_purpose(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(error_memory(&err, 12, "weights"), STATUS_MEMORY);
    assert_string_equal(err.message, "out of memory allocating 12 bytes for weights");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error__set_fills_and_returns_the_status),
        cmocka_unit_test(test_error__prefix_keeps_status_and_message),
        cmocka_unit_test(test_error__arguments_may_be_the_message_itself),
        cmocka_unit_test(test_error__long_messages_are_cut_not_overrun),
        cmocka_unit_test(test_error__control_bytes_do_not_reach_the_terminal),
        cmocka_unit_test(test_error__memory_names_size_and_purpose),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
