#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/text.h"
#include <stdlib.h>
#include <string.h>

static void test_text__starts_as_nothing(void **state)
{
    (void)state;
    struct text text = {0};
    struct error err;
    assert_int_equal(text_check(&text, &err), STATUS_OK);
    text_append(&text, "");
    assert_string_equal(text.data, "");
    assert_int_equal(text.bytes, 0);
    text_free(&text);
    assert_null(text.data);
}

static void test_text__grows_across_every_length(void **state)
{
    (void)state;
    struct text text = {0};
    char expected[2001] = "";
    for (size_t i = 0; i < 2000; i++) {
        char c = (char)('a' + i % 26);
        text_append_bytes(&text, &c, 1);
        expected[i] = c;
        assert_int_equal(text.bytes, i + 1);
        assert_memory_equal(text.data, expected, i + 2);
    }
    text_free(&text);
}

static void test_text__printf_fits_at_every_boundary(void **state)
{
    (void)state;
    for (int used = 0; used < 300; used++)
        for (int width = 250 - used; width < 262 - used; width++) {
            struct text text = {0};
            if (width < 1)
                continue;
            text_printf(&text, "%*s", used, "");
            text_printf(&text, "%0*d", width, 5);
            int expected = (used > 0 ? used : 0) + width;
            assert_int_equal(text.bytes, expected);
            assert_int_equal(strlen(text.data), expected);
            assert_int_equal(text.data[expected - 1], '5');
            text_free(&text);
        }
}

static void test_text__html_entities(void **state)
{
    (void)state;
    struct text text = {0};
    text_append_html(&text, "<a href=\"x\">R&D's</a>");
    assert_string_equal(text.data, "&lt;a href=&quot;x&quot;&gt;R&amp;D&#39;s&lt;/a&gt;");
    text_free(&text);
    text_append_html(&text, "plain");
    assert_string_equal(text.data, "plain");
    text_free(&text);
}

static void test_text__failure_is_sticky(void **state)
{
    (void)state;
    struct text text = {0};
    struct error err;
    text_append(&text, "kept");
    text_append_bytes(&text, "", SIZE_MAX - 3); /* no such size: refused before any copy */
    assert_true(text.failed);
    text_append(&text, "ignored");
    text_printf(&text, "%d", 1);
    assert_string_equal(text.data, "kept");
    assert_int_equal(text_check(&text, &err), STATUS_MEMORY);
    text_free(&text);
    assert_int_equal(text_check(&text, &err), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text__starts_as_nothing),
        cmocka_unit_test(test_text__grows_across_every_length),
        cmocka_unit_test(test_text__printf_fits_at_every_boundary),
        cmocka_unit_test(test_text__html_entities),
        cmocka_unit_test(test_text__failure_is_sticky),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
