#include "every_plan.h"
#include "planner/front.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SEEDS = 10 };

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

static bool is_less(double a, double b)
{
    return a < b && !near(a, b);
}

static double listed_value(const struct listed_plan *plan, unsigned axis)
{
    return axis == FRONT_TIME     ? plan->time_s
           : axis == FRONT_MEMORY ? plan->memory_bytes
                                  : plan->energy_j;
}

static const unsigned every_axis[] = {FRONT_TIME, FRONT_MEMORY, FRONT_ENERGY};

static bool listed_dominates(unsigned axes, const struct listed_plan *a,
                             const struct listed_plan *b)
{
    bool is_better = false;
    for (size_t i = 0; i < 3; i++) {
        double of_a = listed_value(a, every_axis[i]), of_b = listed_value(b, every_axis[i]);
        if ((axes & every_axis[i]) == 0)
            continue;
        if (is_less(of_b, of_a))
            return false;
        is_better |= is_less(of_a, of_b);
    }
    return is_better;
}

static bool is_on_front(const struct every_plan *all, unsigned axes, const struct listed_plan *plan)
{
    for (size_t i = 0; i < all->count; i++) {
        if (listed_dominates(axes, &all->items[i], plan))
            return false;
    }
    return true;
}

static bool front_has(const struct front *front, unsigned axes, const struct listed_plan *plan)
{
    for (size_t i = 0; i < front->count; i++) {
        const struct front_point *point = &front->points[i];
        const double values[] = {point->time_s, point->memory_bytes, point->energy_j};
        bool is_same = true;
        for (size_t k = 0; k < 3; k++)
            is_same &=
                (axes & every_axis[k]) == 0 || near(values[k], listed_value(plan, every_axis[k]));
        if (is_same)
            return true;
    }
    return false;
}

/* Every point is some plan that no plan dominates. */
static void expect_on_front(const struct every_plan *all, unsigned axes, const struct front *front)
{
    for (size_t i = 0; i < front->count; i++) {
        const struct front_point *point = &front->points[i];
        const struct listed_plan as_listed = {.time_s = point->time_s,
                                              .memory_bytes = point->memory_bytes,
                                              .energy_j = point->energy_j};
        assert_true(is_on_front(all, axes, &as_listed));
        assert_true(point->plan.status != PLAN_GAP);
        assert_true(i == 0 || point->time_s > front->points[i - 1].time_s || axes != 3);
    }
}

static void find(const struct small_world *world, unsigned axes, int points, struct front *out)
{
    const struct front_request request = {
        .search = world->request, .axes = axes, .points_most = points};
    struct error err;
    *out = (struct front){0};
    if (front_find(&request, out, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

/* ---- one constraint: complete ---- */

static void check_complete(unsigned axes)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct small_world world;
        struct front front;
        size_t expected = 0;
        open_small_world(&world, seed);
        find(&world, axes, 0, &front);
        expect_on_front(&world.all, axes, &front);
        for (size_t i = 0; i < world.all.count; i++) {
            if (!is_on_front(&world.all, axes, &world.all.items[i]))
                continue;
            expected++;
            if (!front_has(&front, axes, &world.all.items[i]))
                fail_msg("seed %llu: plan %zu is missing", (unsigned long long)seed, i);
        }
        assert_true(front.count > 1 && front.count <= expected);
        assert_false(front.is_thinned || front.is_hull || front.is_stopped);
        front_clear(&front);
        close_small_world(&world);
    }
}

static void test_front__of_time_and_memory_is_every_plan_that_none_dominates(void **state)
{
    (void)state;
    check_complete(FRONT_TIME | FRONT_MEMORY);
}

static void test_front__of_memory_and_energy_is_every_plan_that_none_dominates(void **state)
{
    (void)state;
    check_complete(FRONT_MEMORY | FRONT_ENERGY);
}

static void test_front__of_time_and_energy_is_every_plan_that_none_dominates(void **state)
{
    (void)state;
    check_complete(FRONT_TIME | FRONT_ENERGY);
}

static void test_front__of_all_three_is_every_plan_that_none_dominates(void **state)
{
    (void)state;
    check_complete(FRONT_TIME | FRONT_MEMORY | FRONT_ENERGY);
}

/* A weighted sum would not do: some point lies above the line between the ends. */
static size_t points_inside(unsigned axis)
{
    size_t inside = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct small_world world;
        struct front front;
        open_small_world(&world, seed);
        find(&world, FRONT_TIME | axis, 0, &front);
        for (size_t i = 1; i + 1 < front.count; i++) {
            const struct front_point *a = &front.points[0], *b = &front.points[front.count - 1];
            const struct front_point *p = &front.points[i];
            double share = (p->time_s - a->time_s) / (b->time_s - a->time_s);
            bool is_memory = axis == FRONT_MEMORY;
            double at_a = is_memory ? a->memory_bytes : a->energy_j;
            double at_b = is_memory ? b->memory_bytes : b->energy_j;
            double at_p = is_memory ? p->memory_bytes : p->energy_j;
            inside += at_p > at_a + share * (at_b - at_a) + 1e-6 * fabs(at_a - at_b);
        }
        front_clear(&front);
        close_small_world(&world);
    }
    return inside;
}

static void test_front__has_points_that_no_weighted_sum_finds(void **state)
{
    (void)state;
    assert_true(points_inside(FRONT_MEMORY) > 0);
    assert_true(points_inside(FRONT_ENERGY) > 0);
}

static void test_front__thinned_keeps_both_ends_and_says_so(void **state)
{
    (void)state;
    struct small_world world;
    struct front whole, thin;
    open_small_world(&world, 3);
    find(&world, FRONT_TIME | FRONT_MEMORY, 0, &whole);
    find(&world, FRONT_TIME | FRONT_MEMORY, 3, &thin);
    expect_on_front(&world.all, FRONT_TIME | FRONT_MEMORY, &thin);
    assert_true(thin.count >= 2 && thin.count <= 5 && thin.count < whole.count);
    assert_true(thin.is_thinned && thin.step_bytes > 0);
    assert_true(near(thin.points[0].time_s, whole.points[0].time_s));
    assert_true(
        near(thin.points[thin.count - 1].memory_bytes, whole.points[whole.count - 1].memory_bytes));
    front_clear(&whole);
    front_clear(&thin);
    close_small_world(&world);
}

/* ---- ends ---- */

static void test_front__begins_below_the_cap_of_the_request(void **state)
{
    (void)state;
    struct small_world world;
    struct front whole, capped;
    open_small_world(&world, 5);
    find(&world, FRONT_TIME | FRONT_MEMORY, 0, &whole);
    assert_true(whole.count > 2);
    world.request.memory_cap_bytes = (uint64_t)ceil(whole.points[1].memory_bytes);
    find(&world, FRONT_TIME | FRONT_MEMORY, 0, &capped);
    assert_int_equal(capped.count, whole.count - 1);
    for (size_t i = 0; i < capped.count; i++)
        assert_true(near(capped.points[i].time_s, whole.points[i + 1].time_s));
    front_clear(&whole);
    front_clear(&capped);
    close_small_world(&world);
}

static void test_front__stopped_keeps_what_was_found(void **state)
{
    (void)state;
    static const atomic_int stop = 1;
    struct small_world world;
    struct front front;
    open_small_world(&world, 1);
    world.request.stop = &stop;
    find(&world, FRONT_TIME | FRONT_MEMORY | FRONT_ENERGY, 0, &front);
    assert_int_equal(front.count, 1);
    assert_true(front.is_stopped);
    front_clear(&front);
    close_small_world(&world);
}

static void test_front__refuses_what_has_no_front(void **state)
{
    (void)state;
    struct small_world world;
    struct front front = {0};
    struct error err;
    open_small_world(&world, 1);
    struct front_request request = {.search = world.request, .axes = FRONT_TIME};
    assert_int_equal(front_find(&request, &front, &err), STATUS_USAGE);
    request.axes = FRONT_TIME | FRONT_MEMORY;
    request.search.memory_cap_bytes = 1;
    assert_int_equal(front_find(&request, &front, &err), STATUS_INFEASIBLE);
    assert_true(front.infeasibility.missing_bytes > 0);
    assert_int_equal(front.count, 0);
    close_small_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_front__of_time_and_memory_is_every_plan_that_none_dominates),
        cmocka_unit_test(test_front__of_memory_and_energy_is_every_plan_that_none_dominates),
        cmocka_unit_test(test_front__has_points_that_no_weighted_sum_finds),
        cmocka_unit_test(test_front__thinned_keeps_both_ends_and_says_so),
        cmocka_unit_test(test_front__of_time_and_energy_is_every_plan_that_none_dominates),
        cmocka_unit_test(test_front__of_all_three_is_every_plan_that_none_dominates),
        cmocka_unit_test(test_front__begins_below_the_cap_of_the_request),
        cmocka_unit_test(test_front__stopped_keeps_what_was_found),
        cmocka_unit_test(test_front__refuses_what_has_no_front),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
