#include "support.h"

#include "ir/schedule.h"

enum { STAGES_MAX = 8, CHUNKS_MAX = 4 };

/* The lists of all stages of one shape. */
struct lists {
    struct schedule_shape shape;
    struct schedule_action *of[STAGES_MAX];
    size_t count;
};

static struct lists lists_of(const struct schedule_shape *shape)
{
    struct lists lists = {.shape = *shape};
    struct error err;
    assert_ok(schedule_check(shape, &err), &err);
    for (int stage = 0; stage < shape->stages; stage++)
        assert_ok(schedule_actions(shape, stage, &lists.of[stage], &lists.count, &err), &err);
    int64_t parts = shape->kind == SCHEDULE_ZB_H1 ? 3 : 2;
    assert_int_equal(lists.count, parts * shape->chunks * shape->micro_batches);
    return lists;
}

static void lists_free(struct lists *lists)
{
    for (int stage = 0; stage < lists->shape.stages; stage++)
        free(lists->of[stage]);
}

/* Every shape of up to 8 stages and 4 chunks, with micro-batches fewer and more than stages. */
static void for_each_shape(void (*check)(const struct schedule_shape *shape))
{
    static const int64_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 40};
    size_t shapes = 0;
    for (unsigned kind = 0; kind < SCHEDULE_COUNT; kind++)
        for (int stages = 1; stages <= STAGES_MAX; stages++)
            for (int chunks = 1; chunks <= CHUNKS_MAX; chunks++)
                for (size_t i = 0; i < COUNT(counts); i++) {
                    struct schedule_shape shape = {(enum schedule)kind, stages, chunks, counts[i]};
                    struct error err;
                    if (schedule_check(&shape, &err) != STATUS_OK)
                        continue;
                    check(&shape);
                    shapes++;
                }
    /* 13 counts for 8 stages of three kinds; interleaved: 3 chunk counts times the multiples of
     * 2, 3, ... 8 among the counts: 8 + 5 + 6 + 2 + 3 + 1 + 4 */
    assert_int_equal(shapes, 3 * 8 * 13 + 3 * 29);
}

/* ---- each list by itself ---- */

static void check_list(const struct schedule_shape *shape)
{
    struct lists lists = lists_of(shape);
    for (int stage = 0; stage < shape->stages; stage++) {
        int64_t forwards[CHUNKS_MAX] = {0}, backwards[CHUNKS_MAX] = {0}, weights[CHUNKS_MAX] = {0};
        for (size_t i = 0; i < lists.count; i++) {
            struct schedule_action action = lists.of[stage][i];
            assert_in_range(action.chunk, 0, shape->chunks - 1);
            int64_t *done = action.is_forward ? forwards : action.is_weights ? weights : backwards;
            /* the next of this chunk and direction: so each comes once and in order */
            assert_int_equal(action.micro_batch, done[action.chunk]);
            done[action.chunk]++;
            assert_true(backwards[action.chunk] <= forwards[action.chunk]);
            assert_true(weights[action.chunk] <= backwards[action.chunk]);
        }
        for (int chunk = 0; chunk < shape->chunks; chunk++) {
            assert_int_equal(forwards[chunk], shape->micro_batches);
            assert_int_equal(backwards[chunk], shape->micro_batches);
            assert_int_equal(weights[chunk],
                             shape->kind == SCHEDULE_ZB_H1 ? shape->micro_batches : 0);
        }
    }
    lists_free(&lists);
}

static void test_schedule__lists_hold_every_pass_once_in_order(void **state)
{
    (void)state;
    for_each_shape(check_list);
}

static void check_in_flight(const struct schedule_shape *shape)
{
    struct lists lists = lists_of(shape);
    for (int stage = 0; stage < shape->stages; stage++) {
        int64_t alive[CHUNKS_MAX] = {0}, peak[CHUNKS_MAX] = {0};
        for (size_t i = 0; i < lists.count; i++) {
            struct schedule_action action = lists.of[stage][i];
            if (!action.is_weights)
                alive[action.chunk] += action.is_forward ? 1 : -1;
            if (alive[action.chunk] > peak[action.chunk])
                peak[action.chunk] = alive[action.chunk];
        }
        for (int chunk = 0; chunk < shape->chunks; chunk++)
            assert_int_equal(schedule_in_flight(shape, stage, chunk), peak[chunk]);
    }
    lists_free(&lists);
}

static void test_schedule__in_flight_is_the_peak_of_the_list(void **state)
{
    (void)state;
    for_each_shape(check_in_flight);
}

/* By hand, for 4 stages and 16 micro-batches. 1F1B keeps 4, 3, 2, 1. With two chunks the first
 * stage warms up with 2 * 3 + 4 = 10 passes: micro-batches 0 to 3 of chunk 0, the same of chunk 1,
 * 4 and 5 of chunk 0. Then 6 and 7 of chunk 0 go in while 0 and 1 of chunk 1 come back, which makes
 * 8; by then chunk 1 is past its 4. The last stage warms up with 0 to 3 of chunk 0. Chunk 1 then
 * goes one in, one out, and so does chunk 0 after that, on top of its 4. */
static void test_schedule__in_flight_of_known_shapes(void **state)
{
    (void)state;
    const struct schedule_shape gpipe = {SCHEDULE_GPIPE, 4, 1, 16};
    const struct schedule_shape plain = {SCHEDULE_1F1B, 4, 1, 16};
    const struct schedule_shape chunked = {SCHEDULE_INTERLEAVED, 4, 2, 16};
    for (int stage = 0; stage < 4; stage++) {
        assert_int_equal(schedule_in_flight(&gpipe, stage, 0), 16);
        assert_int_equal(schedule_in_flight(&plain, stage, 0), 4 - stage);
    }
    assert_int_equal(schedule_in_flight(&chunked, 0, 0), 8);
    assert_int_equal(schedule_in_flight(&chunked, 0, 1), 4);
    assert_int_equal(schedule_in_flight(&chunked, 3, 0), 5);
    assert_int_equal(schedule_in_flight(&chunked, 3, 1), 1);
}

static void test_schedule__lists_of_known_shapes(void **state)
{
    (void)state;
    static const struct {
        struct schedule_shape shape;
        int stage;
        const char *list; /* F, B or W, chunk (where there are more), micro-batch */
    } cases[] = {
        {{SCHEDULE_GPIPE, 2, 1, 3}, 0, "F0 F1 F2 B0 B1 B2 "},
        {{SCHEDULE_1F1B, 1, 1, 3}, 0, "F0 B0 F1 B1 F2 B2 "},
        {{SCHEDULE_1F1B, 3, 1, 4}, 0, "F0 F1 F2 B0 F3 B1 B2 B3 "},
        {{SCHEDULE_1F1B, 3, 1, 4}, 2, "F0 B0 F1 B1 F2 B2 F3 B3 "},
        {{SCHEDULE_1F1B, 4, 1, 2}, 0, "F0 F1 B0 B1 "},
        {{SCHEDULE_ZB_H1, 3, 1, 4}, 0, "F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3 "},
        {{SCHEDULE_ZB_H1, 3, 1, 4}, 2, "F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3 "},
        {{SCHEDULE_ZB_H1, 3, 1, 2}, 2, "F0 B0 F1 B1 W0 W1 "},
        {{SCHEDULE_INTERLEAVED, 2, 2, 2}, 1, "F0.0 F0.1 F1.0 B1.0 F1.1 B1.1 B0.0 B0.1 "},
        {{SCHEDULE_INTERLEAVED, 2, 2, 4},
         0,
         "F0.0 F0.1 F1.0 F1.1 F0.2 B1.0 F0.3 B1.1 F1.2 B0.0 F1.3 B0.1 B1.2 B1.3 B0.2 B0.3 "},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[256] = "";
        size_t used = 0;
        struct lists lists = lists_of(&cases[i].shape);
        for (size_t at = 0; at < lists.count; at++) {
            struct schedule_action action = lists.of[cases[i].stage][at];
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%c",
                                     action.is_forward   ? 'F'
                                     : action.is_weights ? 'W'
                                                         : 'B');
            if (cases[i].shape.chunks > 1)
                used += (size_t)snprintf(text + used, sizeof(text) - used, "%d.", action.chunk);
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%d ", action.micro_batch);
        }
        assert_string_equal(text, cases[i].list);
        lists_free(&lists);
    }
}

/* ---- all lists together ---- */

/* Seconds of one chunk's passes. */
struct pass_times {
    double forward, backward;
};

/* Stages that do their lists with blocking receives and sends that never wait. end[direction]
 * [virtual stage][micro-batch] is when a pass was done, -1 before. */
struct machine {
    const struct lists *lists;
    struct pass_times times;
    double *end[2];
    double free_at[STAGES_MAX];
    size_t next[STAGES_MAX];
};

static double *pass_end(const struct machine *machine, bool is_forward, int stage, int micro_batch)
{
    return &machine->end[is_forward][stage * machine->lists->shape.micro_batches + micro_batch];
}

/* When what the stage's next pass reads has come; negative: not yet. */
static double input_at(const struct machine *machine, int stage)
{
    const struct schedule_shape *shape = &machine->lists->shape;
    struct schedule_action action = machine->lists->of[stage][machine->next[stage]];
    int at = action.chunk * shape->stages + stage;
    int last = shape->chunks * shape->stages - 1;
    if (action.is_forward)
        return at == 0 ? 0.0 : *pass_end(machine, true, at - 1, action.micro_batch);
    if (at == last)
        return *pass_end(machine, true, last, action.micro_batch);
    return *pass_end(machine, false, at + 1, action.micro_batch);
}

/* Do what the stage can do now; returns how many passes. */
static size_t advance(struct machine *machine, int stage)
{
    const struct lists *lists = machine->lists;
    size_t done = 0;
    for (; machine->next[stage] < lists->count; machine->next[stage]++, done++) {
        struct schedule_action action = lists->of[stage][machine->next[stage]];
        double start = input_at(machine, stage);
        if (start < 0.0)
            break;
        if (start < machine->free_at[stage])
            start = machine->free_at[stage];
        machine->free_at[stage] =
            start + (action.is_forward ? machine->times.forward : machine->times.backward);
        *pass_end(machine, action.is_forward, action.chunk * lists->shape.stages + stage,
                  action.micro_batch) = machine->free_at[stage];
    }
    return done;
}

/* Seconds of the step. Fails when the stages wait for each other. */
static double makespan(const struct lists *lists, struct pass_times times)
{
    const struct schedule_shape *shape = &lists->shape;
    struct machine machine = {.lists = lists, .times = times};
    size_t passes = (size_t)(shape->stages * shape->chunks * shape->micro_batches);
    size_t done = 0, before;
    for (int direction = 0; direction < 2; direction++) {
        machine.end[direction] = malloc(passes * sizeof(double));
        assert_non_null(machine.end[direction]);
        for (size_t i = 0; i < passes; i++)
            machine.end[direction][i] = -1.0;
    }
    do {
        before = done;
        for (int stage = 0; stage < shape->stages; stage++)
            done += advance(&machine, stage);
    } while (done > before);
    if (done != 2 * passes)
        fail_msg("%s, %d stages, %d chunks, %d micro-batches: deadlock after %zu passes",
                 schedule_name(shape->kind), shape->stages, shape->chunks,
                 (int)shape->micro_batches, done);
    double end = 0.0;
    for (int stage = 0; stage < shape->stages; stage++)
        end = machine.free_at[stage] > end ? machine.free_at[stage] : end;
    free(machine.end[0]);
    free(machine.end[1]);
    return end;
}

/* Narayanan et al. 2021: m micro-batches take m (tf + tb), filling and emptying the pipeline takes
 * (p - 1) (tf + tb), a v-th of which is left with v chunks. */
static void check_makespan(const struct schedule_shape *shape)
{
    if (shape->kind == SCHEDULE_ZB_H1)
        return; /* three parts: tests/costmodel/test_pipeline.c */
    static const struct pass_times of_a_stage[] = {{1.0, 1.0}, {1.0, 2.0}, {12.0, 12.0}};
    struct lists lists = lists_of(shape);
    for (size_t i = 0; i < COUNT(of_a_stage); i++) {
        double both = of_a_stage[i].forward + of_a_stage[i].backward;
        struct pass_times of_a_chunk = {of_a_stage[i].forward / shape->chunks,
                                        of_a_stage[i].backward / shape->chunks};
        double ideal = (double)shape->micro_batches * both;
        double bubble = (shape->stages - 1) * both / shape->chunks;
        assert_near(makespan(&lists, of_a_chunk), ideal + bubble, 1e-9 * (ideal + bubble));
    }
    lists_free(&lists);
}

static void test_schedule__makespan_is_the_closed_form(void **state)
{
    (void)state;
    for_each_shape(check_makespan);
}

/* ---- what is admitted ---- */

static void test_schedule__names_are_read_back(void **state)
{
    (void)state;
    static const char *const names[] = {"gpipe", "1f1b", "interleaved", "zb-h1"};
    enum schedule schedule;
    for (unsigned i = 0; i < SCHEDULE_COUNT; i++) {
        assert_string_equal(schedule_name((enum schedule)i), names[i]);
        assert_true(schedule_parse(names[i], &schedule));
        assert_int_equal(schedule, i);
    }
    assert_false(schedule_parse("zero-bubble", &schedule));
}

static void test_schedule__what_does_not_fit_is_named(void **state)
{
    (void)state;
    static const struct {
        struct schedule_shape shape;
        const char *part;
    } cases[] = {
        {{SCHEDULE_GPIPE, 0, 1, 4}, "gpipe needs a pipeline of 1 or more, not 0"},
        {{SCHEDULE_INTERLEAVED, 1, 2, 4}, "interleaved needs a pipeline of 2 or more, not 1"},
        {{SCHEDULE_INTERLEAVED, 2, 1, 4}, "interleaved needs 2 or more virtual_stages, not 1"},
        {{SCHEDULE_1F1B, 2, 0, 4}, "virtual_stages, not 0"},
        {{SCHEDULE_1F1B, 2, 2, 4}, "1f1b has 1 virtual stage, not 2"},
        {{SCHEDULE_GPIPE, 2, 2, 4}, "gpipe has 1 virtual stage, not 2"},
        {{SCHEDULE_INTERLEAVED, 4, 2, 6}, "multiples of pipeline 4, not 6"},
        {{SCHEDULE_1F1B, 2, 1, 0}, "micro_batches, not 0"},
        {{SCHEDULE_1F1B, 2, 1, INT64_C(1) << 31}, "micro_batches, not 2147483648"},
        {{(enum schedule)7, 2, 1, 4}, "7 is not a schedule"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct error err;
        assert_int_equal(schedule_check(&cases[i].shape, &err), STATUS_INVALID);
        assert_contains(err.message, cases[i].part);
    }
}

/* Far more than a test can list: one turn of the chunks tells all. */
static void test_schedule__in_flight_does_not_grow_with_micro_batches(void **state)
{
    (void)state;
    const struct schedule_shape few = {SCHEDULE_INTERLEAVED, 8, 4, 64};
    const struct schedule_shape many = {SCHEDULE_INTERLEAVED, 8, 4, 1 << 20};
    for (int stage = 0; stage < 8; stage++)
        for (int chunk = 0; chunk < 4; chunk++)
            assert_int_equal(schedule_in_flight(&many, stage, chunk),
                             schedule_in_flight(&few, stage, chunk));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule__lists_hold_every_pass_once_in_order),
        cmocka_unit_test(test_schedule__in_flight_is_the_peak_of_the_list),
        cmocka_unit_test(test_schedule__in_flight_of_known_shapes),
        cmocka_unit_test(test_schedule__lists_of_known_shapes),
        cmocka_unit_test(test_schedule__makespan_is_the_closed_form),
        cmocka_unit_test(test_schedule__names_are_read_back),
        cmocka_unit_test(test_schedule__what_does_not_fit_is_named),
        cmocka_unit_test(test_schedule__in_flight_does_not_grow_with_micro_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
