#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/options.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
    bool quiet, verbose;
    const char *output, *data;
    int64_t ranks, offset;
    double rate;
    uint64_t cap_bytes;
};

#define FIELD(name) offsetof(struct settings, name)

static const struct option_spec main_rows[] = {
    {"quiet", 'q', OPTION_FLAG, FIELD(quiet), NULL, NULL, "Say less.", 0, 0},
    {"verbose", 'v', OPTION_FLAG, FIELD(verbose), NULL, NULL, "Say more.", 0, 0},
    {"output", 'o', OPTION_STRING, FIELD(output), "FILE", "plan.json", "Write the plan here.", 0,
     0},
    {"data", 0, OPTION_STRING, FIELD(data), "FILE", NULL, "The text.", 0, 0},
};
static const struct option_spec number_rows[] = {
    {"ranks", 'n', OPTION_INT, FIELD(ranks), "N", "2", "How many.", 1, 4096},
    {"offset", 0, OPTION_INT, FIELD(offset), "N", NULL, "Unbounded.", 0, 0},
    {"rate", 0, OPTION_REAL, FIELD(rate), "R", "6e-4",
     "A sentence that is long enough to be wrapped in the help, because it goes on and on until "
     "the "
     "hundredth column has been passed at least once.",
     0, 1e300},
    {"memory-cap-of-one-rank-in-total", 0, OPTION_BYTES, FIELD(cap_bytes), "BYTES", "2GiB", "Cap.",
     0, 0},
};
static const struct option_table groups[] = {
    {main_rows, 4, "General"},
    {number_rows, 4, "Numbers"},
};
static const struct command_spec command = {
    .name = "plan",
    .summary = "search the best split",
    .synopsis = "MODEL [OTHER] [options]",
    .description = ".Leading dot, a 'quoted' \\backslash and --dashes.\n\nSecond paragraph.\n"
                   "  - an item",
    .groups = groups,
    .group_count = 2,
    .example = "temper plan a.json -o b.json\n'odd' .dot",
    .positional_minimum = 1,
    .positional_maximum = 2,
};

/* Parses words separated by blanks; "~" stands for an empty word. */
static enum status parse(const char *line, struct settings *settings,
                         struct positionals *positionals, struct error *err)
{
    static char words[512];
    char *argv[32], *rest = NULL;
    int argc = 0;
    (void)snprintf(words, sizeof(words), "%s", line);
    for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = strcmp(word, "~") == 0 ? word + 1 : word;
    memset(settings, 0, sizeof(*settings));
    settings->offset = 41;
    return options_parse(&command, argc, argv, settings, positionals, err);
}

static struct settings accept(const char *line, struct positionals *positionals)
{
    struct settings settings;
    struct error err;
    if (parse(line, &settings, positionals, &err) != STATUS_OK)
        fail_msg("'%s': %s", line, err.message);
    return settings;
}

static void refuse(const char *line, const char *expected)
{
    struct settings settings;
    struct positionals positionals;
    struct error err;
    if (parse(line, &settings, &positionals, &err) != STATUS_USAGE)
        fail_msg("'%s' was accepted", line);
    if (!strstr(err.message, expected))
        fail_msg("'%s': '%s' has no '%s'", line, err.message, expected);
}

static void test_options__defaults(void **state)
{
    (void)state;
    struct positionals positionals;
    struct settings settings = accept("m", &positionals);
    assert_false(settings.quiet);
    assert_string_equal(settings.output, "plan.json");
    assert_null(settings.data);
    assert_int_equal(settings.ranks, 2);
    assert_int_equal(settings.offset, 41);
    assert_true(settings.rate == 6e-4);
    assert_int_equal(settings.cap_bytes, UINT64_C(2) << 30);
    assert_int_equal(positionals.count, 1);
    assert_string_equal(positionals.values[0], "m");
}

static void test_options__every_way_to_give_a_value(void **state)
{
    (void)state;
    struct positionals positionals;
    const char *const lines[] = {"m --ranks 8 --output x -q",
                                 "--ranks=8 m --output=x --quiet",
                                 "-n 8 -o x m -q",
                                 "-n8 -ox -q m",
                                 "-qn8 -o x m",
                                 "-q -n3 --ranks 8 -ox -- m"};
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct settings settings = accept(lines[i], &positionals);
        assert_int_equal(settings.ranks, 8);
        assert_string_equal(settings.output, "x");
        assert_true(settings.quiet);
        assert_false(settings.verbose);
        assert_string_equal(positionals.values[0], "m");
    }
    struct settings settings = accept("--offset -5 --data=--x=y --rate=-0 m", &positionals);
    assert_int_equal(settings.offset, -5);
    assert_string_equal(settings.data, "--x=y");
    settings = accept("-qv m --data=", &positionals);
    assert_true(settings.quiet && settings.verbose);
    assert_string_equal(settings.data, "");
}

static void test_options__positionals(void **state)
{
    (void)state;
    struct positionals positionals;
    (void)accept("- -- --ranks", &positionals);
    assert_int_equal(positionals.count, 2);
    assert_string_equal(positionals.values[0], "-");
    assert_string_equal(positionals.values[1], "--ranks");
    refuse("", "MODEL [OTHER]");
    refuse("-q", "missing");
    refuse("a b c", "'c'");
}

static void test_options__numbers_are_strict(void **state)
{
    (void)state;
    struct positionals positionals;
    const char *const not_whole[] = {"~",   "x", "1.5", "1e3", "0x10", "3k",
                                     "--3", "+", "-",   "1-",  "١"};
    for (size_t i = 0; i < sizeof(not_whole) / sizeof(not_whole[0]); i++) {
        char line[64];
        (void)snprintf(line, sizeof(line), "m --offset%s%s", not_whole[i][0] == '~' ? " " : "=",
                       not_whole[i]);
        refuse(line, "option '--offset'");
    }
    const char *const not_real[] = {"inf", "nan", "0x1p3", "1e999", "1e", "--1", "1,5", "."};
    for (size_t i = 0; i < sizeof(not_real) / sizeof(not_real[0]); i++) {
        char line[64];
        (void)snprintf(line, sizeof(line), "m --rate=%s", not_real[i]);
        refuse(line, "option '--rate'");
    }
    assert_true(accept("m --offset 9223372036854775807", &positionals).offset == INT64_MAX);
    assert_true(accept("m --offset -9223372036854775808", &positionals).offset == INT64_MIN);
    refuse("m --offset 9223372036854775808", "64 bits");
    refuse("m --memory-cap-of-one-rank-in-total 2GX", "option '--memory-cap-of-one-rank-in-total'");
}

static void test_options__ranges_name_their_limits(void **state)
{
    (void)state;
    struct positionals positionals;
    assert_int_equal(accept("m --ranks 1", &positionals).ranks, 1);
    assert_int_equal(accept("m --ranks 4096", &positionals).ranks, 4096);
    refuse("m --ranks 0", "option '--ranks': 0 is out of range; it must be from 1 to 4096");
    refuse("m -n 4097", "from 1 to 4096");
    refuse("m --rate=-1", "at least 0");
}

static void test_options__mistakes_are_explained(void **state)
{
    (void)state;
    refuse("m --rank 2", "did you mean '--ranks'?");
    refuse("m --memory-cap 2", "did you mean '--memory-cap-of-one-rank-in-total'?");
    refuse("m --ouptut=x", "unknown option '--ouptut'; did you mean '--output'?");
    refuse("m --zzzzzz", "--help");
    refuse("m -z", "unknown option '-z'");
    refuse("m -qz", "'-qz'");
    refuse("m --quiet=1", "takes no value");
    refuse("m --output", "--output FILE");
    refuse("m -o", "--output FILE");
    refuse("m --output --quiet", "'--quiet' follows");
    refuse("m --=x", "unknown option");
}

static void test_options__nearest_word(void **state)
{
    (void)state;
    const char *const words[] = {"model", "profile", "plan", "run", "report", "sample"};
    assert_string_equal(nearest_word("pln", words, 6), "plan");
    assert_string_equal(nearest_word("reprot", words, 6), "report");
    assert_string_equal(nearest_word("prof", words, 6), "profile");
    assert_string_equal(nearest_word("urn", words, 6), "run");
    assert_string_equal(nearest_word("smaple", words, 6), "sample");
    assert_null(nearest_word("xyzzy", words, 6));
    assert_null(nearest_word("", words, 6));
    assert_null(nearest_word("plan", words, 0));
    char longer[300];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    const char *const long_words[] = {longer};
    assert_null(nearest_word(longer, words, 6));
    assert_null(nearest_word("a", long_words, 1));
}

static void test_options__help_fits_and_shows_everything(void **state)
{
    (void)state;
    struct text help = {0};
    options_help(&command, &help);
    assert_false(help.failed);
    assert_non_null(strstr(help.data, "usage: temper plan MODEL [OTHER] [options]\n"));
    assert_non_null(strstr(help.data, "\nNumbers:\n"));
    assert_non_null(
        strstr(help.data, "  -o, --output FILE  Write the plan here. (default: plan.json)\n"));
    assert_non_null(strstr(help.data, "      --data FILE    The text.\n"));
    assert_non_null(strstr(help.data, "      --memory-cap-of-one-rank-in-total BYTES\n"
                                      "                     Cap. (default: 2GiB)\n"));
    assert_non_null(strstr(help.data, "  - an item\n"));
    assert_non_null(strstr(help.data, "  temper plan a.json -o b.json\n"));
    for (const char *line = help.data; *line != '\0'; line += strcspn(line, "\n") + 1) {
        size_t columns = strcspn(line, "\n");
        assert_true(columns <= 100);
        assert_true(columns == 0 || line[columns - 1] != ' ');
    }
    text_free(&help);
}

/* groff prints a warning for every request or escape that it does not know. */
static void test_options__man_page_is_clean_roff(void **state)
{
    (void)state;
    struct text page = {0};
    char path[] = "/tmp/temper-man-XXXXXX", shell[256], rendered[16384];
    if (system("command -v groff >/dev/null 2>&1") != 0)
        skip();
    options_man_page(&command, "1.2", &page);
    assert_false(page.failed);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, page.data, page.bytes), (ssize_t)page.bytes);
    close(fd);
    (void)snprintf(shell, sizeof(shell), "groff -ww -man -Tascii -P-cbou %s 2>&1", path);
    FILE *pipe = popen(shell, "r");
    assert_non_null(pipe);
    size_t bytes = fread(rendered, 1, sizeof(rendered) - 1, pipe);
    rendered[bytes] = '\0';
    assert_int_equal(pclose(pipe), 0);
    unlink(path);
    assert_null(strstr(rendered, "warning"));
    assert_non_null(strstr(rendered, "temper-plan - search the best split"));
    assert_non_null(strstr(rendered, ".Leading dot, a 'quoted' \\backslash and --dashes."));
    assert_non_null(strstr(rendered, "-o, --output FILE"));
    assert_non_null(strstr(rendered, "(default: plan.json)"));
    assert_non_null(strstr(rendered, "'odd' .dot"));
    assert_non_null(strstr(rendered, "TEMPER-PLAN(1)"));
    text_free(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options__defaults),
        cmocka_unit_test(test_options__every_way_to_give_a_value),
        cmocka_unit_test(test_options__positionals),
        cmocka_unit_test(test_options__numbers_are_strict),
        cmocka_unit_test(test_options__ranges_name_their_limits),
        cmocka_unit_test(test_options__mistakes_are_explained),
        cmocka_unit_test(test_options__nearest_word),
        cmocka_unit_test(test_options__help_fits_and_shows_everything),
        cmocka_unit_test(test_options__man_page_is_clean_roff),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
