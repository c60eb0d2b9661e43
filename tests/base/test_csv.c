#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/csv.h"
#include <stdlib.h>
#include <string.h>

static struct csv_table parsed(const char *text)
{
    struct csv_table table;
    struct error err = {0};
    enum status status = csv_parse(&table, text, strlen(text), "t.csv", &err);
    if (status != STATUS_OK)
        fail_msg("%s", err.message);
    return table;
}

static void refused(const char *text, size_t bytes, const char *words)
{
    struct csv_table table;
    struct error err = {0};
    assert_int_equal(csv_parse(&table, text, bytes, "t.csv", &err), STATUS_INVALID);
    if (strstr(err.message, words) == NULL)
        fail_msg("'%s' does not say '%s'", err.message, words);
    assert_non_null(strstr(err.message, "t.csv"));
}

static void test_csv__reads_cells_by_row_and_column(void **state)
{
    (void)state;
    struct csv_table table = parsed("a,b,c\n1,2,3\n4,,6\n");
    size_t column;
    assert_int_equal(table.column_count, 3);
    assert_int_equal(table.row_count, 2);
    assert_true(csv_column(&table, "c", &column));
    assert_int_equal(column, 2);
    assert_false(csv_column(&table, "d", &column));
    assert_string_equal(csv_cell(&table, 0, 0), "1");
    assert_string_equal(csv_cell(&table, 0, 2), "3");
    assert_string_equal(csv_cell(&table, 1, 1), "");
    assert_string_equal(csv_cell(&table, 1, 2), "6");
    csv_free(&table);
    assert_null(table.text);
}

static void test_csv__quotes_hold_commas_quotes_and_lines(void **state)
{
    (void)state;
    struct csv_table table = parsed("a,b\n\"x, y\",\"say \"\"so\"\"\"\n\"one\ntwo\",\n\"\",z");
    assert_int_equal(table.row_count, 3);
    assert_string_equal(csv_cell(&table, 0, 0), "x, y");
    assert_string_equal(csv_cell(&table, 0, 1), "say \"so\"");
    assert_string_equal(csv_cell(&table, 1, 0), "one\ntwo");
    assert_string_equal(csv_cell(&table, 1, 1), "");
    assert_string_equal(csv_cell(&table, 2, 0), "");
    assert_string_equal(csv_cell(&table, 2, 1), "z");
    assert_int_equal(table.lines[0], 2);
    assert_int_equal(table.lines[1], 3);
    assert_int_equal(table.lines[2], 5); /* the record before it is two lines */
    csv_free(&table);
}

static void test_csv__crlf_marks_and_empty_lines(void **state)
{
    (void)state;
    struct csv_table table = parsed("\xef\xbb\xbf\"a\",b\r\n\r\n1,\"2\"\r\n\n3,4\r");
    assert_string_equal(table.columns[0], "a");
    assert_int_equal(table.row_count, 2);
    assert_string_equal(csv_cell(&table, 0, 1), "2");
    assert_string_equal(csv_cell(&table, 1, 1), "4");
    assert_int_equal(table.lines[0], 3);
    assert_int_equal(table.lines[1], 5);
    csv_free(&table);
}

static void test_csv__a_header_alone_is_an_empty_table(void **state)
{
    (void)state;
    struct csv_table table = parsed("a,b");
    assert_int_equal(table.column_count, 2);
    assert_int_equal(table.row_count, 0);
    csv_free(&table);
}

static void test_csv__refuses_what_is_no_table(void **state)
{
    (void)state;
    refused("", 0, "empty");
    refused("\n\r\n", 3, "empty");
    refused("a,b\n1\n", 6, "line 2: 1 fields, but the header has 2");
    refused("a,b\n1,2\n1,2,3\n", 14, "line 3: 3 fields");
    refused("a,a\n", 4, "'a' is there twice");
    refused("a\n\"1\n2\n", 7, "line 2: the quote that opens here is never closed");
    refused("a\nx\"y\"\n", 7, "line 2: a quote inside a field");
    refused("a\n\"x\"y\n", 7, "line 2: a quote inside a field");
    refused("a\n1\r2\n", 6, "line 2: a carriage return");
    refused("a\n1\0002\n", 6, "line 2: a NUL byte");
}

static void test_csv__bounds_a_field(void **state)
{
    (void)state;
    size_t bytes = CSV_FIELD_BYTES_MAX;
    char *text = malloc(bytes + 16);
    struct csv_table table;
    struct error err;
    assert_non_null(text);
    text[0] = 'a';
    text[1] = '\n';
    memset(text + 2, 'x', bytes + 2);
    assert_int_equal(csv_parse(&table, text, bytes + 2, "t.csv", &err), STATUS_OK);
    assert_int_equal(strlen(csv_cell(&table, 0, 0)), bytes);
    csv_free(&table);
    refused(text, bytes + 3, "line 2: a field of more than");
    text[2] = '"';
    refused(text, bytes + 4, "line 2: a field of more than");
    free(text);
}

/* Every prefix of a table is read or refused, without reading past its end. */
static void test_csv__every_torn_table_is_read_or_refused(void **state)
{
    (void)state;
    static const char whole[] = "a,\"b\"\"\",c\r\n1,\"x\n,y\",\"\"\"\"\r\n,,\r\n";
    for (size_t bytes = 0; bytes < sizeof(whole); bytes++) {
        struct csv_table table;
        struct error err;
        char *text = malloc(bytes + 1); /* of this very size: a sanitizer sees one byte more */
        assert_non_null(text);
        memcpy(text, whole, bytes);
        if (csv_parse(&table, text, bytes, "t.csv", &err) == STATUS_OK)
            csv_free(&table);
        else
            assert_int_equal(err.status, STATUS_INVALID);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv__reads_cells_by_row_and_column),
        cmocka_unit_test(test_csv__quotes_hold_commas_quotes_and_lines),
        cmocka_unit_test(test_csv__crlf_marks_and_empty_lines),
        cmocka_unit_test(test_csv__a_header_alone_is_an_empty_table),
        cmocka_unit_test(test_csv__refuses_what_is_no_table),
        cmocka_unit_test(test_csv__bounds_a_field),
        cmocka_unit_test(test_csv__every_torn_table_is_read_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
