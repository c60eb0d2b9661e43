/* Pins of described clusters: all layouts that are offered keep them, and none is lost. */
#include "ir/plan_only.h"
#include "layouts.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void load(struct cluster *cluster, struct model *model)
{
    struct error err;
    *model = few_blocks("llama-3-8b", 8);
    if (cluster_load(cluster, "h100x16", &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static void price(const struct layouts_request *request, struct layout_list *out)
{
    struct error err;
    if (layouts_price(request, out, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_true(out->is_whole);
}

static int offload_of(const struct layout *layout)
{
    return (layout->offload_activations ? OFFLOAD_ACTIVATIONS : 0) |
           (layout->offload_optimizer ? OFFLOAD_OPTIMIZER : 0);
}

static bool keeps(const struct layout_pins *pins, const struct layout *layout)
{
    return (pins->context == 0 || layout->context == pins->context) &&
           (pins->shard == 0 || layout->shard == pins->shard) &&
           (pins->schedule < 0 || (int)layout->schedule == pins->schedule) &&
           (pins->offload < 0 || offload_of(layout) == pins->offload) &&
           (pins->fused_attention < 0 || layout->fused_attention == (pins->fused_attention != 0)) &&
           layout->overlap_gradients == (pins->overlap != 0) &&
           layout->overlap_parameters == (pins->overlap != 0) &&
           layout->overlap_tensor == (pins->overlap != 0);
}

/* Of everything that is free, what keeps the pins is no better than what is found under them. */
static void check(struct layouts_request *request, const struct layout_list *free_list)
{
    struct layout_list pinned;
    double best_s = INFINITY, kept_s = INFINITY;
    size_t kept = 0;
    price(request, &pinned);
    if (pinned.count == 0)
        fail_msg("no layout under schedule %d, offload %d, cp %d, shard %d", request->pins.schedule,
                 request->pins.offload, (int)request->pins.context, (int)request->pins.shard);
    for (size_t i = 0; i < pinned.count; i++) {
        assert_true(keeps(&request->pins, &pinned.rows[i].layout));
        best_s = fmin(best_s, pinned.rows[i].time_s);
    }
    for (size_t i = 0; i < free_list->count; i++) {
        if (!keeps(&request->pins, &free_list->rows[i].layout))
            continue;
        kept++;
        kept_s = fmin(kept_s, free_list->rows[i].time_s);
    }
    assert_true(pinned.count >= kept);
    assert_true(best_s <= kept_s);
    layouts_free(&pinned);
    request->pins = layout_pins_none();
}

static void test_layout_pins__are_kept(void **state)
{
    (void)state;
    struct cluster cluster;
    struct model model;
    struct layout_list free_list;
    load(&cluster, &model);
    struct layouts_request request = request_of(&cluster, &model);
    price(&request, &free_list);
    for (int schedule = 0; schedule < SCHEDULE_COUNT; schedule++) {
        if (!framework_has_schedule(request.framework, (enum schedule)schedule))
            continue;
        request.pins.schedule = schedule;
        check(&request, &free_list);
    }
    for (int offload = 0; offload <= (OFFLOAD_ACTIVATIONS | OFFLOAD_OPTIMIZER); offload++) {
        request.pins.offload = offload;
        check(&request, &free_list);
    }
    for (int is_on = 0; is_on <= 1; is_on++) {
        request.pins.fused_attention = is_on;
        check(&request, &free_list);
        request.pins.overlap = is_on;
        check(&request, &free_list);
    }
    for (int64_t ways = 1; ways <= 8; ways *= 2) {
        request.pins.context = ways;
        check(&request, &free_list);
        request.pins.shard = 2 * ways;
        check(&request, &free_list);
    }
    layouts_free(&free_list);
}

static void test_layout_pins__executable_is_the_rest_of_plan_only(void **state)
{
    (void)state;
    struct cluster cluster;
    struct model model;
    struct layout_list all, executable;
    size_t expected = 0;
    load(&cluster, &model);
    struct layouts_request request = request_of(&cluster, &model);
    price(&request, &all);
    request.left_out = PLAN_ONLY_ALL;
    price(&request, &executable);
    for (size_t i = 0; i < all.count; i++)
        expected += plan_only_choices(&all.rows[i].layout, &model) == 0;
    assert_true(expected > 0 && expected < all.count);
    assert_int_equal(executable.count, expected);
    for (size_t i = 0; i < executable.count; i++)
        assert_int_equal(plan_only_choices(&executable.rows[i].layout, &model), 0);
    layouts_free(&all);
    layouts_free(&executable);
}

/* Price by hours of all devices, carbon by joules: the front of both is that of time and energy. */
static void test_layout_pins__front_of_price_and_carbon(void **state)
{
    (void)state;
    struct cluster cluster;
    struct model model;
    struct layout_list physical, accounted;
    load(&cluster, &model);
    cluster.groups[0].device.price_hour = 3.6;
    cluster.currency[0] = 'X';
    cluster.carbon_g_kwh = 36;
    struct layouts_request request = request_of(&cluster, &model);
    price(&request, &physical);
    price(&request, &accounted);
    for (size_t i = 0; i < accounted.count; i++) {
        const struct priced_layout *row = &accounted.rows[i];
        assert_true(fabs(row->price / (16 * 3.6 / 3600 * row->time_s) - 1) < 1e-12);
        assert_true(fabs(row->carbon_g / (36 / 3.6e6 * row->energy_j) - 1) < 1e-12);
    }
    layouts_keep_front(&physical, FRONT_MEMORY | FRONT_TIME | FRONT_ENERGY);
    layouts_keep_front(&accounted, FRONT_MEMORY | FRONT_COST | FRONT_CARBON);
    assert_true(physical.count > 2);
    assert_int_equal(physical.count, accounted.count);
    for (size_t i = 0; i < physical.count; i++)
        assert_true(fabs(physical.rows[i].time_s / accounted.rows[i].time_s - 1) < 1e-12);
    layouts_free(&physical);
    layouts_free(&accounted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_pins__are_kept),
        cmocka_unit_test(test_layout_pins__executable_is_the_rest_of_plan_only),
        cmocka_unit_test(test_layout_pins__front_of_price_and_carbon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
