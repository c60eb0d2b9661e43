#include "fixture.h"
#include "traces/figures.h"

static struct quantity known(double value)
{
    return (struct quantity){value, 0, PROVENANCE_MEASURED};
}

static void test_figures__value_has_a_unit(void **state)
{
    (void)state;
    char buffer[FIGURE_TEXT_BYTES];
    assert_string_equal(figure_value(FIGURE_SECONDS, known(0.0123), buffer), "12.3 ms");
    assert_string_equal(figure_value(FIGURE_BYTES, known(1536), buffer), "1.50 KiB");
    assert_string_equal(figure_value(FIGURE_JOULES, known(3.2), buffer), "3.20 J");
    assert_string_equal(figure_value(FIGURE_TOKENS_PER_S, known(25599.7), buffer), "25,600 tok/s");
}

static void test_figures__absent_is_a_word_and_zero_a_figure(void **state)
{
    (void)state;
    char buffer[FIGURE_TEXT_BYTES];
    for (int kind = FIGURE_SECONDS; kind <= FIGURE_TOKENS_PER_S; kind++) {
        assert_string_equal(figure_value((enum figure_kind)kind, quantity_absent(), buffer),
                            "absent");
        assert_string_not_equal(figure_value((enum figure_kind)kind, known(0), buffer), "absent");
    }
}

static void test_figures__error(void **state)
{
    (void)state;
    const struct {
        double error;
        const char *text;
    } cases[] = {{0.021, "+2.1 %"}, {-0.05, "-5.0 %"}, {0, "+0.0 %"},
                 {-1e-9, "+0.0 %"}, {12.3, "+1230 %"}, {-1, "-100.0 %"}};
    char buffer[FIGURE_TEXT_BYTES];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct comparison comparison = {.has_error = true, .error = cases[i].error};
        assert_string_equal(figure_error(&comparison, buffer), cases[i].text);
    }
    assert_string_equal(figure_error(&(struct comparison){0}, buffer), "-");
}

static void test_figures__ratio(void **state)
{
    (void)state;
    char buffer[FIGURE_TEXT_BYTES];
    struct rank_spread spread = {0.010, 0.0125};
    assert_string_equal(figure_ratio(&spread, 2, buffer), "1.25");
    assert_string_equal(figure_ratio(&spread, 1, buffer), "-");
    spread.minimum_s = 0;
    assert_string_equal(figure_ratio(&spread, 2, buffer), "-");
}

static void test_figures__date(void **state)
{
    (void)state;
    char buffer[FIGURE_TEXT_BYTES];
    assert_string_equal(figure_date(1795248000000, buffer), "2026-11-21 08:00 UTC");
    assert_string_equal(figure_date(0, buffer), "absent");
    assert_string_equal(figure_date(-5, buffer), "absent");
    assert_contains(figure_date(INT64_MAX, buffer), "UTC"); /* and within the buffer */
}

static void check_clean(const char *string, const char *expected)
{
    struct text text = {0};
    figure_clean(string, &text);
    assert_string_equal(text.data ? text.data : "", expected);
    text_free(&text);
}

static void test_figures__clean_keeps_text_and_replaces_the_rest(void **state)
{
    (void)state;
    check_clean("", "");
    check_clean("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82", "caf\xc3\xa9 \xe2\x82\xac "
                                                             "\xf0\x9f\x99\x82");
    check_clean("a\tb\nc\rd", "a b c d");
    check_clean("\x1b[31m", "\xef\xbf\xbd[31m");
    check_clean("\x7f", "\xef\xbf\xbd");
    check_clean("\xff", "\xef\xbf\xbd");
    check_clean("\xc3", "\xef\xbf\xbd");                 /* cut short */
    check_clean("\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"); /* cut short */
    check_clean("\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"); /* overlong */
    check_clean("\xc2\x85", "\xef\xbf\xbd\xef\xbf\xbd"); /* control character U+0085 */
    check_clean("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* surrogate */
    check_clean("\xef\xbf\xbf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* U+FFFF */
    check_clean("\xf5\x80\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
}

static void test_figures__clean_html_escapes(void **state)
{
    (void)state;
    struct text text = {0};
    figure_clean_html("<b a='1' c=\"2\">&\x01", &text);
    assert_string_equal(text.data, "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;\xef\xbf\xbd");
    text_free(&text);
}

static void test_figures__share(void **state)
{
    (void)state;
    char text[FIGURE_TEXT_BYTES];
    assert_string_equal(figure_share(0.1234, text), "12.3 %");
    assert_string_equal(figure_share(0, text), "0.0 %");
    assert_string_equal(figure_share(NAN, text), "-");
}

static void test_figures__stage(void **state)
{
    (void)state;
    char text[FIGURE_TEXT_BYTES];
    struct run_comparison comparison = {.predicted_stage = 1, .measured_stage = 1};
    assert_string_equal(figure_stage(&comparison, text), "stage 1");
    comparison.predicted_stage = 0;
    assert_string_equal(figure_stage(&comparison, text), "stage 1 (predicted: of stage 0)");
    comparison.predicted_stage = -1;
    assert_string_equal(figure_stage(&comparison, text), "stage 1");
    comparison.measured_stage = -1;
    assert_string_equal(figure_stage(&comparison, text), "absent");
}

static void test_figures__how_a_plan_splits(void **state)
{
    (void)state;
    char line[FIGURE_LINE_BYTES], text[FIGURE_TEXT_BYTES];
    struct layer_strategy layers[] = {
        {.stage = 3, .tensor_parallel = 1},
        {.stage = 3, .tensor_parallel = 4, .sequence_parallel = true, .zero_stage = 2}};
    struct plan plan = {.ranks = 1,
                        .data_parallel = 1,
                        .tensor_parallel = 1,
                        .pipeline = 1,
                        .virtual_stages = 1,
                        .schedule = SCHEDULE_1F1B,
                        .layers = layers,
                        .layer_count = 1};
    assert_string_equal(figure_split(&plan, "x", line), "1 rank");
    assert_string_equal(figure_schedule(&plan, text), "none");
    assert_string_equal(figure_strategy(&plan, &layers[0], text), "-");
    assert_false(figure_has_strategies(&plan));
    plan.layer_count = 2;
    assert_true(figure_has_strategies(&plan));
    plan.ranks = 16;
    plan.tensor_parallel = 4;
    plan.pipeline = 2;
    plan.data_parallel = 2;
    assert_string_equal(figure_split(&plan, "x", line),
                        "16 ranks = data 2 x tensor 4 x pipeline 2");
    assert_string_equal(figure_schedule(&plan, text), "1f1b over 2 stages");
    plan.data_parallel = 1;
    plan.virtual_stages = 2;
    plan.schedule = SCHEDULE_INTERLEAVED;
    assert_string_equal(figure_split(&plan, "x", line), "16 ranks = tensor 4 x pipeline 2");
    assert_string_equal(figure_schedule(&plan, text), "interleaved over 2 stages x 2 chunks");
    assert_string_equal(figure_strategy(&plan, &layers[0], text), "stage 1, chunk 1");
    assert_string_equal(figure_strategy(&plan, &layers[1], text),
                        "stage 1, chunk 1, t 4 + sp, ZeRO 2");
}

/* Zero on both sides is nothing to show; what is not known, or was planned and did not happen, is.
 */
static void test_figures__idle(void **state)
{
    (void)state;
    const struct quantity zero = {0, 0, PROVENANCE_MEASURED}, one = {1, 0, PROVENANCE_MEASURED};
    const struct quantity absent = quantity_absent();
    assert_true(figure_is_idle(&(struct comparison){.predicted = zero, .measured = zero}));
    assert_true(figure_is_idle(&(struct comparison){.predicted = absent, .measured = zero}));
    assert_false(figure_is_idle(&(struct comparison){.predicted = one, .measured = zero}));
    assert_false(figure_is_idle(&(struct comparison){.predicted = zero, .measured = one}));
    assert_false(figure_is_idle(&(struct comparison){.predicted = zero, .measured = absent}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures__value_has_a_unit),
        cmocka_unit_test(test_figures__absent_is_a_word_and_zero_a_figure),
        cmocka_unit_test(test_figures__error),
        cmocka_unit_test(test_figures__ratio),
        cmocka_unit_test(test_figures__date),
        cmocka_unit_test(test_figures__clean_keeps_text_and_replaces_the_rest),
        cmocka_unit_test(test_figures__clean_html_escapes),
        cmocka_unit_test(test_figures__share),
        cmocka_unit_test(test_figures__stage),
        cmocka_unit_test(test_figures__how_a_plan_splits),
        cmocka_unit_test(test_figures__idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
