#include "fixture.h"
#include "traces/page.h"
#include <stdio.h>

static void write_page(const struct run_record *record, struct text *out)
{
    struct run_comparison comparison;
    struct error err;
    assert_ok(compare_run(record, &comparison, &err), &err);
    assert_ok(page_write(record, &comparison, out, &err), &err);
    run_comparison_clear(&comparison);
}

static size_t occurrences(const char *text, const char *part)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        count++;
    return count;
}

static void test_page__shows_the_golden_figures(void **state)
{
    (void)state;
    struct run_record record;
    struct text html = {0};
    fixture_make(&record, &fixture_full);
    write_page(&record, &html);
    assert_contains(html.data, "<b>60.0<small> ms</small></b>");
    assert_contains(html.data, "predicted 57.0 ms");
    assert_contains(html.data, "<b>25,600<small> tok/s</small></b>");
    assert_contains(html.data, "<b>1.50<small> J</small></b>");
    assert_contains(html.data, "<span class=\"err e2\">-36.7 %</span>");
    assert_contains(html.data, "<span class=\"err e0\">-5.0 %</span>");
    assert_contains(html.data, "attention 0\xe2\x80\x93"
                               "2</td><td>3</td>");
    assert_contains(html.data, "attention 2 \xc2\xb7 forward \xc2\xb7 micro-batch 1 \xc2\xb7 ");
    assert_contains(html.data, "gradient reduction \xc2\xb7 micro-batch 1");
    text_free(&html);
    run_record_free(&record);
}

/* One rectangle for each event of the shown step: nothing is merged in a small trace. */
static void test_page__timeline_draws_every_event(void **state)
{
    (void)state;
    struct run_record record;
    struct text html = {0};
    fixture_make(&record, &fixture_full);
    write_page(&record, &html);
    const char *timeline = strstr(html.data, "<section id=\"timeline\"");
    const char *end = strstr(timeline, "</section>");
    struct text section = {0};
    text_append_bytes(&section, timeline, (size_t)(end - timeline));
    assert_int_equal(occurrences(section.data, "<rect ") - occurrences(section.data, "\"veil\""),
                     record.event_count / 4);
    text_free(&section);
    text_free(&html);
    run_record_free(&record);
}

/* The part of the page with this id, into `out`. */
static void section(const struct text *html, const char *start, struct text *out)
{
    const char *begin = strstr(html->data, start);
    assert_non_null(begin);
    text_append_bytes(out, begin, (size_t)(strstr(begin, "</section>") - begin));
}

/* Every event has its rectangle; communication two, where a part of it was hidden and a part not.
 */
static void test_page__timeline_tells_hidden_from_exposed(void **state)
{
    (void)state;
    struct run_record record;
    struct text html = {0}, timeline = {0};
    fixture_make_split(&record, 2);
    write_page(&record, &html);
    section(&html, "<section id=\"timeline\"", &timeline);
    size_t compute = 0, hidden = 0, exposed = 0;
    for (size_t i = 0; i < record.event_count; i++) {
        const struct event *event = &record.events[i];
        if (event->step != record.events[0].step)
            continue;
        compute += event->stream == STREAM_COMPUTE ? 1 : 0;
        if (event->stream != STREAM_COMM)
            continue;
        hidden += event->waited_ns < event->end_ns - event->start_ns ? 1 : 0;
        exposed += event->waited_ns > 0 ? 1 : 0;
    }
    assert_true(hidden > 0 && exposed > 0);
    assert_int_equal(occurrences(timeline.data, "<title>"), compute + hidden + exposed);
    assert_true(occurrences(timeline.data, "\"veil\"") > 0);
    assert_int_equal(occurrences(timeline.data, " bare hidden\""), hidden);
    assert_contains(timeline.data, "Stage 1: attention 2 to head</text>");
    /* 4 micro-batches there and back on 8 ranks, all wide enough. */
    assert_int_equal(occurrences(timeline.data, "class=\"batch\""), 4 * 2 * 8);
    text_free(&timeline);
    text_free(&html);
    run_record_free(&record);
}

static void test_page__shows_how_the_plan_splits(void **state)
{
    (void)state;
    struct run_record record;
    struct text html = {0}, plan = {0}, communication = {0};
    fixture_make_split(&record, 2);
    write_page(&record, &html);
    section(&html, "<section id=\"plan\"", &plan);
    assert_contains(plan.data, "8 ranks = data 2 \xc3\x97 tensor 2 \xc3\x97 pipeline 2");
    assert_contains(plan.data, "1f1b over 2 stages");
    assert_contains(plan.data, "mlp 2\xe2\x80\x93"
                               "3</td><td>2</td><td class=\"left\">stage 1, t 2 + sp, ZeRO 3");
    section(&html, "<section id=\"communication\"", &communication);
    assert_contains(communication.data, "<td>40</td><td>3.75 MiB</td><td>1.60 ms</td><td>1.60 ms");
    text_free(&communication);
    text_free(&plan);
    text_free(&html);
    run_record_free(&record);
}

static void test_page__hostile_text_is_escaped(void **state)
{
    (void)state;
    static const char nasty[] = "<script>x</script>\"'&%s%n";
    struct run_record record;
    struct text html = {0};
    fixture_make(&record, &fixture_full);
    (void)snprintf(record.plan.model.name, sizeof(record.plan.model.name), "%s", nasty);
    (void)snprintf(record.info.host, sizeof(record.info.host), "%s", nasty);
    (void)snprintf(record.info.data_path, sizeof(record.info.data_path), "%s", nasty);
    (void)snprintf(record.info.options, sizeof(record.info.options), "%s", nasty);
    (void)snprintf(record.info.revision, sizeof(record.info.revision), "%s", nasty);
    (void)snprintf(record.plan.pins, sizeof(record.plan.pins), "%s", nasty);
    write_page(&record, &html);
    assert_lacks(html.data, "<script");
    assert_int_equal(occurrences(html.data, "&lt;script&gt;x&lt;/script&gt;&quot;&#39;&amp;%s%n"),
                     7);
    text_free(&html);
    run_record_free(&record);
}

static void test_page__absent_is_never_zero(void **state)
{
    (void)state;
    struct fixture_options options = fixture_full;
    struct run_record record;
    struct text html = {0};
    options.has_energy = false;
    fixture_make(&record, &options);
    record.plan.prediction.energy_j = quantity_absent();
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        record.plan.prediction.phase_energy_j[phase] = quantity_absent();
        for (size_t i = 0; i < record.plan.layer_count; i++)
            record.plan.prediction.layers[i].energy_j[phase] = quantity_absent();
    }
    write_page(&record, &html);
    assert_lacks(html.data, " J<");
    assert_lacks(html.data, "mJ<");
    assert_contains(html.data, "predicted absent");
    text_free(&html);
    run_record_free(&record);
}

/* Curves and timeline are thinned: a hundred times the steps is not a hundred times the page. */
static void test_page__long_runs_stay_small(void **state)
{
    (void)state;
    const struct fixture_options options = {24, 8, 16, 100000, 1000, 2, true, true, true};
    struct run_record record;
    struct text html = {0};
    fixture_make(&record, &options);
    for (size_t i = 0; i < record.step_count; i++)
        record.steps[i].skipped = i % 2 == 0;
    write_page(&record, &html);
    print_message("%zu bytes\n", html.bytes);
    assert_true(html.bytes < 1000000);
    text_free(&html);
    run_record_free(&record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page__shows_the_golden_figures),
        cmocka_unit_test(test_page__timeline_draws_every_event),
        cmocka_unit_test(test_page__timeline_tells_hidden_from_exposed),
        cmocka_unit_test(test_page__shows_how_the_plan_splits),
        cmocka_unit_test(test_page__hostile_text_is_escaped),
        cmocka_unit_test(test_page__absent_is_never_zero),
        cmocka_unit_test(test_page__long_runs_stay_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
