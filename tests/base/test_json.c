#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct json_document *parse(const char *text)
{
    struct json_document *document = NULL;
    struct error err;
    if (json_parse_text(&document, text, strlen(text), "in.json", &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return document;
}

static void assert_refused(const char *text, size_t bytes, const char *expected)
{
    struct json_document *document = NULL;
    struct error err;
    assert_int_equal(json_parse_text(&document, text, bytes, "in.json", &err), STATUS_INVALID);
    assert_null(document);
    if (!strstr(err.message, expected))
        fail_msg("'%s' has no '%s'", err.message, expected);
}

/* ---- Reading ---- */

static void test_json__reads_every_type(void **state)
{
    (void)state;
    struct json_document *document =
        parse("{\"i\": -9223372036854775808, \"r\": 0.25, \"n\": 3, \"b\": true, \"s\": \"x\","
              " \"o\": {\"a\": [1, 2.5, \"z\"]}}");
    struct jin root = json_root(document), object, array, element;
    struct error err;
    int64_t integer = 0;
    double real = 0;
    bool flag = false;
    const char *string = NULL;
    assert_int_equal(jin_int(&root, "i", &integer, &err), STATUS_OK);
    assert_true(integer == INT64_MIN);
    assert_int_equal(jin_real(&root, "r", &real, &err), STATUS_OK);
    assert_true(real == 0.25);
    assert_int_equal(jin_real(&root, "n", &real, &err), STATUS_OK);
    assert_true(real == 3);
    assert_int_equal(jin_bool(&root, "b", &flag, &err), STATUS_OK);
    assert_true(flag);
    assert_int_equal(jin_string(&root, "s", &string, &err), STATUS_OK);
    assert_string_equal(string, "x");
    assert_int_equal(jin_object(&root, "o", &object, &err), STATUS_OK);
    assert_int_equal(jin_array(&object, "a", &array, &err), STATUS_OK);
    assert_int_equal(jin_length(&array), 3);
    assert_int_equal(jin_length(&object), 0);
    element = jin_element(&array, 0);
    assert_int_equal(jin_as_int(&element, &integer, &err), STATUS_OK);
    assert_int_equal(integer, 1);
    element = jin_element(&array, 1);
    assert_int_equal(jin_as_real(&element, &real, &err), STATUS_OK);
    assert_true(real == 2.5);
    element = jin_element(&array, 2);
    assert_int_equal(jin_as_string(&element, &string, &err), STATUS_OK);
    assert_string_equal(string, "z");
    json_document_free(document);
    json_document_free(NULL);
}

static void test_json__errors_name_file_and_path(void **state)
{
    (void)state;
    struct json_document *document =
        parse("{\"layers\": [{}, {\"stage\": \"two\"}, {\"stage\": 1.0}, {\"stage\": null}]}");
    struct jin root = json_root(document), layers, layer;
    struct error err;
    int64_t stage = 77;
    assert_int_equal(jin_array(&root, "layers", &layers, &err), STATUS_OK);
    layer = jin_element(&layers, 1);
    assert_int_equal(jin_int(&layer, "stage", &stage, &err), STATUS_INVALID);
    assert_string_equal(err.message,
                        "in.json: key 'layers[1].stage': expected an integer, found a string");
    layer = jin_element(&layers, 0);
    assert_int_equal(jin_int(&layer, "stage", &stage, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "'layers[0].stage'"));
    assert_non_null(strstr(err.message, "missing"));
    layer = jin_element(&layers, 2);
    assert_int_equal(jin_int(&layer, "stage", &stage, &err), STATUS_INVALID);
    layer = jin_element(&layers, 3);
    assert_int_equal(jin_int(&layer, "stage", &stage, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "null"));
    assert_int_equal(jin_int(&layers, "stage", &stage, &err), STATUS_INVALID);
    assert_string_equal(err.message, "in.json: key 'layers': expected an object, found an array");
    assert_int_equal(stage, 77); /* outputs are set on success only */
    assert_int_equal(jin_invalid(&layer, "stage", &err, "must be below %d", 4), STATUS_INVALID);
    assert_string_equal(err.message, "in.json: key 'layers[3].stage': must be below 4");
    assert_int_equal(jin_invalid(&root, NULL, &err, "is empty"), STATUS_INVALID);
    assert_string_equal(err.message, "in.json: is empty");
    json_document_free(document);
}

static void test_json__optional_members_keep_their_default(void **state)
{
    (void)state;
    struct json_document *document = parse("{\"null\": null, \"text\": \"1\", \"i\": 5}");
    struct jin root = json_root(document);
    struct jin absent = {.file = "in.json"};
    struct error err;
    int64_t integer = 7;
    double real = 0.5;
    bool flag = true;
    const char *string = "kept";
    assert_int_equal(jin_int_opt(&root, "none", &integer, &err), STATUS_OK);
    assert_int_equal(jin_int_opt(&root, "null", &integer, &err), STATUS_OK);
    assert_int_equal(jin_int_opt(&absent, "i", &integer, &err), STATUS_OK);
    assert_int_equal(jin_int_opt(&root, "text", &integer, &err), STATUS_INVALID);
    assert_int_equal(jin_real_opt(&root, "none", &real, &err), STATUS_OK);
    assert_int_equal(jin_real_opt(&root, "text", &real, &err), STATUS_INVALID);
    assert_int_equal(jin_bool_opt(&root, "null", &flag, &err), STATUS_OK);
    assert_int_equal(jin_bool_opt(&root, "i", &flag, &err), STATUS_INVALID);
    assert_int_equal(jin_string_opt(&root, "none", &string, &err), STATUS_OK);
    assert_int_equal(jin_string_opt(&root, "i", &string, &err), STATUS_INVALID);
    assert_int_equal(integer, 7);
    assert_true(real == 0.5);
    assert_true(flag);
    assert_string_equal(string, "kept");
    assert_false(jin_has(&root, "null"));
    assert_false(jin_has(&root, "none"));
    assert_false(jin_has(&absent, "i"));
    assert_true(jin_has(&root, "i"));
    json_document_free(document);
}

static void test_json__string_copy_checks_the_length(void **state)
{
    (void)state;
    struct json_document *document = parse("{\"s\": \"1234\"}");
    struct jin root = json_root(document);
    struct error err;
    char exact[5] = "", small[4] = "was";
    assert_int_equal(jin_string_copy(&root, "s", exact, sizeof(exact), &err), STATUS_OK);
    assert_string_equal(exact, "1234");
    assert_int_equal(jin_string_copy(&root, "s", small, sizeof(small), &err), STATUS_INVALID);
    assert_string_equal(small, "was");
    assert_non_null(strstr(err.message, "key 's'"));
    json_document_free(document);
}

static void test_json__members_come_in_document_order(void **state)
{
    (void)state;
    struct json_document *document = parse("{\"o\": {\"z\": 1, \"a\": 2, \"m\": 3}}");
    struct jin root = json_root(document), object, value;
    struct error err;
    void *iterator = NULL;
    const char *key = NULL;
    char keys[8] = "";
    int64_t expected = 1, number = 0;
    assert_int_equal(jin_object(&root, "o", &object, &err), STATUS_OK);
    while (jin_next_member(&object, &iterator, &key, &value)) {
        strncat(keys, key, 1);
        assert_int_equal(jin_as_int(&value, &number, &err), STATUS_OK);
        assert_int_equal(number, expected++);
    }
    assert_string_equal(keys, "zam");
    iterator = NULL;
    value = jin_element(&object, 0);
    assert_null(value.node);
    assert_false(jin_next_member(&value, &iterator, &key, &value));
    json_document_free(document);
}

static void test_json__syntax_errors_name_the_place(void **state)
{
    (void)state;
    const char *const wrong[] = {"",
                                 "   ",
                                 "nul",
                                 "3",
                                 "{",
                                 "{\"a\": 1,}",
                                 "{\"a\": 1} x",
                                 "[1 2]",
                                 "{\"a\": 99999999999999999999}",
                                 "{\"a\": 1e999}",
                                 "{\"a\": NaN}",
                                 "{\"a\": \"\\u0000\"}",
                                 "{\"a\": 01}",
                                 "{\"a\": \"\xff\"}",
                                 "{'a': 1}"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_refused(wrong[i], strlen(wrong[i]), "in.json: not valid JSON: line ");
    assert_refused("{\"a\": 1,\n \"b\" 2}", 16, "line 2, column 6");
    assert_refused("{\"a\": 1, \"a\": 2}", 16, "duplicate");
    assert_refused("{}\0", 3, "line 1");
    char deep[5000];
    memset(deep, '[', sizeof(deep));
    assert_refused(deep, sizeof(deep), "line 1");
}

static void test_json__long_keys_do_not_overrun_the_path(void **state)
{
    (void)state;
    char text[1024], key[400];
    struct error err;
    memset(key, 'k', sizeof(key) - 1);
    key[sizeof(key) - 1] = '\0';
    (void)snprintf(text, sizeof(text), "{\"%s\": {\"%s\": [[1]]}}", key, key);
    struct json_document *document = parse(text);
    struct jin root = json_root(document), object, array, element;
    int64_t integer = 0;
    assert_int_equal(jin_object(&root, key, &object, &err), STATUS_OK);
    assert_int_equal(jin_array(&object, key, &array, &err), STATUS_OK);
    element = jin_element(&array, 0);
    assert_int_equal(jin_as_int(&element, &integer, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "kkk...'"));
    assert_true(strlen(element.path) < JIN_PATH_BYTES);
    json_document_free(document);
}

static void test_json__file_errors_name_the_file(void **state)
{
    (void)state;
    struct json_document *document = NULL;
    struct error err;
    assert_int_equal(json_parse_file(&document, "/nonexistent/x.json", &err), STATUS_IO);
    assert_non_null(strstr(err.message, "/nonexistent/x.json"));
    assert_non_null(strstr(err.message, "No such file"));
    char path[] = "/tmp/temper-json-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(file_write(path, "{\"a\": [1, 2]\n", 13, &err), STATUS_OK);
    assert_int_equal(json_parse_file(&document, path, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(file_write(path, "{\"a\": [1, 2]}\n", 14, &err), STATUS_OK);
    assert_int_equal(json_parse_file(&document, path, &err), STATUS_OK);
    json_document_free(document);
    unlink(path);
}

/* ---- Writing ---- */

static void assert_written(struct jout *out, int indent, const char *expected)
{
    struct text text = {0};
    struct error err;
    if (jout_finish(out, indent, &text, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_string_equal(text.data, expected);
    text_free(&text);
}

static void fill(struct jout *out)
{
    jout_int(out, "i", INT64_MIN);
    jout_real(out, "r", 0.1);
    jout_real(out, "whole", 2);
    jout_real(out, "nan", NAN);
    jout_bool(out, "b", false);
    jout_string(out, "s", "a\"b\\c\n{,:}");
    jout_string(out, "none", NULL);
    jout_begin_array(out, "list");
    jout_int(out, NULL, 1);
    jout_begin_object(out, NULL);
    jout_end(out);
    jout_begin_array(out, NULL);
    jout_end(out);
    jout_null(out, NULL);
    jout_end(out);
    jout_raw(out, "raw", " { \"x\" : [ 1 , \"a b\" ,\n{ } ] } ");
    jout_raw(out, "scalar", "\"\\u00e9\"");
}

static void test_json__writes_one_line(void **state)
{
    (void)state;
    struct jout *out = jout_new();
    fill(out);
    assert_written(out, 0,
                   "{\"i\":-9223372036854775808,\"r\":0.1,\"whole\":2.0,\"nan\":null,\"b\":false,"
                   "\"s\":\"a\\\"b\\\\c\\n{,:}\",\"none\":null,\"list\":[1,{},[],null],"
                   "\"raw\":{\"x\":[1,\"a b\",{}]},\"scalar\":\"\\u00e9\"}");
    assert_written(jout_new(), 0, "{}");
    assert_written(jout_new(), 2, "{}");
}

static void test_json__writes_indented(void **state)
{
    (void)state;
    struct jout *out = jout_new();
    jout_int(out, "a", 1);
    jout_begin_array(out, "b");
    jout_begin_object(out, NULL);
    jout_string(out, "c", "x: [1, 2]");
    jout_end(out);
    jout_end(out);
    jout_begin_object(out, "d");
    jout_end(out);
    assert_written(out, 2,
                   "{\n  \"a\": 1,\n  \"b\": [\n    {\n      \"c\": \"x: [1, 2]\"\n    }\n  ],\n"
                   "  \"d\": {}\n}");
}

/* Both layouts parse to the same values that were written. */
static void test_json__reals_read_back_bit_for_bit(void **state)
{
    (void)state;
    enum { REALS = 20000 };
    const double special[] = {0.0,     -0.0,    0.1,     1.0 / 3, 1e22, 1e23,
                              DBL_MAX, DBL_MIN, -1e-320, 5e-324,  1e15, 123456789012345680.0,
                              1e16,    1e17};
    const size_t special_count = sizeof(special) / sizeof(special[0]);
    struct jout *out = jout_new();
    static double written[REALS];
    jout_begin_array(out, "v");
    for (uint64_t i = 0; i < REALS; i++) {
        uint64_t bits = rng_u64(4, 4, i);
        memcpy(&written[i], &bits, sizeof(bits));
        if (i < special_count)
            written[i] = special[i];
        if (!isfinite(written[i]))
            written[i] = (double)(float)i / 7;
        jout_real(out, NULL, written[i]);
    }
    jout_end(out);
    struct text text = {0};
    struct error err;
    assert_int_equal(jout_finish(out, 1, &text, &err), STATUS_OK);
    struct json_document *document = parse(text.data);
    struct jin root = json_root(document), values;
    assert_int_equal(jin_array(&root, "v", &values, &err), STATUS_OK);
    assert_int_equal(jin_length(&values), REALS);
    for (size_t i = 0; i < REALS; i++) {
        double value = 0;
        int64_t integer = 0;
        struct jin element = jin_element(&values, i);
        assert_int_equal(jin_as_real(&element, &value, &err), STATUS_OK);
        assert_memory_equal(&value, &written[i], sizeof(value));
        assert_int_equal(jin_as_int(&element, &integer, &err), STATUS_INVALID); /* stays a real */
    }
    json_document_free(document);
    text_free(&text);
}

/* Any bytes as a string make a document that parses; valid UTF-8 comes back unchanged. */
static void test_json__any_bytes_make_a_valid_string(void **state)
{
    (void)state;
    const char *const valid[] = {"\x01\x1f\x7f",     "\xc3\xa9",     "\xe2\x82\xac",
                                 "\xf0\x9f\x98\x80", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf",
                                 "/\\\"\b\f\r"};
    const char *const invalid[] = {"\x80",
                                   "\xc3",
                                   "\xc0\x80",
                                   "\xe0\x80\x80",
                                   "\xed\xa0\x80",
                                   "\xf4\x90\x80\x80",
                                   "\xf0\x80\x80\x80",
                                   "\xff",
                                   "a\xe2\x82"};
    struct error err;
    for (size_t i = 0; i < 16; i++) {
        bool is_valid = i < 7;
        const char *string = is_valid ? valid[i] : invalid[i - 7];
        struct text text = {0};
        struct jout *out = jout_new();
        jout_string(out, string, string);
        assert_int_equal(jout_finish(out, 0, &text, &err), STATUS_OK);
        struct json_document *document = parse(text.data);
        struct jin root = json_root(document), value;
        void *iterator = NULL;
        const char *key = NULL, *found = NULL;
        assert_true(jin_next_member(&root, &iterator, &key, &value));
        assert_int_equal(jin_as_string(&value, &found, &err), STATUS_OK);
        assert_string_equal(key, found);
        if (is_valid)
            assert_string_equal(found, string);
        else
            assert_non_null(strstr(found, "\xef\xbf\xbd"));
        json_document_free(document);
        text_free(&text);
    }
}

static void assert_misuse(struct jout *out, const char *expected)
{
    struct text text = {0};
    struct error err;
    assert_int_equal(jout_finish(out, 0, &text, &err), STATUS_INVALID);
    if (!strstr(err.message, expected))
        fail_msg("'%s' has no '%s'", err.message, expected);
    assert_null(text.data);
}

static void test_json__misuse_is_reported_once_at_the_end(void **state)
{
    (void)state;
    struct jout *out = jout_new();
    jout_raw(out, "bad", "{\"x\": }");
    jout_int(out, NULL, 3);
    assert_misuse(out, "'bad'");
    out = jout_new();
    jout_raw(out, "bad", "1 2");
    assert_misuse(out, "'bad'");
    out = jout_new();
    jout_int(out, NULL, 3);
    assert_misuse(out, "no key");
    out = jout_new();
    jout_begin_array(out, "a");
    jout_int(out, "k", 3);
    assert_misuse(out, "has a key");
    out = jout_new();
    jout_begin_array(out, "a");
    assert_misuse(out, "not ended");
    out = jout_new();
    jout_end(out);
    assert_misuse(out, "more");
    out = jout_new();
    jout_begin_array(out, "a");
    for (int i = 0; i < 10000; i++)
        jout_begin_array(out, NULL);
    assert_misuse(out, "deep");
    struct error err;
    struct text text = {0};
    fill(NULL);
    assert_int_equal(jout_finish(NULL, 0, &text, &err), STATUS_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json__reads_every_type),
        cmocka_unit_test(test_json__errors_name_file_and_path),
        cmocka_unit_test(test_json__optional_members_keep_their_default),
        cmocka_unit_test(test_json__string_copy_checks_the_length),
        cmocka_unit_test(test_json__members_come_in_document_order),
        cmocka_unit_test(test_json__syntax_errors_name_the_place),
        cmocka_unit_test(test_json__long_keys_do_not_overrun_the_path),
        cmocka_unit_test(test_json__file_errors_name_the_file),
        cmocka_unit_test(test_json__writes_one_line),
        cmocka_unit_test(test_json__writes_indented),
        cmocka_unit_test(test_json__reals_read_back_bit_for_bit),
        cmocka_unit_test(test_json__any_bytes_make_a_valid_string),
        cmocka_unit_test(test_json__misuse_is_reported_once_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
