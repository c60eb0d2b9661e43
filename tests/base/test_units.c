#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/units.h"
#include <math.h>
#include <string.h>

struct format_case {
    double value;
    const char *expected;
};

#define CHECK_FORMAT(format, cases)                                                                \
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {                                \
        char buffer[UNIT_TEXT_BYTES];                                                              \
        assert_ptr_equal(format(cases[i].value, buffer), buffer);                                  \
        assert_string_equal(buffer, cases[i].expected);                                            \
    }

static void test_units__bytes(void **state)
{
    (void)state;
    const struct format_case cases[] = {
        {0, "0 B"},
        {1, "1 B"},
        {1023, "1023 B"},
        {1024, "1.00 KiB"},
        {1536.0 * 1024 * 1024, "1.50 GiB"},
        {1023.4 * 1024, "1023 KiB"},
        {1023.6 * 1024, "1.00 MiB"},
        {-2048, "-2.00 KiB"},
        {9.994 * 1024, "9.99 KiB"},
        {9.996 * 1024, "10.0 KiB"},
        {99.96 * 1024, "100 KiB"},
        {5000 * 0x1p50, "5000 PiB"},
    };
    CHECK_FORMAT(format_bytes, cases)
}

static void test_units__seconds(void **state)
{
    (void)state;
    const struct format_case cases[] = {
        {0, "0 s"},           {0.0123, "12.3 ms"}, {0.9994, "999 ms"},   {0.9996, "1.00 s"},
        {1.5e-9, "1.50 ns"},  {2e-11, "0.02 ns"},  {3.21e-6, "3.21 us"}, {61, "61.0 s"},
        {119.9, "120 s"},     {600, "10.0 min"},   {3 * 3600, "3.0 h"},  {86400.0 * 3.5, "3.5 d"},
        {-0.002, "-2.00 ms"},
    };
    CHECK_FORMAT(format_seconds, cases)
}

static void test_units__joules_counts_and_flops(void **state)
{
    (void)state;
    const struct format_case joules[] = {
        {3.2, "3.20 J"}, {1100, "1.10 kJ"}, {0.001, "1.00 mJ"}, {0, "0 J"}};
    const struct format_case counts[] = {
        {124439808, "124.4 M"}, {8030261248, "8.030 B"}, {12, "12"}, {0, "0"}, {999.96, "1.000 k"}};
    const struct format_case flops[] = {
        {1.23e9, "1.23 GFLOP"}, {7, "7 FLOP"}, {2e21, "2.00 ZFLOP"}};
    CHECK_FORMAT(format_joules, joules)
    CHECK_FORMAT(format_count, counts)
    CHECK_FORMAT(format_flops, flops)
}

/* No value, however odd, may overrun the buffer; finite ones read back within their rounding. */
static void test_units__any_double_fits(void **state)
{
    (void)state;
    const char *(*const formats[])(double, char[UNIT_TEXT_BYTES]) = {
        format_bytes, format_seconds, format_joules, format_count, format_flops};
    for (uint64_t i = 0; i < 20000; i++) {
        uint64_t bits = rng_u64(1, 1, i);
        double value;
        memcpy(&value, &bits, sizeof(value));
        for (size_t f = 0; f < 5; f++) {
            char buffer[UNIT_TEXT_BYTES + 8];
            memset(buffer, '#', sizeof(buffer));
            formats[f](value, buffer);
            assert_non_null(memchr(buffer, '\0', UNIT_TEXT_BYTES));
            assert_int_equal(buffer[UNIT_TEXT_BYTES], '#');
            assert_true(strlen(buffer) < UNIT_TEXT_BYTES - 1);
        }
    }
    char buffer[UNIT_TEXT_BYTES];
    assert_string_equal(format_bytes(INFINITY, buffer), "inf B");
    assert_string_equal(format_seconds(-INFINITY, buffer), "-inf s");
    assert_non_null(strstr(format_joules(NAN, buffer), "nan"));
}

static void test_units__grouped(void **state)
{
    (void)state;
    char buffer[UNIT_TEXT_BYTES];
    assert_string_equal(format_grouped(0, buffer), "0");
    assert_string_equal(format_grouped(999, buffer), "999");
    assert_string_equal(format_grouped(1000, buffer), "1,000");
    assert_string_equal(format_grouped(124439808, buffer), "124,439,808");
    assert_string_equal(format_grouped(UINT64_MAX, buffer), "18,446,744,073,709,551,615");
}

static void test_units__parse_bytes_reads_every_form(void **state)
{
    (void)state;
    const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"0", 0},
        {"1", 1},
        {"2GiB", UINT64_C(2) << 30},
        {"2gib", UINT64_C(2) << 30},
        {"512 MB", 512000000},
        {"1.5e9", 1500000000},
        {"800k", 800000},
        {"4Ki", 4096},
        {"1.5 KiB", 1536},
        {"0.5B", 1},
        {".5k", 500},
        {"7.B", 7},
        {"1e3kB", 1000000},
        {"3TiB", UINT64_C(3) << 40},
        {"1P", UINT64_C(1000000000000000)},
        {"9007199254740993", UINT64_C(9007199254740993)}, /* more than a double can hold */
        {"18446744073709551615", UINT64_MAX},
        {"16383PiB", UINT64_C(16383) << 50},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 99;
        struct error err;
        if (parse_bytes(cases[i].text, &bytes, &err) != STATUS_OK)
            fail_msg("'%s': %s", cases[i].text, err.message);
        assert_int_equal(bytes, cases[i].bytes);
    }
}

static void test_units__parse_bytes_refuses_the_rest(void **state)
{
    (void)state;
    const char *const wrong[] = {
        "",
        " 1",
        "-1",
        "+1",
        "GiB",
        "1e",
        "1 e3",
        "0x10",
        "inf",
        "nan",
        "1GiBB",
        "1 GiB ",
        "1Gi B",
        "1,000",
        "2ib",
        "1..2",
        ".",
        "e9",
        "1e400",
        "1e20",
        "16384PiB",
        "18446744073709551616",
        "5 bytes",
        "1\n",
        "1e99999999999999",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint64_t bytes = 99;
        struct error err;
        if (parse_bytes(wrong[i], &bytes, &err) != STATUS_INVALID)
            fail_msg("'%s' was taken for %llu bytes", wrong[i], (unsigned long long)bytes);
        assert_int_equal(bytes, 99);
        assert_true(strlen(err.message) > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units__bytes),
        cmocka_unit_test(test_units__seconds),
        cmocka_unit_test(test_units__joules_counts_and_flops),
        cmocka_unit_test(test_units__any_double_fits),
        cmocka_unit_test(test_units__grouped),
        cmocka_unit_test(test_units__parse_bytes_reads_every_form),
        cmocka_unit_test(test_units__parse_bytes_refuses_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
