#include "fixture.h"

#include "ir/mesh.h"
#include "traces/roofline.h"

struct compared {
    struct run_record record;
    struct run_comparison comparison;
    struct roofline_row rows[ROOFLINE_ROWS_MAX];
    size_t count;
};

static void make(struct compared *out)
{
    struct error err;
    fixture_make(&out->record, &fixture_full);
    out->record.info.matmul_flops = 2e11;
    out->record.info.copy_bytes_s = 4e10;
    assert_ok(compare_run(&out->record, &out->comparison, &err), &err);
    out->count = roofline_rows(&out->record, &out->comparison, out->rows);
}

static void release(struct compared *compared)
{
    run_comparison_clear(&compared->comparison);
    run_record_free(&compared->record);
}

/* The rows' times are those of all layers: none is lost, none counted twice. */
static void test_roofline__times_sum_to_the_passes(void **state)
{
    (void)state;
    struct compared c;
    double rows_s = 0, layers_s = 0;
    make(&c);
    assert_true(c.count >= LAYER_KIND_COUNT);
    for (size_t i = 0; i < c.count; i++)
        rows_s += c.rows[i].seconds;
    for (size_t i = 0; i < c.comparison.layer_count; i++)
        layers_s += c.comparison.layers[i].phase_s[PHASE_FORWARD].measured.value +
                    c.comparison.layers[i].phase_s[PHASE_BACKWARD].measured.value;
    assert_near(rows_s, layers_s, 1e-12);
    release(&c);
}

/* Half of the copy rate and half of the product rate are one rank's; a share is limit by time. */
static void test_roofline__shares_are_of_one_ranks_rates(void **state)
{
    (void)state;
    struct compared c;
    make(&c);
    struct machine_rates rates = {2e11 / c.record.plan.ranks, 4e10 / c.record.plan.ranks};
    size_t known = 0;
    for (size_t i = 0; i < c.count; i++) {
        const struct roofline_row *row = &c.rows[i];
        if (isnan(row->reached))
            continue;
        known++;
        assert_near(row->reached * row->seconds, roofline_s(row->work, rates), 1e-15);
        assert_int_equal(row->is_memory, roofline_is_memory(row->work, rates));
    }
    assert_true(known > 0);
    release(&c);
}

/* A layer in another precision than the rate is of has no share, but one without products has. */
static void test_roofline__other_precisions_have_no_share(void **state)
{
    (void)state;
    struct compared c;
    struct error err;
    make(&c);
    run_comparison_clear(&c.comparison);
    for (size_t i = 0; i < c.record.plan.layer_count; i++)
        c.record.plan.layers[i].precision =
            model_layer(&c.record.plan.model, i).kind == LAYER_ATTENTION ? PRECISION_BF16
                                                                         : PRECISION_FP32;
    assert_int_equal(plan_main_precision(&c.record.plan), PRECISION_FP32);
    assert_ok(compare_run(&c.record, &c.comparison, &err), &err);
    c.count = roofline_rows(&c.record, &c.comparison, c.rows);
    bool saw_attention = false;
    for (size_t i = 0; i < c.count; i++) {
        bool is_other = c.rows[i].kind == LAYER_ATTENTION;
        saw_attention |= is_other;
        assert_int_equal(isnan(c.rows[i].reached) != 0, is_other);
    }
    assert_true(saw_attention);
    release(&c);
}

/* A run of before the copy rate was recorded. */
static void test_roofline__unknown_rates_give_no_share(void **state)
{
    (void)state;
    struct compared c;
    make(&c);
    c.record.info.copy_bytes_s = NAN;
    c.count = roofline_rows(&c.record, &c.comparison, c.rows);
    assert_true(c.count > 0);
    for (size_t i = 0; i < c.count; i++)
        assert_true(isnan(c.rows[i].reached));
    release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roofline__times_sum_to_the_passes),
        cmocka_unit_test(test_roofline__shares_are_of_one_ranks_rates),
        cmocka_unit_test(test_roofline__other_precisions_have_no_share),
        cmocka_unit_test(test_roofline__unknown_rates_give_no_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
