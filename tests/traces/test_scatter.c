#include "fixture.h"
#include "traces/scatter.h"
#include <stdlib.h>

static size_t occurrences(const char *text, const char *part)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        count++;
    return count;
}

static const struct scatter_point points[] = {
    {.x = 1e9, .y = 3, .shade = 0, .label = "1", .words = "the leanest & slowest"},
    {.x = 2e9, .y = 2, .shade = 0.5, .label = "2", .words = "between"},
    {.x = 4e9, .y = 1, .shade = 1, .label = "3", .words = "the fastest"},
};

static struct scatter scatter_of_three(void)
{
    return (struct scatter){.title = "time < memory",
                            .note = "three plans",
                            .x = axis_fit(0, 5e9, AXIS_BYTES, "memory"),
                            .y = axis_fit(0, 4, AXIS_SECONDS, "time"),
                            .points = points,
                            .count = 3,
                            .has_stairs = true};
}

static void append(const struct scatter *scatter, struct text *text)
{
    struct error err;
    assert_int_equal(scatter_append(scatter, text, &err), STATUS_OK);
}

static void test_scatter__is_a_file_with_every_point(void **state)
{
    (void)state;
    struct scatter scatter = scatter_of_three();
    struct text text = {0};
    append(&scatter, &text);
    assert_false(text.failed);
    assert_true(strncmp(text.data, "<svg xmlns=", 11) == 0);
    assert_int_equal(occurrences(text.data, "<svg"), occurrences(text.data, "</svg>"));
    assert_int_equal(occurrences(text.data, "<circle"), 3);
    assert_int_equal(occurrences(text.data, "<title>"), 3);
    assert_non_null(strstr(text.data, "the leanest &amp; slowest"));
    assert_non_null(strstr(text.data, "time &lt; memory"));
    assert_non_null(strstr(text.data, "memory (GiB)"));
    assert_non_null(strstr(text.data, "time (s)"));
    text_free(&text);
}

/* The stairs go right before they go down: x 20 % at y 3 s, x 40 % at 3 s, then 2 s. */
static void test_scatter__stairs_leave_out_what_is_dominated(void **state)
{
    (void)state;
    struct scatter scatter = scatter_of_three();
    struct text text = {0};
    append(&scatter, &text);
    assert_non_null(strstr(text.data, "M200.0 87.5l0 0L400.0 87.5L400.0 175.0L800.0 175.0"));
    text_free(&text);
    text = (struct text){0};
    scatter.has_stairs = false;
    append(&scatter, &text);
    assert_null(strstr(text.data, "<path"));
    text_free(&text);
}

static void test_scatter__shades_tell_the_third_quantity(void **state)
{
    (void)state;
    struct scatter scatter = scatter_of_three();
    struct text text = {0};
    scatter.shade_low = "least energy";
    scatter.shade_high = "most energy";
    append(&scatter, &text);
    assert_non_null(strstr(text.data, "least energy"));
    assert_int_equal(occurrences(text.data, "s0\" cx="), 2); /* legend and point */
    assert_int_equal(occurrences(text.data, "s1\" cx="), 1);
    assert_int_equal(occurrences(text.data, "s4\" cx="), 2);
    text_free(&text);
}

/* Three are in the plot's box, two of them in one place; a fourth is left of it, a fifth above. */
static void test_scatter__rest_is_drawn_once_a_place(void **state)
{
    (void)state;
    static const struct scatter_dot rest[] = {
        {3e9, 3.5}, {3e9, 3.5}, {4.5e9, 2}, {-1e9, 2}, {2e9, 9}};
    struct scatter scatter = scatter_of_three();
    struct text text = {0};
    scatter.rest = rest;
    scatter.rest_count = 5;
    scatter.has_stairs = false;
    append(&scatter, &text);
    assert_int_equal(occurrences(text.data, "class=\"rest\""), 1);
    assert_int_equal(occurrences(text.data, "h0"), 2);
    text_free(&text);
}

static void test_scatter__notes_stand_in_place_of_labels(void **state)
{
    (void)state;
    struct scatter_point noted[3];
    struct scatter scatter = scatter_of_three();
    struct text text = {0};
    memcpy(noted, points, sizeof(noted));
    noted[2].note = "fastest: 1 s & what more there is";
    scatter.points = noted;
    append(&scatter, &text);
    assert_non_null(strstr(text.data, "fastest: 1 s &amp; what more there is"));
    assert_non_null(strstr(text.data, "text-anchor=\"end\">fastest")); /* at 80 % of the width */
    assert_int_equal(occurrences(text.data, "class=\"mark\""), 2);
    text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scatter__is_a_file_with_every_point),
        cmocka_unit_test(test_scatter__stairs_leave_out_what_is_dominated),
        cmocka_unit_test(test_scatter__shades_tell_the_third_quantity),
        cmocka_unit_test(test_scatter__rest_is_drawn_once_a_place),
        cmocka_unit_test(test_scatter__notes_stand_in_place_of_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
