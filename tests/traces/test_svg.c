#include "fixture.h"
#include "traces/svg.h"
#include <stdio.h>
#include <stdlib.h>

/* How many times `part` is in `text`. */
static size_t occurrences(const char *text, const char *part)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        count++;
    return count;
}

static void test_svg__axis_fit_is_never_empty(void **state)
{
    (void)state;
    const double ends[][2] = {{0, 0},           {5, 5},        {-3, -3},       {1, 0},
                              {NAN, 1},         {0, INFINITY}, {1e300, 1e300}, {1, 1 + 1e-15},
                              {-INFINITY, NAN}, {0, 1e-300}};
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        struct axis axis = axis_fit(ends[i][0], ends[i][1], AXIS_PLAIN, "x");
        assert_true(isfinite(axis.low) && isfinite(axis.high));
        assert_true(axis.low < axis.high);
    }
}

static void test_svg__axis_units(void **state)
{
    (void)state;
    const struct {
        double high;
        enum axis_unit unit;
        const char *title;
    } cases[] = {
        {0.05, AXIS_SECONDS, "t (ms)"}, {2, AXIS_SECONDS, "t (s)"},
        {5e-6, AXIS_SECONDS, "t (us)"}, {1e-12, AXIS_SECONDS, "t (ns)"},
        {1023, AXIS_BYTES, "t (B)"},    {3e6, AXIS_BYTES, "t (MiB)"},
        {5e9, AXIS_BYTES, "t (GiB)"},   {5, AXIS_PLAIN, "t"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct axis axis = axis_fit(0, cases[i].high, cases[i].unit, "t");
        struct text text = {0};
        axis_title(&axis, &text);
        assert_string_equal(text.data, cases[i].title);
        text_free(&text);
    }
}

/* Over twelve orders of magnitude an axis has a handful of labels. */
static void test_svg__tick_counts(void **state)
{
    (void)state;
    for (double high = 1e-7; high < 1e7; high *= 1.37) {
        struct text text = {0};
        struct plot plot = {
            .out = &text, .height_px = 100, .x = axis_fit(0, high, AXIS_PLAIN, "x")};
        plot_begin(&plot, "n");
        plot_end(&plot);
        size_t ticks = occurrences(text.data, "class=\"tick\"");
        assert_true(ticks >= 3 && ticks <= 9);
        text_free(&text);
    }
}

static void test_svg__steps_have_whole_ticks(void **state)
{
    (void)state;
    struct text text = {0};
    struct plot plot = {.out = &text, .height_px = 100, .x = axis_fit(0, 3, AXIS_STEPS, "step")};
    plot_begin(&plot, "n");
    plot_end(&plot);
    assert_int_equal(occurrences(text.data, "class=\"tick\""), 4);
    assert_lacks(text.data, "0.5<");
    text_free(&text);
}

static void test_svg__path_breaks_at_gaps_and_stays_inside(void **state)
{
    (void)state;
    struct text text = {0};
    struct plot plot = {&text, 100, axis_fit(0, 10, AXIS_PLAIN, "x"),
                        axis_fit(0, 1, AXIS_PLAIN, "y")};
    struct path path;
    path_begin(&path, &plot, "c", false);
    path_point(&path, 0, 0);
    path_point(&path, 1, NAN);
    path_point(&path, 2, 1);
    path_point(&path, 3, 50);
    path_point(&path, 4, -INFINITY);
    path_end(&path);
    assert_contains(text.data, "d=\"M0.0 100.0l0 0M200.0 0.0l0 0L300.0 0.0\"");
    text_free(&text);
}

static void test_svg__level_outside_is_not_drawn(void **state)
{
    (void)state;
    struct text text = {0};
    struct plot plot = {&text, 100, axis_fit(0, 10, AXIS_PLAIN, "x"),
                        axis_fit(0, 1, AXIS_PLAIN, "y")};
    plot_level(&plot, 2, "c");
    plot_level(&plot, NAN, "c");
    assert_null(text.data);
    plot_level(&plot, 0.25, "c");
    assert_contains(text.data, "y1=\"75.0\"");
    text_free(&text);
}

/* Wide ranges are logarithmic: equal factors are equal lengths, and ticks are 1, 2, 5. */
static void test_svg__wide_axes_are_logarithmic(void **state)
{
    (void)state;
    struct text text = {0};
    struct axis narrow = axis_around(1, 7, AXIS_SECONDS, "t");
    struct axis wide = axis_around(0.01, 100, AXIS_SECONDS, "t");
    struct axis some = axis_around(0.5, 20, AXIS_SECONDS, "t");
    assert_false(narrow.is_log);
    assert_true(narrow.low < 1 && narrow.high > 7);
    assert_true(wide.is_log && some.is_log);
    assert_true(wide.low > 0 && wide.low < 0.01 && wide.high > 100);
    const struct plot plot = {.out = &text, .height_px = 100, .x = wide, .y = some};
    double step = plot_x(&plot, 0.1) - plot_x(&plot, 0.01);
    assert_true(fabs(plot_x(&plot, 100) - plot_x(&plot, 10) - step) < 1e-9);
    assert_true(fabs(plot_y(&plot, 1) - plot_y(&plot, 2) - plot_y(&plot, 10) + plot_y(&plot, 20)) <
                1e-9);
    plot_axes(&plot);
    assert_non_null(strstr(text.data, ">0.01</text>"));
    assert_null(strstr(text.data, ">0.02</text>")); /* four powers of ten: no ticks between */
    assert_non_null(strstr(text.data, ">0.5</text>"));
    assert_non_null(strstr(text.data, ">5</text>"));
    assert_non_null(strstr(text.data, ">20</text>"));
    text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_svg__axis_fit_is_never_empty),
        cmocka_unit_test(test_svg__axis_units),
        cmocka_unit_test(test_svg__tick_counts),
        cmocka_unit_test(test_svg__steps_have_whole_ticks),
        cmocka_unit_test(test_svg__path_breaks_at_gaps_and_stays_inside),
        cmocka_unit_test(test_svg__level_outside_is_not_drawn),
        cmocka_unit_test(test_svg__wide_axes_are_logarithmic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
