/* The memory cap at other risks than 5 %: quantiles from tables of the normal distribution, plans
 * against every plan. */
#include "costmodel/predict.h"
#include "every_plan.h"
#include "planner/layouts.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* Upper quantiles, by falling risk (Abramowitz, Stegun 1964, table 26.6). */
static const struct {
    double risk, deviations;
} tail[] = {
    {0.5, 0},
    {0.25, 0.67448975},
    {0.1, 1.28155157},
    {0.05, 1.64485363},
    {0.025, 1.95996398},
    {0.01, 2.32634787},
    {0.001, 3.09023231},
    {0.00001, 4.26489079},
};
enum { TAIL_COUNT = sizeof(tail) / sizeof(*tail), SEEDS = 8 };

static double best_time(const struct every_plan *all, double cap_bytes, double deviations)
{
    double best_s = INFINITY;
    for (size_t i = 0; i < all->count; i++) {
        const struct listed_plan *plan = &all->items[i];
        if (plan->memory.value + deviations * plan->memory.deviation <= cap_bytes)
            best_s = fmin(best_s, plan->time_s);
    }
    return best_s;
}

/* Caps between what some plan has on average and what it has at the largest quantile. */
static uint64_t some_cap(const struct every_plan *all, uint64_t seed)
{
    const struct listed_plan *plan = &all->items[(seed * 7919) % all->count];
    return (uint64_t)(plan->memory.value + 1.5 * plan->memory.deviation);
}

static void check_risks(const struct small_world *world, uint64_t seed, size_t *changes)
{
    struct planner_request request = world->request;
    double last_s = 0;
    request.memory_cap_bytes = some_cap(&world->all, seed);
    for (size_t i = 0; i < TAIL_COUNT; i++) {
        struct planner_result result = {.statistics = {.seconds = 0}};
        struct error err;
        double cap = (double)request.memory_cap_bytes;
        double best_s = best_time(&world->all, cap, tail[i].deviations);
        request.risk = tail[i].risk;
        enum status status = planner_search(&request, &result, &err);
        if (isinf(best_s)) {
            assert_int_equal(status, STATUS_INFEASIBLE);
            continue;
        }
        assert_int_equal(status, STATUS_OK);
        const struct quantity memory = result.plan.prediction.memory_bytes;
        assert_true(memory.value + tail[i].deviations * memory.deviation <= cap + 1);
        assert_true(fabs(result.plan.prediction.time_s.value / best_s - 1) < 1e-9);
        assert_true(best_s >= last_s); /* a smaller risk leaves fewer plans */
        *changes += i > 0 && best_s > last_s * (1 + 1e-9);
        last_s = best_s;
        plan_clear(&result.plan);
    }
}

static void test_risk__leaves_the_best_plan_that_fits_at_its_quantile(void **state)
{
    (void)state;
    size_t changes = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct small_world world;
        open_small_world(&world, seed);
        check_risks(&world, seed, &changes);
        close_small_world(&world);
    }
    assert_true(changes > 0); /* somewhere the risk decides */
}

/* What holds the cap at one quantile need not hold it at the next. */
static void test_risk__smaller_never_gives_more_memory_on_a_cluster(void **state)
{
    (void)state;
    struct cluster cluster;
    struct model model;
    struct error err;
    const struct model_overrides sizes = {.layers = 8, .seq_length = 2048};
    size_t before = SIZE_MAX, changes = 0;
    assert_int_equal(model_load(&model, "llama-3-8b", &sizes, &err), STATUS_OK);
    assert_int_equal(cluster_load(&cluster, "h100x8", &err), STATUS_OK);
    struct layouts_request request = {.cluster = &cluster,
                                      .model = &model,
                                      .framework = FRAMEWORK_MEGATRON,
                                      .arithmetic = ARITHMETIC_BF16,
                                      .global_batch = 16,
                                      .memory_cap_bytes = UINT64_C(16) << 30,
                                      .overlaps = true,
                                      .fused_cross_entropy = true,
                                      .pins = layout_pins_none(),
                                      .limits = {.deadline_s = INFINITY}};
    for (size_t i = 0; i < TAIL_COUNT; i++) {
        struct layout_list list;
        request.risk = tail[i].risk;
        assert_int_equal(layouts_price(&request, &list, &err), STATUS_OK);
        for (size_t k = 0; k < list.count; k++) {
            struct layout_prediction prediction = {.time_s = {.value = 0}};
            const struct quantity *memory = &prediction.memory_bytes;
            assert_int_equal(
                layout_memory(&cluster, &model, &list.rows[k].layout, &prediction, &err),
                STATUS_OK);
            assert_true(memory->value + tail[i].deviations * memory->deviation <=
                        16.0 * 1024 * 1024 * 1024 + 1e3);
        }
        assert_true(list.count <= before);
        changes += before != SIZE_MAX && list.count < before;
        before = list.count;
        layouts_free(&list);
    }
    assert_true(changes > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_risk__leaves_the_best_plan_that_fits_at_its_quantile),
        cmocka_unit_test(test_risk__smaller_never_gives_more_memory_on_a_cluster),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
