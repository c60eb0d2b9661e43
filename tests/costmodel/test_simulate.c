#include "base/rng.h"
#include "costmodel/simulate.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { VIRTUAL_STAGES_MAX = 32 };

struct times {
    double forward_s[VIRTUAL_STAGES_MAX], backward_s[VIRTUAL_STAGES_MAX];
    double forward_transfer_s[VIRTUAL_STAGES_MAX], backward_transfer_s[VIRTUAL_STAGES_MAX];
    double weights_s[VIRTUAL_STAGES_MAX]; /* of backward_s */
};

static struct simulation_input input_of(struct schedule_shape shape, const struct times *times)
{
    return (struct simulation_input){shape,
                                     times->forward_s,
                                     times->backward_s,
                                     times->forward_transfer_s,
                                     times->backward_transfer_s,
                                     times->weights_s};
}

static struct simulation run(struct schedule_shape shape, const struct times *times)
{
    struct simulation_input input = input_of(shape, times);
    struct simulation out = {0};
    struct error err;
    if (simulate(&input, &out, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return out;
}

static void expect_actions(const struct simulated_stage *stage, const double (*expected)[2],
                           size_t count)
{
    assert_int_equal(stage->count, count);
    for (size_t i = 0; i < count; i++) {
        if (stage->actions[i].start_s != expected[i][0] ||
            stage->actions[i].end_s != expected[i][1])
            fail_msg("action %zu: %g to %g, expected %g to %g", i, stage->actions[i].start_s,
                     stage->actions[i].end_s, expected[i][0], expected[i][1]);
    }
}

static void test_simulate__one_stage_is_a_sum(void **state)
{
    (void)state;
    const struct times times = {.forward_s = {2}, .backward_s = {3}};
    const double expected[][2] = {{0, 2}, {2, 5}, {5, 7}, {7, 10}};
    struct simulation out = run((struct schedule_shape){SCHEDULE_1F1B, 1, 1, 2}, &times);
    expect_actions(&out.stages[0], expected, 4);
    assert_true(out.makespan_s == 10);
    assert_true(out.stages[0].busy_s == 10 && out.stages[0].idle_s == 0);
    simulation_free(&out);
}

/* Stage 0: F 1, B 2; stage 1: F 3, B 4; half a second there, a quarter back; three micro-batches.
 * Drawn by hand. */
static void test_simulate__1f1b_by_hand(void **state)
{
    (void)state;
    const struct times times = {.forward_s = {1, 3},
                                .backward_s = {2, 4},
                                .forward_transfer_s = {0.5},
                                .backward_transfer_s = {0.25}};
    /* F0 F1 B0 F2 B1 B2 and F0 B0 F1 B1 F2 B2 */
    const double first[][2] = {{0, 1},         {1, 2},         {8.75, 10.75},
                               {10.75, 11.75}, {15.75, 17.75}, {22.75, 24.75}};
    const double second[][2] = {{1.5, 4.5},   {4.5, 8.5},   {8.5, 11.5},
                                {11.5, 15.5}, {15.5, 18.5}, {18.5, 22.5}};
    struct simulation out = run((struct schedule_shape){SCHEDULE_1F1B, 2, 1, 3}, &times);
    expect_actions(&out.stages[0], first, 6);
    expect_actions(&out.stages[1], second, 6);
    assert_true(out.makespan_s == 24.75);
    assert_true(out.stages[0].busy_s == 9 && out.stages[0].idle_s == 15.75);
    assert_true(out.stages[1].busy_s == 21 && out.stages[1].idle_s == 3.75);
    assert_true(out.stages[1].end_s == 22.5);
    simulation_free(&out);
}

static void test_simulate__gpipe_by_hand(void **state)
{
    (void)state;
    const struct times times = {.forward_s = {1, 3}, .backward_s = {2, 4}};
    const double first[][2] = {{0, 1}, {1, 2}, {11, 13}, {15, 17}};
    const double second[][2] = {{1, 4}, {4, 7}, {7, 11}, {11, 15}};
    struct simulation out = run((struct schedule_shape){SCHEDULE_GPIPE, 2, 1, 2}, &times);
    expect_actions(&out.stages[0], first, 4);
    expect_actions(&out.stages[1], second, 4);
    simulation_free(&out);
}

static void test_simulate__interleaved_by_hand(void **state)
{
    (void)state;
    const struct times times = {.forward_s = {1, 1, 1, 1}, .backward_s = {1, 1, 1, 1}};
    struct simulation out = run((struct schedule_shape){SCHEDULE_INTERLEAVED, 2, 2, 2}, &times);
    /* 8 passes of each stage and a bubble of one forward and one backward pass of a chunk */
    assert_true(out.makespan_s == 10);
    assert_true(out.stages[0].busy_s == 8 && out.stages[1].busy_s == 8);
    assert_true(out.stages[1].actions[0].start_s == 1);
    assert_true(out.stages[1].end_s == 9);
    simulation_free(&out);
}

/* F 1, B 2, W 3 on both stages, two micro-batches: F0 F1 B0 W0 B1 W1 and F0 B0 F1 B1 W0 W1. Drawn
 * by hand. */
static void test_simulate__zero_bubble_by_hand(void **state)
{
    (void)state;
    const struct times times = {.forward_s = {1, 1}, .backward_s = {5, 5}, .weights_s = {3, 3}};
    const double first[][2] = {{0, 1}, {1, 2}, {4, 6}, {6, 9}, {9, 11}, {11, 14}};
    const double second[][2] = {{1, 2}, {2, 4}, {4, 5}, {5, 7}, {7, 10}, {10, 13}};
    struct simulation out = run((struct schedule_shape){SCHEDULE_ZB_H1, 2, 1, 2}, &times);
    expect_actions(&out.stages[0], first, 6);
    expect_actions(&out.stages[1], second, 6);
    assert_true(out.makespan_s == 14 && out.stages[0].busy_s == 12);
    simulation_free(&out);
}

/* ---- against the definition ---- */

static double draw(uint64_t *index)
{
    return rng_uniform(7, 1, (*index)++);
}

/* Start of every action as the longest way to it, by relaxing all of them until none moves. */
static double relax(const struct simulation *out, struct schedule_shape shape,
                    const struct times *times, double *end_f, double *end_b)
{
    int64_t m = shape.micro_batches;
    int count = shape.stages * shape.chunks;
    double makespan_s = 0;
    for (int64_t i = 0; i < count * m; i++)
        end_f[i] = end_b[i] = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int s = 0; s < shape.stages; s++) {
            double free_s = 0;
            for (size_t i = 0; i < out->stages[s].count; i++) {
                const struct schedule_action *action = &out->stages[s].actions[i].action;
                int v = action->chunk * shape.stages + s;
                double *end = action->is_forward ? end_f : end_b;
                int64_t at = v * m + action->micro_batch;
                double start = free_s;
                if (action->is_forward && v > 0)
                    start = fmax(start, end_f[at - m] + times->forward_transfer_s[v - 1]);
                if (!action->is_forward)
                    start = fmax(start, end_f[at]);
                if (!action->is_forward && v + 1 < count)
                    start = fmax(start, end_b[at + m] + times->backward_transfer_s[v]);
                free_s = start + (action->is_forward ? times->forward_s[v] : times->backward_s[v]);
                moved |= free_s != end[at];
                end[at] = free_s;
                makespan_s = fmax(makespan_s, free_s);
            }
        }
    }
    return makespan_s;
}

static void check_against_relaxation(struct schedule_shape shape, uint64_t *index)
{
    struct times times;
    int64_t m = shape.micro_batches;
    int count = shape.stages * shape.chunks;
    double *ends = calloc((size_t)(2 * count * m), sizeof(*ends));
    assert_non_null(ends);
    for (int v = 0; v < count; v++) {
        times.forward_s[v] = draw(index);
        times.backward_s[v] = 2 * draw(index);
        times.forward_transfer_s[v] = 0.2 * draw(index);
        times.backward_transfer_s[v] = 0.2 * draw(index);
    }
    struct simulation out = run(shape, &times);
    double makespan_s = relax(&out, shape, &times, ends, ends + count * m);
    assert_true(out.makespan_s == makespan_s);
    for (int s = 0; s < shape.stages; s++) {
        double busy_s = 0;
        for (size_t i = 0; i < out.stages[s].count; i++) {
            const struct simulated_action *timed = &out.stages[s].actions[i];
            int v = timed->action.chunk * shape.stages + s;
            const double *end = timed->action.is_forward ? ends : ends + count * m;
            assert_true(timed->end_s == end[v * m + timed->action.micro_batch]);
            busy_s += timed->action.is_forward ? times.forward_s[v] : times.backward_s[v];
        }
        assert_int_equal(out.stages[s].count, 2 * shape.chunks * m);
        assert_true(out.stages[s].busy_s == busy_s);
        assert_true(out.stages[s].idle_s == out.makespan_s - busy_s);
    }
    simulation_free(&out);
    free(ends);
}

static void test_simulate__is_the_longest_way(void **state)
{
    (void)state;
    uint64_t index = 0;
    for (int p = 1; p <= 8; p++) {
        for (int64_t m = 1; m <= 2 * p + 1; m++) {
            check_against_relaxation((struct schedule_shape){SCHEDULE_GPIPE, p, 1, m}, &index);
            check_against_relaxation((struct schedule_shape){SCHEDULE_1F1B, p, 1, m}, &index);
            for (int v = 2; v <= 4 && p > 1 && m % p == 0; v++)
                check_against_relaxation((struct schedule_shape){SCHEDULE_INTERLEAVED, p, v, m},
                                         &index);
        }
    }
}

/* ---- cost ---- */

/* A million actions are a matter of a second at most: the test's time limit is what fails. */
static void test_simulate__takes_time_by_actions(void **state)
{
    (void)state;
    struct times times;
    for (int v = 0; v < VIRTUAL_STAGES_MAX; v++) {
        times.forward_s[v] = 1 + 0.01 * v;
        times.backward_s[v] = 2;
        times.forward_transfer_s[v] = times.backward_transfer_s[v] = 0.1;
    }
    struct simulation out =
        run((struct schedule_shape){SCHEDULE_INTERLEAVED, 8, 4, 1 << 14}, &times);
    assert_int_equal(out.stages[7].count, 2 * 4 << 14);
    simulation_free(&out);
    simulation_free(&out); /* a freed one is allowed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simulate__one_stage_is_a_sum),
        cmocka_unit_test(test_simulate__1f1b_by_hand),
        cmocka_unit_test(test_simulate__gpipe_by_hand),
        cmocka_unit_test(test_simulate__interleaved_by_hand),
        cmocka_unit_test(test_simulate__zero_bubble_by_hand),
        cmocka_unit_test(test_simulate__is_the_longest_way),
        cmocka_unit_test(test_simulate__takes_time_by_actions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
