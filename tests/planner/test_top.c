#include "every_plan.h"
#include "planner/top.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SEEDS = 10, FAMILIES_MAX = 64 };

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

/* The least time of every family of ranks, threads and micro-batch, ascending. */
static size_t best_of_families(const struct every_plan *all, double times_s[FAMILIES_MAX])
{
    const struct listed_plan *best[FAMILIES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < all->count; i++) {
        const struct listed_plan *plan = &all->items[i];
        size_t at = 0;
        while (at < count &&
               (best[at]->ranks != plan->ranks || best[at]->threads != plan->threads ||
                best[at]->micro_batch != plan->micro_batch))
            at++;
        assert_true(at < FAMILIES_MAX);
        if (at == count)
            best[count++] = plan;
        else if (plan->time_s < best[at]->time_s)
            best[at] = plan;
    }
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (; at > 0 && times_s[at - 1] > best[i]->time_s; at--)
            times_s[at] = times_s[at - 1];
        times_s[at] = best[i]->time_s;
    }
    return count;
}

static void test_top__is_the_best_of_every_family_in_order(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct small_world world;
        struct top few = {0}, all = {0};
        struct error err;
        double times_s[FAMILIES_MAX];
        open_small_world(&world, seed);
        size_t families = best_of_families(&world.all, times_s);
        assert_int_equal(top_find(&world.request, 3, &few, &err), STATUS_OK);
        assert_int_equal(few.count, 3);
        assert_false(few.is_all);
        assert_int_equal(top_find(&world.request, 100, &all, &err), STATUS_OK);
        assert_int_equal(all.count, families);
        assert_true(all.is_all);
        for (size_t i = 0; i < families; i++) {
            assert_true(near(all.plans[i].prediction.time_s.value, times_s[i]));
            assert_true(i >= 3 || near(few.plans[i].prediction.time_s.value, times_s[i]));
            /* In multiples of the best time, as the first plan's objective is. */
            assert_true(near(all.plans[i].objective.value, times_s[i] / times_s[0]));
            assert_true(all.plans[i].objective.gap <= 1e-9);
        }
        top_clear(&few);
        top_clear(&all);
        close_small_world(&world);
    }
}

static void test_top__objectives_of_several_weights_compare(void **state)
{
    (void)state;
    struct small_world world;
    struct top top = {0};
    struct error err;
    open_small_world(&world, 4);
    world.request.weight_memory = 0.7;
    world.request.weight_energy = 0.2;
    assert_int_equal(top_find(&world.request, 5, &top, &err), STATUS_OK);
    assert_int_equal(top.count, 5);
    for (size_t i = 0; i < top.count; i++) {
        const struct plan *plan = &top.plans[i];
        assert_true(near(plan->objective.time_unit_s, top.plans[0].objective.time_unit_s));
        assert_true(near(planner_objective(&top.plans[0].objective, &plan->prediction),
                         plan->objective.value));
        assert_true(i == 0 || plan->objective.value >= top.plans[i - 1].objective.value);
        assert_false(plan->objective.raw);
    }
    top_clear(&top);
    close_small_world(&world);
}

static void test_top__stopped_or_infeasible(void **state)
{
    (void)state;
    static const atomic_int stop = 1;
    struct small_world world;
    struct top top = {0};
    struct error err;
    open_small_world(&world, 4);
    world.request.stop = &stop;
    assert_int_equal(top_find(&world.request, 5, &top, &err), STATUS_OK);
    assert_int_equal(top.count, 1);
    assert_true(top.is_stopped);
    top_clear(&top);
    world.request.memory_cap_bytes = 1;
    assert_int_equal(top_find(&world.request, 5, &top, &err), STATUS_INFEASIBLE);
    assert_true(top.infeasibility.missing_bytes > 0);
    close_small_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_top__is_the_best_of_every_family_in_order),
        cmocka_unit_test(test_top__objectives_of_several_weights_compare),
        cmocka_unit_test(test_top__stopped_or_infeasible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
