#include "cli/watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { RANKS = 3, TIMEOUT_S = 10 };

static int open_watch(void **state)
{
    static struct watch watch;
    struct error err = {0};
    *state = &watch;
    return watch_open(&watch, RANKS, TIMEOUT_S, &err) == STATUS_OK ? 0 : -1;
}

static int close_watch(void **state)
{
    watch_close(*state);
    return 0;
}

static void hear(struct watch *watch, int rank, uint64_t count, const char *call, double now_s)
{
    struct pulse_sign sign = {.rank = rank, .step = 12, .count = count};
    strncpy(sign.call, call, sizeof sign.call - 1);
    watch_hear(watch, &sign, now_s);
}

/* Seconds [from, to) of ranks that all get on. */
static void get_on(struct watch *watch, int from_s, int to_s)
{
    char why[WATCH_TEXT_BYTES];
    for (int s = from_s; s < to_s; s++) {
        for (int rank = 0; rank < RANKS; rank++)
            hear(watch, rank, (uint64_t)s, "", s);
        assert_false(watch_judge(watch, s, why));
    }
}

/* Every second from from_s on, until ranks hang; the text, and when. `calls` say what each rank
 * waits in; NULL: it is silent. */
static double hang(struct watch *watch, int from_s, const char *const calls[RANKS],
                   char why[WATCH_TEXT_BYTES])
{
    for (int s = from_s; s < from_s + 100; s++) {
        for (int rank = 0; rank < RANKS; rank++)
            if (calls[rank] != NULL)
                hear(watch, rank, 1000, calls[rank], s);
        if (watch_judge(watch, s, why))
            return s;
    }
    return -1;
}

static void test_watch__ranks_that_get_on_do_not_hang(void **state)
{
    get_on(*state, 0, 1000);
}

static void test_watch__a_silent_rank_is_named(void **state)
{
    char why[WATCH_TEXT_BYTES];
    get_on(*state, 0, 5);
    /* Last heard of at 4. */
    assert_true(hang(*state, 5, (const char *const[]){"all-reduce", NULL, ""}, why) == 14);
    assert_string_equal(why, "rank 1 has not been heard of for 10 s, last at step 12: it is "
                             "stopped, or its host is gone");
}

static void test_watch__several_silent_ranks_are_named(void **state)
{
    char why[WATCH_TEXT_BYTES];
    get_on(*state, 0, 5);
    assert_true(hang(*state, 5, (const char *const[]){NULL, "", NULL}, why) == 14);
    assert_string_equal(why, "ranks 0 and 2 have not been heard of for 10 s, last at step 12: "
                             "they are stopped, or their host is gone");
}

static void test_watch__a_rank_that_never_spoke_is_named(void **state)
{
    struct watch *watch = *state;
    char why[WATCH_TEXT_BYTES];
    for (int s = 3; s < 13; s++) {
        hear(watch, 0, (uint64_t)s, "", s);
        hear(watch, 1, (uint64_t)s, "", s);
        assert_false(watch_judge(watch, s, why));
    }
    assert_true(watch_judge(watch, 13, why));
    assert_string_equal(why, "rank 2 has not been heard of for 10 s: it is stopped, or its host is "
                             "gone");
}

static void test_watch__the_rank_that_others_wait_for_is_named(void **state)
{
    char why[WATCH_TEXT_BYTES];
    get_on(*state, 0, 5);
    /* The count moved a last time at 5. */
    assert_true(hang(*state, 5, (const char *const[]){"all-reduce", "all-reduce", ""}, why) == 15);
    assert_string_equal(why, "rank 2 has worked on step 12 for 10 s without getting on while 2 "
                             "ranks wait for it in all-reduce");
}

static void test_watch__one_rank_that_gets_on_is_enough(void **state)
{
    struct watch *watch = *state;
    char why[WATCH_TEXT_BYTES];
    for (int s = 0; s < 100; s++) {
        hear(watch, 0, 7, "all-reduce", s);
        hear(watch, 1, 7, "", s);
        hear(watch, 2, (uint64_t)s / 9, "", s);
        assert_false(watch_judge(watch, s, why));
    }
}

static void test_watch__ranks_that_wait_for_each_other_are_named(void **state)
{
    char why[WATCH_TEXT_BYTES];
    get_on(*state, 0, 5);
    assert_true(hang(*state, 5, (const char *const[]){"receive", "all-reduce", "receive"}, why) ==
                15);
    assert_string_equal(why, "no rank has got on for 10 s at step 12: each waits for another "
                             "(rank 0 in receive, rank 1 in all-reduce, rank 2 in receive)");
}

static void test_watch__ranks_that_all_spin_are_named(void **state)
{
    char why[WATCH_TEXT_BYTES];
    get_on(*state, 0, 5);
    assert_true(hang(*state, 5, (const char *const[]){"", "", ""}, why) == 15);
    assert_string_equal(why, "ranks 0, 1 and 2 have worked on step 12 for 10 s without getting on");
}

static void test_watch__starting_takes_its_time(void **state)
{
    struct watch *watch = *state;
    char why[WATCH_TEXT_BYTES];
    for (int s = 0; s < 100; s++) {
        for (int rank = 0; rank < RANKS; rank++) {
            struct pulse_sign sign = {.rank = rank, .call = "broadcast"};
            watch_hear(watch, &sign, s);
        }
        assert_false(watch_judge(watch, s, why));
    }
}

static void test_watch__ranks_that_have_ended_are_let_go(void **state)
{
    struct watch *watch = *state;
    char why[WATCH_TEXT_BYTES];
    struct pulse_sign last = {.rank = 1, .step = 12, .count = 9, .has_ended = true};
    get_on(watch, 0, 5);
    watch_hear(watch, &last, 5);
    for (int s = 5; s < 100; s++) {
        hear(watch, 0, (uint64_t)s, "", s);
        hear(watch, 2, (uint64_t)s, "", s);
        assert_false(watch_judge(watch, s, why));
    }
    last.rank = 0;
    watch_hear(watch, &last, 100);
    last.rank = 2;
    watch_hear(watch, &last, 100);
    for (int s = 100; s < 200; s++)
        assert_false(watch_judge(watch, s, why));
}

static void test_watch__a_watcher_that_was_stopped_blames_nobody(void **state)
{
    struct watch *watch = *state;
    char why[WATCH_TEXT_BYTES];
    get_on(watch, 0, 5);
    assert_false(watch_judge(watch, 500, why));
    assert_true(hang(watch, 501, (const char *const[]){"", NULL, ""}, why) == 510);
}

static void test_watch__no_timeout_judges_nothing(void **state)
{
    struct watch *watch = *state;
    char why[WATCH_TEXT_BYTES];
    watch->timeout_s = 0;
    assert_true(hang(watch, 0, (const char *const[]){"", NULL, "receive"}, why) == -1);
}

static void test_watch__signs_of_unknown_ranks_are_ignored(void **state)
{
    struct watch *watch = *state;
    hear(watch, RANKS, 1, "", 0);
    hear(watch, -1, 1, "", 0);
    assert_false(watch->is_begun);
    assert_int_equal(watch_step(watch, RANKS), 0);
    assert_int_equal(watch_step(watch, -1), 0);
}

static void test_watch__a_sign_survives_being_a_line(void **state)
{
    (void)state;
    const struct pulse_sign signs[] = {
        {.rank = 0},
        {.rank = 511,
         .step = INT64_MAX,
         .count = UINT64_MAX,
         .waiting_ms = INT64_MAX,
         .call = "reduce-scatter",
         .has_ended = true},
    };
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        char line[PULSE_LINE_BYTES];
        struct pulse_sign found;
        pulse_format(&signs[i], line);
        assert_true(pulse_parse(line, &found));
        assert_int_equal(found.rank, signs[i].rank);
        assert_int_equal(found.step, signs[i].step);
        assert_true(found.count == signs[i].count);
        assert_int_equal(found.waiting_ms, signs[i].waiting_ms);
        assert_string_equal(found.call, signs[i].call);
        assert_int_equal(found.has_ended, signs[i].has_ended);
    }
}

static void test_watch__other_lines_are_no_signs(void **state)
{
    (void)state;
    static const char *const lines[] = {"",          "pulse",          "pulse 1 2 3 4 - 0 more",
                                        "pulse 1 2", "run 5",          "pulse x 2 3 4 - 0",
                                        "run",       "run 5 and more", "pulse 1 2 3 4 -"};
    struct pulse_sign sign;
    int64_t started = 0;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_false(pulse_parse(lines[i], &sign));
    assert_false(pulse_parse_run("run", &started));
    assert_false(pulse_parse_run("run 5 and more", &started));
    assert_true(pulse_parse_run("run 5", &started));
    assert_int_equal(started, 5);
}

#define WATCH_TEST(name) cmocka_unit_test_setup_teardown(name, open_watch, close_watch)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WATCH_TEST(test_watch__ranks_that_get_on_do_not_hang),
        WATCH_TEST(test_watch__a_silent_rank_is_named),
        WATCH_TEST(test_watch__several_silent_ranks_are_named),
        WATCH_TEST(test_watch__a_rank_that_never_spoke_is_named),
        WATCH_TEST(test_watch__the_rank_that_others_wait_for_is_named),
        WATCH_TEST(test_watch__one_rank_that_gets_on_is_enough),
        WATCH_TEST(test_watch__ranks_that_wait_for_each_other_are_named),
        WATCH_TEST(test_watch__ranks_that_all_spin_are_named),
        WATCH_TEST(test_watch__starting_takes_its_time),
        WATCH_TEST(test_watch__ranks_that_have_ended_are_let_go),
        WATCH_TEST(test_watch__a_watcher_that_was_stopped_blames_nobody),
        WATCH_TEST(test_watch__no_timeout_judges_nothing),
        WATCH_TEST(test_watch__signs_of_unknown_ranks_are_ignored),
        WATCH_TEST(test_watch__a_sign_survives_being_a_line),
        WATCH_TEST(test_watch__other_lines_are_no_signs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
