#include "fixture.h"
#include "traces/terminal.h"
#include <stdio.h>

static void report(const struct run_record *record, struct text *out)
{
    struct run_comparison comparison;
    struct error err;
    assert_ok(compare_run(record, &comparison, &err), &err);
    assert_ok(terminal_report(record, &comparison, out, &err), &err);
    run_comparison_clear(&comparison);
}

static void report_fixture(const struct fixture_options *options, struct text *out)
{
    struct run_record record;
    fixture_make(&record, options);
    report(&record, out);
    run_record_free(&record);
}

static void test_terminal__shows_every_figure_with_its_unit(void **state)
{
    (void)state;
    struct text text = {0};
    report_fixture(&fixture_full, &text);
    assert_contains(text.data, "Run 7: done, started 2026-11-21 08:00 UTC");
    assert_contains(text.data, "step time               57.0 ms          60.0 ms    -5.0 %  "
                               "interpolated  measured");
    assert_contains(text.data, "throughput         26,947 tok/s     25,600 tok/s    +5.3 %");
    assert_contains(text.data, "energy                   1.40 J           1.50 J    -6.7 %");
    assert_contains(text.data, "grad_reduce             1.71 ms          2.70 ms   -36.7 %    "
                               "4.5 %     1.01");
    assert_contains(text.data, "exposed        2.70 ms, 4.5 % of the step");
    assert_lacks(text.data, "param_gather");
    assert_lacks(text.data, "bubble");
    assert_contains(text.data, "attention 3    bf16  selective");
    assert_contains(text.data, "process                30.0 MiB         30.6 MiB    -2.0 %");
    assert_contains(text.data, "predicted / measured - 1");
    text_free(&text);
}

/* Between two blank lines every row is as wide as its heading or narrower only by its last column.
 */
static void test_terminal__columns_are_aligned(void **state)
{
    (void)state;
    struct text text = {0};
    report_fixture(&fixture_full, &text);
    static const char *const tables[] = {"\nPhase ", "\nMemory ", "\nLayer "};
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        const char *line = strstr(text.data, tables[i]) + 1;
        size_t width = strcspn(line, "\n");
        for (; *line != '\n'; line += strcspn(line, "\n") + 1)
            assert_int_equal(strcspn(line, "\n"), width);
    }
    text_free(&text);
}

static void test_terminal__shows_stages_bubble_and_communication(void **state)
{
    (void)state;
    struct run_record record;
    struct text text = {0};
    fixture_make_split(&record, 2);
    report(&record, &text);
    assert_contains(text.data,
                    "plan       8 ranks = data 2 x tensor 2 x pipeline 2, 1 thread each");
    assert_contains(text.data, "schedule   1f1b over 2 stages");
    assert_contains(text.data, "the stage with most to do is the one shown: stage 1\n");
    assert_contains(text.data, "bubble         4.04 ms, 5.4 % of the step");
    assert_contains(text.data, "tensor                 40     3.75 MiB      1.60 ms      1.60 ms");
    assert_contains(text.data, "mlp 3          stage 1, t 2 + sp, ZeRO 3");
    static const char *const tables[] = {"\nPhase ", "\nCommunication ", "\nLayer "};
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        const char *line = strstr(text.data, tables[i]) + 1;
        size_t width = strcspn(line, "\n");
        for (; *line != '\n'; line += strcspn(line, "\n") + 1)
            assert_int_equal(strcspn(line, "\n"), width);
    }
    text_free(&text);
    run_record_free(&record);
}

static void test_terminal__absent_is_said(void **state)
{
    (void)state;
    const struct fixture_options options = {.blocks = 1, .ranks = 1, .micro_batches = 1};
    struct text text = {0};
    report_fixture(&options, &text);
    assert_contains(text.data, "step time                absent           absent         -");
    assert_contains(text.data, "loss       absent");
    assert_contains(text.data, "forward                  absent           absent");
    assert_lacks(text.data, "nan");
    text_free(&text);
}

static void test_terminal__failed_run_says_so(void **state)
{
    (void)state;
    struct run_record record;
    struct text text = {0};
    fixture_make(&record, &fixture_full);
    record.info.status = RUN_FAILED;
    record.info.skipped_steps = 3;
    record.steps[record.step_count - 1].loss = NAN;
    report(&record, &text);
    assert_contains(text.data, "Run 7: failed");
    assert_contains(text.data, "3 skipped: gradient not finite");
    assert_contains(text.data, "not finite at the last step");
    text_free(&text);
    run_record_free(&record);
}

static void test_terminal__hostile_names_cannot_drive_it(void **state)
{
    (void)state;
    struct run_record record;
    struct text text = {0};
    fixture_make(&record, &fixture_full);
    (void)snprintf(record.info.host, sizeof(record.info.host), "\x1b]0;owned\x07\xff%%s%%n");
    report(&record, &text);
    assert_null(strchr(text.data, '\x1b'));
    assert_null(strchr(text.data, '\x07'));
    assert_contains(text.data, "%s%n");
    text_free(&text);
    run_record_free(&record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_terminal__shows_every_figure_with_its_unit),
        cmocka_unit_test(test_terminal__columns_are_aligned),
        cmocka_unit_test(test_terminal__shows_stages_bubble_and_communication),
        cmocka_unit_test(test_terminal__absent_is_said),
        cmocka_unit_test(test_terminal__failed_run_says_so),
        cmocka_unit_test(test_terminal__hostile_names_cannot_drive_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
