#include "support.h"

#include "executor/data.h"
#include <stdbool.h>

enum { TEXT_VOCAB = 256 };

static struct dataset *open_data(const struct dataset_options *options)
{
    struct error err;
    struct dataset *dataset = NULL;
    assert_ok(dataset_open(&dataset, options, &err), &err);
    return dataset;
}

static void assert_open_refused(const struct dataset_options *options, enum status expected,
                                const char *part, const char *other_part)
{
    struct error err;
    struct dataset *dataset = NULL;
    assert_refused(dataset_open(&dataset, options, &err), expected, &err, part, other_part);
    assert_null(dataset);
}

static void train(struct dataset *dataset, int64_t first, int64_t count, int32_t *tokens,
                  int32_t *targets)
{
    struct error err;
    assert_ok(dataset_train_windows(dataset, first, count, tokens, targets, &err), &err);
}

/* A text of `bytes` bytes in which every byte tells its place, as long as there are 256 at most. */
static const char *counting_text(const char *name, size_t bytes)
{
    unsigned char *text = malloc(bytes + 1);
    assert_non_null(text);
    for (size_t i = 0; i < bytes; i++)
        text[i] = (unsigned char)i;
    const char *path = in_folder(name);
    put_bytes(path, text, bytes);
    free(text);
    return path;
}

/* ---- text ---- */

static void test_data__splits_a_text_into_nine_tenths_and_the_rest(void **state)
{
    (void)state;
    for (size_t bytes = 20; bytes < 60; bytes++) {
        struct dataset *dataset = open_data(&(struct dataset_options){
            .path = counting_text("text", bytes), .vocab = TEXT_VOCAB, .seq_length = 1});
        assert_int_equal(dataset_tokens(dataset, SPLIT_TRAIN), bytes * 9 / 10);
        assert_int_equal(dataset_tokens(dataset, SPLIT_VALIDATION), bytes - bytes * 9 / 10);
        dataset_close(dataset);
    }
}

static void test_data__draws_every_place_of_the_training_split_and_no_other(void **state)
{
    (void)state;
    enum { BYTES = 250, TRAIN = 225, SEQ = 7, SAMPLES = 20000 };
    static int32_t tokens[SAMPLES * SEQ], targets[SAMPLES * SEQ];
    int seen[TRAIN] = {0};
    struct dataset *dataset = open_data(&(struct dataset_options){
        .path = counting_text("text", BYTES), .vocab = TEXT_VOCAB, .seq_length = SEQ, .seed = 3});
    train(dataset, 0, SAMPLES, tokens, targets);
    for (size_t i = 0; i < SAMPLES; i++) {
        int32_t first = tokens[i * SEQ];
        assert_in_range(first, 0, TRAIN - SEQ - 1);
        seen[first]++;
        for (int32_t k = 0; k < SEQ; k++) {
            assert_int_equal(tokens[i * SEQ + (size_t)k], first + k);
            assert_int_equal(targets[i * SEQ + (size_t)k], first + k + 1);
        }
    }
    /* 218 places, 92 draws each on average; 5 deviations are 48. */
    for (size_t place = 0; place < TRAIN - SEQ; place++)
        assert_in_range(seen[place], 44, 140);
    dataset_close(dataset);
}

static void test_data__a_sample_depends_on_seed_and_index_alone(void **state)
{
    (void)state;
    enum { SEQ = 5, SAMPLES = 64 };
    int32_t whole[2][SAMPLES * SEQ], pieces[2][SAMPLES * SEQ], other[2][SAMPLES * SEQ];
    struct dataset_options options = {.path = counting_text("text", 256),
                                      .vocab = TEXT_VOCAB,
                                      .seq_length = SEQ,
                                      .seed = UINT64_MAX};
    struct dataset *dataset = open_data(&options);
    train(dataset, 1000, SAMPLES, whole[0], whole[1]);
    for (int64_t i = SAMPLES - 1; i >= 0; i--)
        train(dataset, 1000 + i, 1, pieces[0] + i * SEQ, pieces[1] + i * SEQ);
    assert_memory_equal(whole, pieces, sizeof(whole));
    dataset_close(dataset);

    dataset = open_data(&options);
    train(dataset, 1000, SAMPLES / 2, pieces[0], pieces[1]);
    train(dataset, 1000 + SAMPLES / 2, SAMPLES / 2, pieces[0] + SAMPLES / 2 * SEQ,
          pieces[1] + SAMPLES / 2 * SEQ);
    assert_memory_equal(whole, pieces, sizeof(whole));
    dataset_close(dataset);

    options.seed = 1;
    dataset = open_data(&options);
    train(dataset, 1000, SAMPLES, other[0], other[1]);
    assert_memory_not_equal(whole, other, sizeof(whole));
    dataset_close(dataset);
}

static void test_data__spreads_validation_windows_over_the_whole_split(void **state)
{
    (void)state;
    enum { SEQ = 4, MAX = 256 };
    static int32_t tokens[MAX * SEQ], targets[MAX * SEQ];
    struct error err;
    for (int64_t bytes = SEQ + 1; bytes <= MAX; bytes += 3) {
        struct dataset *dataset = open_data(
            &(struct dataset_options){.path = counting_text("train", 100),
                                      .validation_path = counting_text("validation", (size_t)bytes),
                                      .vocab = TEXT_VOCAB,
                                      .seq_length = SEQ});
        assert_int_equal(dataset_tokens(dataset, SPLIT_TRAIN), 100);
        assert_int_equal(dataset_tokens(dataset, SPLIT_VALIDATION), bytes);
        int64_t windows = dataset_validation_window_count(dataset);
        assert_int_equal(windows, (bytes - 1) / SEQ);
        assert_ok(dataset_validation_windows(dataset, windows, 0, windows, tokens, targets, &err),
                  &err);
        assert_int_equal(tokens[0], 0);
        if (windows > 1)
            assert_int_equal(targets[windows * SEQ - 1], bytes - 1);
        for (int64_t i = 1; i < windows; i++)
            assert_true(tokens[i * SEQ] >= targets[i * SEQ - 1]); /* no target twice */
        dataset_close(dataset);
    }
}

static void test_data__validation_windows_do_not_depend_on_how_they_are_asked_for(void **state)
{
    (void)state;
    enum { SEQ = 6, TOTAL = 17 };
    int32_t whole[2][TOTAL * SEQ], pieces[2][TOTAL * SEQ];
    struct error err;
    struct dataset *dataset = open_data(&(struct dataset_options){
        .path = counting_text("text", 256), .vocab = TEXT_VOCAB, .seq_length = SEQ});
    assert_ok(dataset_validation_windows(dataset, TOTAL, 0, TOTAL, whole[0], whole[1], &err), &err);
    for (int64_t i = 0; i < TOTAL; i++) {
        assert_ok(dataset_validation_windows(dataset, TOTAL, i, 1, pieces[0] + i * SEQ,
                                             pieces[1] + i * SEQ, &err),
                  &err);
        assert_in_range(pieces[0][i * SEQ], 230, 255 - SEQ); /* of the last tenth */
    }
    assert_memory_equal(whole, pieces, sizeof(whole));
    dataset_close(dataset);
}

static void test_data__needs_one_whole_window_in_either_split(void **state)
{
    (void)state;
    struct dataset_options options = {.vocab = TEXT_VOCAB, .seq_length = 9};
    options.path = counting_text("text", 10);
    options.validation_path = counting_text("validation", 10);
    dataset_close(open_data(&options));
    options.path = counting_text("text", 9);
    assert_open_refused(&options, STATUS_INVALID, "/text: 9 tokens", "training");
    options.path = counting_text("text", 10);
    options.validation_path = counting_text("validation", 9);
    assert_open_refused(&options, STATUS_INVALID, "/validation: 9 tokens", "at least 10");
    options.path = counting_text("text", 99);
    options.validation_path = NULL; /* 89 and 10 */
    dataset_close(open_data(&options));
    options.path = counting_text("text", 90); /* 81 and 9 */
    assert_open_refused(&options, STATUS_INVALID, "/text: 9 tokens", "validation");
    options.path = counting_text("text", 0);
    assert_open_refused(&options, STATUS_INVALID, "/text: 0 tokens", "training");
}

static void test_data__refuses_what_is_not_a_file_of_text(void **state)
{
    (void)state;
    struct dataset_options options = {.vocab = TEXT_VOCAB, .seq_length = 4};
    options.path = in_folder("absent");
    assert_open_refused(&options, STATUS_IO, "/absent", "No such file");
    options.path = test_folder;
    assert_open_refused(&options, STATUS_INVALID, test_folder, "regular file");
    options.path = in_folder("pipe");
    assert_int_equal(mkfifo(options.path, 0600), 0);
    assert_open_refused(&options, STATUS_INVALID, "/pipe", "regular file");
    options.path = counting_text("text", 256);
    options.vocab = 255;
    assert_open_refused(&options, STATUS_INVALID, "/text", "at least 256; the model has 255");
    options.vocab = TEXT_VOCAB;
    options.validation_path = in_folder("absent");
    assert_open_refused(&options, STATUS_IO, "/absent", "No such file");
}

static void test_data__notices_a_file_that_became_shorter(void **state)
{
    (void)state;
    int32_t tokens[2000], targets[2000];
    struct error err;
    struct dataset_options options = {
        .path = counting_text("text", 256), .vocab = TEXT_VOCAB, .seq_length = 100};
    options.validation_path = options.path;
    struct dataset *dataset = open_data(&options);
    assert_int_equal(truncate(options.path, 50), 0);
    assert_refused(dataset_train_windows(dataset, 0, 20, tokens, targets, &err), STATUS_CORRUPT,
                   &err, "/text", "shorter");
    dataset_close(dataset);
}

/* ---- llm.c's .bin ---- */

struct bin {
    int32_t header[256];
    unsigned char data[64];
    size_t data_bytes;
};

static const char *put_bin(const struct bin *bin)
{
    const char *path = in_folder("tokens.bin");
    put_bytes(path, bin, sizeof(bin->header) + bin->data_bytes);
    return path;
}

static void test_data__reads_16_and_32_bit_tokens(void **state)
{
    (void)state;
    static const uint16_t narrow[] = {1, 65535, 3, 50256, 5};
    static const uint32_t wide[] = {1, 128255, 3, 65536, 5};
    int32_t tokens[4], targets[4];
    struct error err;
    for (int kind = 0; kind < 2; kind++) {
        struct bin bin = {.header = {kind ? 20240801 : 20240520, kind ? 7 : 1, 5, -1}};
        bin.data_bytes = kind ? sizeof(wide) : sizeof(narrow);
        memcpy(bin.data, kind ? (const void *)wide : (const void *)narrow, bin.data_bytes);
        struct dataset_options options = {.path = put_bin(&bin), .vocab = 131072, .seq_length = 4};
        options.validation_path = options.path;
        struct dataset *dataset = open_data(&options);
        train(dataset, 7, 1, tokens, targets);
        for (size_t i = 0; i < 4; i++) {
            assert_int_equal(tokens[i], kind ? (int32_t)wide[i] : narrow[i]);
            assert_int_equal(targets[i], kind ? (int32_t)wide[i + 1] : narrow[i + 1]);
        }
        dataset_close(dataset);
        options.vocab = 50257;
        dataset = open_data(&options);
        assert_refused(dataset_validation_windows(dataset, 1, 0, 1, tokens, targets, &err),
                       STATUS_INVALID, &err,
                       kind ? "tokens.bin: token 1 (at byte 1028) is 128255"
                            : "tokens.bin: token 1 (at byte 1026) is 65535",
                       "50257");
        dataset_close(dataset);
    }
}

static void test_data__a_token_equal_to_the_vocabulary_is_refused(void **state)
{
    (void)state;
    struct bin bin = {.header = {20240801, 7, 3}, .data_bytes = 12};
    int32_t tokens[2], targets[2];
    struct error err;
    /* As int32 it would be negative. */
    for (int kind = 0; kind < 2; kind++) {
        memcpy(bin.data, (uint32_t[]){0, 1, kind ? UINT32_MAX : 300}, 12);
        struct dataset_options options = {.path = put_bin(&bin), .vocab = 300, .seq_length = 2};
        options.validation_path = options.path;
        struct dataset *dataset = open_data(&options);
        assert_refused(dataset_train_windows(dataset, 0, 1, tokens, targets, &err), STATUS_INVALID,
                       &err, kind ? "is 4294967295" : "is 300", "300 entries");
        dataset_close(dataset);
    }
}

static void test_data__refuses_hostile_bin_headers(void **state)
{
    (void)state;
    static const struct {
        int32_t magic, version, tokens;
        size_t data_bytes;
        enum status status;
        const char *part;
    } cases[] = {
        {20240520, 1, 9, 16, STATUS_CORRUPT, "tells of 9 tokens"},
        {20240520, 1, 7, 16, STATUS_CORRUPT, "tells of 7 tokens"},
        {20240520, 1, 8, 15, STATUS_CORRUPT, "has 1039 bytes"},
        {20240520, 1, 8, 0, STATUS_CORRUPT, "torn"},
        {20240520, 1, -8, 16, STATUS_CORRUPT, "-8 tokens"},
        {20240520, 1, -500, 24, STATUS_CORRUPT, "-500 tokens"}, /* 1024 - 1000 = 24 */
        {20240520, 1, INT32_MAX, 16, STATUS_CORRUPT, "2147483647 tokens"},
        {20240520, 7, 4, 16, STATUS_UNSUPPORTED, "version 7, expected 1"},
        {20240801, 1, 4, 16, STATUS_UNSUPPORTED, "version 1, expected 7"},
        {20240801, 7, 8, 16, STATUS_CORRUPT, "make 1056"},
        {0, 1, 8, 16, STATUS_INVALID, "magic 0"},
        {0x20746f4e, 1, 8, 16, STATUS_INVALID, "must not end in .bin"},
        {20240520, 1, 0, 0, STATUS_INVALID, "0 tokens"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct bin bin = {.header = {cases[i].magic, cases[i].version, cases[i].tokens},
                          .data_bytes = cases[i].data_bytes};
        struct dataset_options options = {.path = put_bin(&bin), .vocab = 65536, .seq_length = 2};
        assert_open_refused(&options, cases[i].status, "tokens.bin", cases[i].part);
    }
    struct dataset_options options = {
        .path = counting_text("short.bin", 1023), .vocab = 65536, .seq_length = 2};
    assert_open_refused(&options, STATUS_CORRUPT, "short.bin", "1023 bytes");
    options.path = counting_text("empty.bin", 0);
    assert_open_refused(&options, STATUS_CORRUPT, "empty.bin", "0 bytes");
}

/* ---- docs/data.md ---- */

/* Lines of a place, bytes and a comment; returns how long the file is. */
static size_t parse_hex(char *text, unsigned char *file, size_t capacity)
{
    size_t bytes = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *at = line;
        size_t place = strtoull(line, &at, 16);
        for (char *end = at;; at = end) {
            unsigned long value = strtoul(at, &end, 16);
            if (end == at)
                break;
            assert_true(place < capacity && value < 256);
            file[place++] = (unsigned char)value;
        }
        bytes = place;
    }
    return bytes;
}

static void test_data__reads_the_example_of_its_page(void **state)
{
    (void)state;
    unsigned char file[2048] = {0};
    int32_t tokens[7], targets[7];
    static const int32_t expected[] = {5, 6, 7, 8, 9, 10, 11, 50175};
    char *text = page_example("docs/data.md", "hex");
    const char *path = in_folder("example.bin");
    size_t bytes = parse_hex(text, file, sizeof(file));
    put_bytes(path, file, bytes);
    free(text);
    struct dataset *dataset = open_data(&(struct dataset_options){
        .path = path, .validation_path = path, .vocab = 50257, .seq_length = 7});
    train(dataset, 0, 1, tokens, targets);
    assert_memory_equal(tokens, expected, sizeof(tokens));
    assert_memory_equal(targets, expected + 1, sizeof(targets));
    dataset_close(dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data__splits_a_text_into_nine_tenths_and_the_rest),
        cmocka_unit_test(test_data__draws_every_place_of_the_training_split_and_no_other),
        cmocka_unit_test(test_data__a_sample_depends_on_seed_and_index_alone),
        cmocka_unit_test(test_data__spreads_validation_windows_over_the_whole_split),
        cmocka_unit_test(test_data__validation_windows_do_not_depend_on_how_they_are_asked_for),
        cmocka_unit_test(test_data__needs_one_whole_window_in_either_split),
        cmocka_unit_test(test_data__refuses_what_is_not_a_file_of_text),
        cmocka_unit_test(test_data__notices_a_file_that_became_shorter),
        cmocka_unit_test(test_data__reads_16_and_32_bit_tokens),
        cmocka_unit_test(test_data__a_token_equal_to_the_vocabulary_is_refused),
        cmocka_unit_test(test_data__refuses_hostile_bin_headers),
        cmocka_unit_test(test_data__reads_the_example_of_its_page),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
