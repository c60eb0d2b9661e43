#include "ir/plan_only.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct layout plain(void)
{
    return (struct layout){.pipeline = 2,
                           .virtual_stages = 1,
                           .data = 4,
                           .tensor = 2,
                           .context = 1,
                           .expert = 1,
                           .schedule = SCHEDULE_1F1B,
                           .zero_stage = 1,
                           .shard = 4,
                           .arithmetic = ARITHMETIC_BF16};
}

static void expect(const struct layout *layout, enum plan_only choice)
{
    const struct model model = {.blocks = 2};
    assert_int_equal(plan_only_choices(layout, &model), 1U << choice);
}

static void test_plan_only__names_each_choice_alone(void **state)
{
    (void)state;
    const struct model model = {.blocks = 2};
    struct layout layout = plain();
    assert_int_equal(plan_only_choices(&layout, &model), 0);
    layout.context = 2;
    layout.shard = 8; /* data x context: whole */
    expect(&layout, PLAN_ONLY_CONTEXT);
    layout = plain();
    layout.expert = 4;
    expect(&layout, PLAN_ONLY_EXPERT);
    layout = plain();
    layout.offload_activations = true;
    expect(&layout, PLAN_ONLY_OFFLOAD);
    layout = plain();
    layout.offload_optimizer = true;
    expect(&layout, PLAN_ONLY_OFFLOAD);
    layout = plain();
    layout.arithmetic = ARITHMETIC_FP8;
    expect(&layout, PLAN_ONLY_ARITHMETIC);
    layout.arithmetic = ARITHMETIC_TF32;
    expect(&layout, PLAN_ONLY_ARITHMETIC);
    layout = plain();
    layout.shard = 2;
    expect(&layout, PLAN_ONLY_SHARD);
    layout.zero_stage = 0;
    layout.shard = 1;
    assert_int_equal(plan_only_choices(&layout, &model), 0);
}

static void test_plan_only__looks_into_blocks(void **state)
{
    (void)state;
    const struct model model = {.blocks = 2};
    struct block_mode modes[2] = {{.arithmetic = ARITHMETIC_BF16}, {.arithmetic = ARITHMETIC_BF16}};
    const struct block_plan own = {.modes = modes};
    struct layout layout = plain();
    layout.own = &own;
    assert_int_equal(plan_only_choices(&layout, &model), 0);
    modes[1].arithmetic = ARITHMETIC_FP8;
    expect(&layout, PLAN_ONLY_ARITHMETIC);
    modes[1].arithmetic = ARITHMETIC_BF16;
    modes[0].offload = true;
    expect(&layout, PLAN_ONLY_OFFLOAD);
}

static void test_plan_only__executor_schedules_are_not(void **state)
{
    (void)state;
    const struct model model = {.blocks = 2};
    struct layout layout = plain();
    static const enum schedule runs[] = {SCHEDULE_GPIPE, SCHEDULE_1F1B, SCHEDULE_INTERLEAVED};
    for (size_t i = 0; i < 3; i++) {
        layout.schedule = runs[i];
        assert_int_equal(plan_only_choices(&layout, &model), 0);
    }
    for (int other = SCHEDULE_RUN_COUNT; other < SCHEDULE_COUNT; other++) {
        layout.schedule = (enum schedule)other;
        expect(&layout, PLAN_ONLY_SCHEDULE);
    }
    assert_int_equal(plan_only_names.count, PLAN_ONLY_COUNT);
    assert_string_equal(name_of(&plan_only_names, PLAN_ONLY_SHARD), "shard");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_only__names_each_choice_alone),
        cmocka_unit_test(test_plan_only__looks_into_blocks),
        cmocka_unit_test(test_plan_only__executor_schedules_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
