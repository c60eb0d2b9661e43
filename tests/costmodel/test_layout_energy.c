/* Joules, price and carbon of steps whose times are given, against sums by hand. */
#include "costmodel/layout_energy.h"
#include "layouts.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

/* Two alike stages of two devices each that draw 100 W at rest and 300 W at most. Two micro-batches
 * of 3 s of products, 1 s of traffic, 0.2 s and 0.1 s of collectives; once a step 0.3 s of
 * collectives and 0.4 s of the optimizer; 20 s in all. */
struct made {
    struct cluster cluster;
    struct layout layout;
    struct layout_step step;
};

static struct made *made(void)
{
    static struct made made;
    made =
        (struct made){.cluster = {.group_count = 1, .carbon_g_kwh = NAN}, .layout = one_device(1)};
    struct device_type *device = &made.cluster.groups[0].device;
    device->idle_w = 100;
    device->peak_w = 300;
    device->price_hour = NAN;
    made.layout.devices = 4;
    made.layout.pipeline = made.layout.data = 2;
    made.step = (struct layout_step){
        .layout = &made.layout,
        .stage_count = 1,
        .micro_batches = 2,
        .reduce_s = 0.2,
        .gather_s = 0.1,
        .optimizer_s = 0.4,
    };
    made.step.prices[0].share.device = device;
    made.step.stages[0] = (struct stage_work){
        .count = 2,
        .pass = {{.product_s = 1, .traffic_s = 0.4, .exchange_s = 0.1},
                 {.product_s = 2, .traffic_s = 0.6, .exchange_s = 0.1}},
        .gather_s = 0.04,
        .scatter_s = 0.06,
    };
    return &made;
}

static struct layout_prediction energy(const struct made *made)
{
    struct layout_prediction out = {.time_s = {20, 2, PROVENANCE_MODELLED}};
    layout_energy(&made->cluster, &made->step, &out);
    return out;
}

/* Products 294 W (0.98 of 300) for 6 s; traffic 220 W (0.6 of the span) for 2.4 s; collectives 160
 * W (0.3) for 0.9 s; waiting 130 W (0.15) for the other 10.7 s. */
static void test_layout_energy__by_hand(void **state)
{
    (void)state;
    struct layout_prediction out = energy(made());
    double device_j = 294 * 6 + 220 * 2.4 + 160 * 0.9 + 130 * 10.7;
    check_near(device_j, 3827, "by hand");
    check_near(out.energy_j.value, 4 * 3827.0, "energy");
    assert_int_equal(out.energy_j.provenance, PROVENANCE_MODELLED);
    /* a tenth of the time's and a tenth of the power's own */
    check_near(out.energy_j.deviation, sqrt(0.02) * 4 * 3827, "deviation");
}

/* A chip that would draw 500 W has memory work of 100 + 0.6 x 400 = 340 W: the limit binds. */
static void test_layout_energy__the_limit_holds_memory_work_back(void **state)
{
    (void)state;
    struct made *given = made();
    given->cluster.groups[0].device.unlimited_w = 500;
    check_near(energy(given).energy_j.value, 4 * (3827.0 + (294 - 220) * 2.4), "held back");
    given->cluster.groups[0].device.unlimited_w = 350; /* 250 W */
    check_near(energy(given).energy_j.value, 4 * (3827.0 + (250 - 220) * 2.4), "free");
}

/* Without a pipeline nothing spins in a kernel that waits for a neighbour. */
static void test_layout_energy__rest_without_pipeline_is_idle(void **state)
{
    (void)state;
    struct made *given = made();
    given->layout.pipeline = 1;
    given->layout.data = 4;
    given->step.stages[0].count = 1;
    check_near(energy(given).energy_j.value, 4 * (3827.0 - (130 - 100) * 10.7), "idle");
}

/* Each stage by what its own device draws. */
static void test_layout_energy__of_stages_on_two_kinds_of_devices(void **state)
{
    (void)state;
    struct made *given = made();
    struct device_type other = given->cluster.groups[0].device;
    other.idle_w = 200;
    other.peak_w = 600; /* twice as much of everything */
    given->step.stage_count = 2;
    given->step.stages[0].count = 1;
    given->step.stages[1] = given->step.stages[0];
    given->step.stages[1].group = 1;
    given->step.prices[1].share.device = &other;
    check_near(energy(given).energy_j.value, 2 * 3827.0 + 2 * 2 * 3827.0, "two kinds");
}

static void test_layout_energy__price_and_carbon(void **state)
{
    (void)state;
    struct made *given = made();
    struct layout_prediction out = energy(given);
    assert_int_equal(out.price.provenance, PROVENANCE_ABSENT);
    assert_int_equal(out.carbon_g.provenance, PROVENANCE_ABSENT);
    given->cluster.groups[0].device.price_hour = 3.6;
    snprintf(given->cluster.currency, sizeof(given->cluster.currency), "USD");
    given->cluster.carbon_g_kwh = 360;
    out = energy(given);
    check_near(out.price.value, 4 * 20 * 1e-3, "price");
    check_near(out.carbon_g.value, 4 * 3827 * 1e-4, "carbon");
    given->cluster.groups[0].device.peak_w = 0;
    out = energy(given);
    assert_int_equal(out.energy_j.provenance, PROVENANCE_ABSENT);
    assert_int_equal(out.carbon_g.provenance, PROVENANCE_ABSENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_energy__by_hand),
        cmocka_unit_test(test_layout_energy__the_limit_holds_memory_work_back),
        cmocka_unit_test(test_layout_energy__rest_without_pipeline_is_idle),
        cmocka_unit_test(test_layout_energy__of_stages_on_two_kinds_of_devices),
        cmocka_unit_test(test_layout_energy__price_and_carbon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
