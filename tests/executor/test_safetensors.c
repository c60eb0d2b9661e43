#include "support.h"

#include "base/rng.h"
#include "written.h"
#include <math.h>

static struct safetensors *open_file(const char *path)
{
    struct error err;
    struct safetensors *file = NULL;
    assert_ok(safetensors_open(&file, path, &err), &err);
    return file;
}

static void assert_open_refused(const char *path, enum status expected, const char *part,
                                const char *other_part)
{
    struct error err;
    struct safetensors *file = NULL;
    assert_refused(safetensors_open(&file, path, &err), expected, &err, part, other_part);
    assert_null(file);
}

/* A file of this header and `data_bytes` bytes, byte i having the value i. */
static const char *put_raw(const char *header, size_t data_bytes)
{
    const char *path = in_folder("raw.safetensors");
    uint64_t header_bytes = strlen(header);
    size_t bytes = sizeof(header_bytes) + header_bytes + data_bytes;
    unsigned char *file = malloc(bytes);
    assert_non_null(file);
    memcpy(file, &header_bytes, sizeof(header_bytes));
    memcpy(file + sizeof(header_bytes), header, header_bytes);
    for (size_t i = 0; i < data_bytes; i++)
        file[sizeof(header_bytes) + header_bytes + i] = (unsigned char)i;
    put_bytes(path, file, bytes);
    free(file);
    return path;
}

/* ---- round trips ---- */

static const char *put_small(void)
{
    static const float a[6] = {1.0f, -2.5f, 0.0f, -0.0f, 3e38f, 1e-45f};
    static const float b[3] = {7.0f, 8.0f, 9.0f};
    const struct tensor_data tensors[] = {
        {.name = "zeta", .shape = {2, 3}, .rank = 2, .data = a},
        {.name = "alpha", .shape = {3}, .rank = 1, .data = b},
    };
    struct error err;
    const char *path = in_folder("small.safetensors");
    assert_ok(write_tensors(path, tensors, COUNT(tensors), &err), &err);
    return path;
}

static void test_safetensors__gives_back_what_was_written(void **state)
{
    (void)state;
    float values[24] = {NAN, INFINITY, -INFINITY, -0.0f, 1e-45f};
    for (size_t i = 5; i < COUNT(values); i++)
        values[i] = (float)rng_normal(1, 2, i);
    const struct tensor_data tensors[] = {
        {.name = "rank 4", .shape = {2, 3, 1, 4}, .rank = 4, .data = values},
        {.name = "scalar", .rank = 0, .data = values + 7},
        {.name = "empty", .shape = {0, 9}, .rank = 2, .data = values},
        {.name = "a\"\\b\n", .shape = {3}, .rank = 1, .data = values + 2},
    };
    struct error err;
    const char *path = in_folder("round.safetensors");
    assert_ok(write_tensors(path, tensors, COUNT(tensors), &err), &err);
    struct safetensors *file = open_file(path);
    static const char *const sorted[] = {"a\"\\b\n", "empty", "rank 4", "scalar"};
    assert_int_equal(safetensors_count(file), COUNT(sorted));
    for (size_t i = 0; i < COUNT(sorted); i++)
        assert_string_equal(safetensors_name(file, i), sorted[i]);
    static const uint64_t counts[] = {24, 1, 0, 3};
    for (size_t i = 0; i < COUNT(tensors); i++) {
        float read[24];
        int64_t shape[SAFETENSORS_RANK_MAX];
        assert_true(safetensors_has(file, tensors[i].name));
        assert_int_equal(safetensors_shape(file, tensors[i].name, shape), tensors[i].rank);
        for (int k = 0; k < tensors[i].rank; k++)
            assert_int_equal(shape[k], tensors[i].shape[k]);
        assert_ok(safetensors_read(file, tensors[i].name, read, counts[i], &err), &err);
        assert_memory_equal(read, tensors[i].data, counts[i] * sizeof(float));
    }
    int64_t shape[SAFETENSORS_RANK_MAX];
    assert_false(safetensors_has(file, "absent"));
    assert_int_equal(safetensors_shape(file, "absent", shape), -1);
    assert_refused(safetensors_read(file, "absent", values, 1, &err), STATUS_INVALID, &err,
                   "round.safetensors", "'absent'");
    assert_refused(safetensors_read(file, "rank 4", values, 23, &err), STATUS_INVALID, &err,
                   "'rank 4'", "has 24 elements, expected 23");
    safetensors_close(file);
}

static void test_safetensors__data_begins_at_a_multiple_of_eight_bytes(void **state)
{
    (void)state;
    const float one = 1.0f;
    struct tensor_data tensor = {.rank = 0, .data = &one};
    for (size_t i = 0; i < 16; i++) {
        struct error err;
        size_t bytes;
        uint64_t header_bytes;
        const char *path = in_folder("aligned.safetensors");
        memset(tensor.name, 'n', i + 1);
        assert_ok(write_tensors(path, &tensor, 1, &err), &err);
        char *data = get_bytes(path, &bytes);
        memcpy(&header_bytes, data, sizeof(header_bytes));
        assert_int_equal(header_bytes % 8, 0);
        assert_int_equal(bytes, 8 + header_bytes + 4);
        assert_int_equal(data[8], '{');
        free(data);
    }
}

/* Against the definition of IEEE 754 binary16, in double. */
static float half_value(uint16_t half)
{
    int exponent = (half >> 10) & 31, fraction = half & 1023;
    double magnitude = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31)
        magnitude = fraction ? (double)NAN : (double)INFINITY;
    return (float)(half & 0x8000 ? -magnitude : magnitude);
}

static void test_safetensors__widens_every_16_bit_value(void **state)
{
    (void)state;
    enum { VALUES = 65536, DATA = 2 * VALUES };
    static unsigned char file[256 + DATA];
    static float read[VALUES];
    struct error err;
    for (int kind = 0; kind < 2; kind++) {
        char header[128];
        uint64_t header_bytes =
            (uint64_t)snprintf(header, sizeof(header),
                               "{\"t\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[0,%d]}}",
                               kind ? "BF16" : "F16", VALUES, DATA);
        memcpy(file, &header_bytes, 8);
        memcpy(file + 8, header, header_bytes);
        for (uint32_t i = 0; i < VALUES; i++)
            memcpy(file + 8 + header_bytes + 2 * i, &(uint16_t){(uint16_t)i}, 2);
        const char *path = in_folder("halves.safetensors");
        put_bytes(path, file, 8 + header_bytes + DATA);
        struct safetensors *in = open_file(path);
        assert_ok(safetensors_read(in, "t", read, VALUES, &err), &err);
        safetensors_close(in);
        for (uint32_t i = 0; i < VALUES; i++) {
            uint32_t wide_bits = i << 16;
            float expected = half_value((uint16_t)i);
            if (kind)
                memcpy(&expected, &wide_bits, sizeof(expected));
            if (isnan(expected))
                assert_true(isnan(read[i]));
            else
                assert_memory_equal(&read[i], &expected, sizeof(expected));
        }
    }
}

static void test_safetensors__narrows_doubles(void **state)
{
    (void)state;
    static const char header[] =
        "{\"t\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,16]}}";
    const double values[] = {0.1, -1e300};
    float read[2];
    struct error err;
    const char *path = put_raw(header, 16);
    size_t bytes;
    char *data = get_bytes(path, &bytes);
    memcpy(data + bytes - 16, values, 16);
    put_bytes(path, data, bytes);
    free(data);
    struct safetensors *file = open_file(path);
    assert_ok(safetensors_read(file, "t", read, 2, &err), &err);
    assert_true(read[0] == 0.1f && read[1] == -INFINITY);
    safetensors_close(file);
}

/* ---- damage ---- */

static void test_safetensors__every_truncation_is_refused(void **state)
{
    (void)state;
    size_t bytes;
    char *data = get_bytes(put_small(), &bytes);
    const char *path = in_folder("cut.safetensors");
    for (size_t left = 0; left < bytes; left++) {
        put_bytes(path, data, left);
        assert_open_refused(path, STATUS_CORRUPT, "cut.safetensors", "");
    }
    data = realloc(data, bytes + 1);
    data[bytes] = 0;
    put_bytes(path, data, bytes + 1);
    assert_open_refused(path, STATUS_CORRUPT, "cut.safetensors", "its tensors end at");
    free(data);
}

/* Reads both tensors of put_small; true if that works, and then the values must be the right ones.
 */
static bool reads_as_written(const char *path)
{
    struct error err;
    struct safetensors *file = NULL;
    float a[6], b[3];
    enum status status = safetensors_open(&file, path, &err);
    if (status == STATUS_OK)
        status = safetensors_read(file, "zeta", a, 6, &err);
    if (status == STATUS_OK)
        status = safetensors_read(file, "alpha", b, 3, &err);
    safetensors_close(file);
    if (status != STATUS_OK) {
        assert_contains(err.message, "damaged.safetensors");
        return false;
    }
    assert_true(a[1] == -2.5f && a[4] == 3e38f && b[0] == 7.0f && b[2] == 9.0f);
    return true;
}

static void test_safetensors__no_flipped_bit_gives_other_values(void **state)
{
    (void)state;
    size_t bytes, refused_in_data = 0;
    char *data = get_bytes(put_small(), &bytes);
    const char *path = in_folder("damaged.safetensors");
    for (size_t bit = 0; bit < 8 * bytes; bit++) {
        data[bit / 8] = (char)(data[bit / 8] ^ (1 << bit % 8));
        put_bytes(path, data, bytes);
        bool whole = reads_as_written(path);
        if (bit / 8 >= bytes - 36 && !whole)
            refused_in_data++;
        data[bit / 8] = (char)(data[bit / 8] ^ (1 << bit % 8));
    }
    assert_int_equal(refused_in_data, 36 * 8); /* every bit of the nine floats */
    put_bytes(path, data, bytes);
    assert_true(reads_as_written(path));
    free(data);
}

static void test_safetensors__random_damage_is_refused_or_harmless(void **state)
{
    (void)state;
    size_t bytes;
    char *good = get_bytes(put_small(), &bytes);
    char *data = malloc(bytes);
    assert_non_null(data);
    const char *path = in_folder("damaged.safetensors");
    for (uint64_t round = 0; round < 1000; round++) {
        memcpy(data, good, bytes);
        for (uint64_t i = 0; i < 1 + round % 6; i++) {
            uint64_t draw = rng_u64(5, round, i);
            /* The header's text: with a checksum and its tensor both damaged, nobody can tell. */
            size_t place = 8 + draw % (bytes - 8 - 36);
            data[place] = "0123456789-[]{}\",:eF\xff"[draw >> 32 & 15];
        }
        put_bytes(path, data, bytes);
        (void)reads_as_written(path);
    }
    free(data);
    free(good);
}

static void test_safetensors__a_flipped_byte_names_file_and_tensor(void **state)
{
    (void)state;
    size_t bytes;
    struct error err;
    float b[3];
    char *data = get_bytes(put_small(), &bytes);
    const char *path = in_folder("flipped.safetensors");
    data[bytes - 1] ^= 1;
    put_bytes(path, data, bytes);
    free(data);
    struct safetensors *file = open_file(path);
    assert_refused(safetensors_read(file, "alpha", b, 3, &err), STATUS_CORRUPT, &err,
                   "flipped.safetensors: tensor 'alpha'", "checksum");
    safetensors_close(file);
}

/* ---- hostile headers ---- */

#define TENSOR(name, dtype, shape, first, end)                                                     \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" first "," end   \
    "]}"

static void test_safetensors__refuses_hostile_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        enum status status;
        const char *part, *other_part;
    } cases[] = {
        {"", 0, STATUS_CORRUPT, "raw.safetensors", "JSON"},
        {"not json", 8, STATUS_CORRUPT, "raw.safetensors", "JSON"},
        {"{", 0, STATUS_CORRUPT, "raw.safetensors", "JSON"},
        {"{}x", 0, STATUS_CORRUPT, "raw.safetensors", "JSON"},
        {"{\"\xff\":1}", 0, STATUS_CORRUPT, "raw.safetensors", "JSON"},
        {"[]", 0, STATUS_CORRUPT, "raw.safetensors", "not a JSON object"},
        {"{\"t\":3}", 0, STATUS_CORRUPT, "'t'", "expected an object"},
        {"{\"t\":{}}", 0, STATUS_CORRUPT, "t.dtype", "missing"},
        {"{" TENSOR("t", "F32", "[1]", "0", "4") "," TENSOR("t", "F32", "[1]", "4", "8") "}", 8,
         STATUS_CORRUPT, "raw.safetensors", "uplicate"},
        {"{" TENSOR("t", "Q5", "[1]", "0", "4") "}", 4, STATUS_UNSUPPORTED, "tensor 't'",
         "dtype 'Q5'"},
        {"{" TENSOR("t", "F32", "7", "0", "4") "}", 4, STATUS_CORRUPT, "t.shape", "array"},
        {"{" TENSOR("t", "F32", "[1.5]", "0", "4") "}", 4, STATUS_CORRUPT, "t.shape[0]", "integer"},
        {"{" TENSOR("t", "F32", "[-1]", "0", "4") "}", 4, STATUS_CORRUPT, "tensor 't'", "negative"},
        {"{" TENSOR("t", "F32", "[-1,-1]", "0", "4") "}", 4, STATUS_CORRUPT, "tensor 't'",
         "negative"},
        {"{" TENSOR("t", "F32", "[1,1,1,1,1]", "0", "4") "}", 4, STATUS_UNSUPPORTED, "tensor 't'",
         "5 dimensions"},
        /* 2^32 * 2^32 elements wrap to none; 2^62 + 1 elements of 4 bytes wrap to one */
        {"{" TENSOR("t", "F32", "[4294967296,4294967296]", "0", "0") "}", 0, STATUS_CORRUPT,
         "tensor 't'", "2^64"},
        {"{" TENSOR("t", "F32", "[4611686018427387905]", "0", "4") "}", 4, STATUS_CORRUPT,
         "tensor 't'", "4611686018427387905 elements"},
        {"{" TENSOR("t", "F32", "[99999999999999999999]", "0", "4") "}", 4, STATUS_CORRUPT,
         "raw.safetensors", "JSON"},
        {"{" TENSOR("t", "F32", "[2]", "0", "4") "}", 4, STATUS_CORRUPT, "tensor 't'",
         "span 4 bytes, 2 elements"},
        {"{" TENSOR("t", "BF16", "[2]", "0", "8") "}", 8, STATUS_CORRUPT, "tensor 't'", "BF16"},
        {"{" TENSOR("t", "F32", "[1]", "0", "8") "}", 4, STATUS_CORRUPT, "tensor 't'",
         "not inside the file's 4 bytes"},
        {"{" TENSOR("t", "F32", "[1]", "-4", "0") "}", 4, STATUS_CORRUPT, "tensor 't'",
         "not inside"},
        {"{" TENSOR("t", "F32", "[1]", "4", "0") "}", 4, STATUS_CORRUPT, "tensor 't'",
         "not inside"},
        {"{" TENSOR("t", "F32", "[1]", "9223372036854775804", "9223372036854775807") "}", 4,
         STATUS_CORRUPT, "tensor 't'", "not inside"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, STATUS_CORRUPT,
         "tensor 't'", "[first, end]"},
        {"{" TENSOR("t", "F32", "[2]", "0", "8") "," TENSOR("u", "F32", "[2]", "4", "12") "}", 12,
         STATUS_CORRUPT, "tensor 'u'", "overlap"},
        {"{" TENSOR("t", "F32", "[1]", "0", "4") "," TENSOR("u", "F32", "[1]", "0", "4") "}", 4,
         STATUS_CORRUPT, "tensor", "overlap"},
        {"{" TENSOR("t", "F32", "[1]", "0", "4") "," TENSOR("u", "F32", "[1]", "8", "12") "}", 12,
         STATUS_CORRUPT, "tensor 'u'", "gaps"},
        {"{" TENSOR("t", "F32", "[1]", "4", "8") "}", 8, STATUS_CORRUPT, "tensor 't'", "gaps"},
        {"{" TENSOR("t", "F32", "[1]", "0", "4") "}", 8, STATUS_CORRUPT, "raw.safetensors",
         "end at 4"},
        {"{\"__metadata__\":7}", 0, STATUS_CORRUPT, "__metadata__", "object"},
        {"{\"__metadata__\":{\"temper.xxh3.t\":7}," TENSOR("t", "F32", "[1]", "0", "4") "}", 4,
         STATUS_CORRUPT, "temper.xxh3.t", "string"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_open_refused(put_raw(cases[i].header, cases[i].data_bytes), cases[i].status,
                            cases[i].part, cases[i].other_part);
}

static void test_safetensors__refuses_hostile_header_lengths(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {3,         9,          100000001,     UINT32_MAX,
                                       INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        size_t bytes;
        const char *path = put_raw("{}", 6);
        char *data = get_bytes(path, &bytes);
        memcpy(data, &lengths[i], 8);
        put_bytes(path, data, bytes);
        free(data);
        assert_open_refused(path, STATUS_CORRUPT, "raw.safetensors", "");
    }
}

static void test_safetensors__refuses_a_header_nested_without_end(void **state)
{
    (void)state;
    enum { DEPTH = 200000 };
    char *header = malloc(DEPTH + 8);
    assert_non_null(header);
    memset(header, '[', DEPTH + 7);
    memcpy(header, "{\"a\":", 5);
    header[DEPTH + 7] = '\0';
    const char *path = put_raw(header, 0);
    free(header);
    assert_open_refused(path, STATUS_CORRUPT, "raw.safetensors", "JSON");
}

static void test_safetensors__reads_foreign_files(void **state)
{
    (void)state;
    /* Tensors in another order than the data, a mask, foreign metadata, no checksums, padding. */
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\",\"temper.xxh3.absent\":\"0\"}," TENSOR(
            "b", "F32", "[1]", "4", "8") "," TENSOR("mask", "BOOL", "[1,1,2,2]", "0",
                                                    "4") "," TENSOR("none", "F32", "[0]", "4",
                                                                    "4") "}   ";
    struct error err;
    float value;
    uint32_t bits = 0x07060504;
    struct safetensors *file = open_file(put_raw(header, 8));
    assert_int_equal(safetensors_count(file), 3);
    assert_ok(safetensors_read(file, "b", &value, 1, &err), &err);
    assert_memory_equal(&value, &bits, sizeof(bits));
    assert_ok(safetensors_read(file, "none", &value, 0, &err), &err);
    float mask[4];
    assert_refused(safetensors_read(file, "mask", mask, 4, &err), STATUS_UNSUPPORTED, &err,
                   "tensor 'mask': dtype 'BOOL'", "F32, F16, BF16, F64");
    safetensors_close(file);
}

static void test_safetensors__failures_of_the_system_name_the_file(void **state)
{
    (void)state;
    const float one = 1.0f;
    const struct tensor_data tensor = {.name = "t", .rank = 0, .data = &one};
    struct error err;
    assert_open_refused(in_folder("absent"), STATUS_IO, "/absent", "No such file");
    assert_open_refused(test_folder, STATUS_INVALID, test_folder, "regular file");
    assert_refused(write_tensors(in_folder("no/such"), &tensor, 1, &err), STATUS_IO, &err,
                   "no/such", "No such file");
    assert_refused(write_tensors("/dev/full", &tensor, 1, &err), STATUS_IO, &err, "/dev/full",
                   "No space left");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors__gives_back_what_was_written),
        cmocka_unit_test(test_safetensors__data_begins_at_a_multiple_of_eight_bytes),
        cmocka_unit_test(test_safetensors__widens_every_16_bit_value),
        cmocka_unit_test(test_safetensors__narrows_doubles),
        cmocka_unit_test(test_safetensors__every_truncation_is_refused),
        cmocka_unit_test(test_safetensors__no_flipped_bit_gives_other_values),
        cmocka_unit_test(test_safetensors__random_damage_is_refused_or_harmless),
        cmocka_unit_test(test_safetensors__a_flipped_byte_names_file_and_tensor),
        cmocka_unit_test(test_safetensors__refuses_hostile_headers),
        cmocka_unit_test(test_safetensors__refuses_hostile_header_lengths),
        cmocka_unit_test(test_safetensors__refuses_a_header_nested_without_end),
        cmocka_unit_test(test_safetensors__reads_foreign_files),
        cmocka_unit_test(test_safetensors__failures_of_the_system_name_the_file),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
