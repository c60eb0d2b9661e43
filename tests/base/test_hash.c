#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include <string.h>

/* The values that the xxHash specification's own tools print for XXH3 with 64 bits and seed 0. */
static void test_hash__is_xxh3(void **state)
{
    (void)state;
    char text[HASH_TEXT_BYTES];
    assert_string_equal(hash_format(hash_bytes(NULL, 0), text), "2d06800538d394c2");
    assert_int_equal(hash_bytes("", 0), hash_bytes(NULL, 0));
}

static void test_hash__every_bit_counts(void **state)
{
    (void)state;
    unsigned char data[300];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)(i * 7);
    uint64_t whole = hash_bytes(data, sizeof(data));
    for (size_t bit = 0; bit < 8 * sizeof(data); bit++) {
        data[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_true(hash_bytes(data, sizeof(data)) != whole);
        data[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    assert_true(hash_bytes(data, sizeof(data) - 1) != whole);
}

static void test_hash__format_keeps_leading_zeros(void **state)
{
    (void)state;
    char text[HASH_TEXT_BYTES];
    assert_ptr_equal(hash_format(0xab, text), text);
    assert_string_equal(text, "00000000000000ab");
    assert_string_equal(hash_format(UINT64_MAX, text), "ffffffffffffffff");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash__is_xxh3),
        cmocka_unit_test(test_hash__every_bit_counts),
        cmocka_unit_test(test_hash__format_keeps_leading_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
